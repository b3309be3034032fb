"""What one trial decides, as plain data that knows neither torch nor optuna."""
