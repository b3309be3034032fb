"""Samplers and spaces replayed on synthetic pruning problems whose front is known."""
