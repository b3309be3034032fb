"""Explanations of a model: as data, as text and as JSON."""
