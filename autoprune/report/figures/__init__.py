"""Figures of a study, as plain data."""
