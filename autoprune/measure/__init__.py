"""Measurements of a model: quality, size, multiply-adds and latency."""
