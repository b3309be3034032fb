"""Plans: the decisions of one trial as plain data, without torch and Optuna."""
