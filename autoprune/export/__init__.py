"""A chosen candidate as files that need neither the study nor Optuna."""
