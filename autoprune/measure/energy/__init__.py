"""Energy of a call of a model against the dense model, by the counters that processors and GPUs have."""
