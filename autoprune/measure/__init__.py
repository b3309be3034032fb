"""What a model is worth: quality, size, multiply-adds, latency."""
