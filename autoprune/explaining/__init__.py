"""Explain a model: as data, as text and as JSON."""
