"""What of a model can be removed together, found by following channels through one forward."""
