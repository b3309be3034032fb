"""Reports: figures, findings and self-contained HTML pages."""
