"""Benchmarks: every number of docs/benchmarks.md comes from one of these commands."""
