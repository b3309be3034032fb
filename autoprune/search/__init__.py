"""Search policy: allocation, spaces, samplers, sources of proposals and early stopping. Without torch."""
