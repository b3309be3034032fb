"""Figures and a self-contained HTML page. torch is not imported."""
