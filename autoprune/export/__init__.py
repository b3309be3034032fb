"""Export of a candidate to files that need neither the study nor Optuna."""
