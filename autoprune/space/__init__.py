"""PruningPlans as points of an Optuna search space."""
