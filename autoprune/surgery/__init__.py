"""Cut a model to its kept channels, mask it for comparison, and prove that both agree."""
