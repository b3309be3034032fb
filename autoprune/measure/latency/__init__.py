"""Latency of a model against the dense model, by runtimes that models are deployed on."""
