"""The quality cost of each group, and the widths for a budget."""
