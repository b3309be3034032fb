"""Digit scans judged by functions of one's own."""
