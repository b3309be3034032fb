"""autoprune against what people do without it, at equal compute on real data."""
