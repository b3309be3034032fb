"""Allocation: from a budget and a scan to widths."""
