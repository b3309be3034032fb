"""Stored data of a study: measurements, candidates, scan, manifest and the run folder. Without torch and Optuna."""
