"""Sources of proposals besides the sampler: warm starts, rescans, polish and repairs."""
