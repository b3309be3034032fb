"""Torch-Pruning searched by SearchBackend."""
