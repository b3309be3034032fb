"""Dashboard: a web page over run folders, live while a study runs. It needs Dash, and neither torch nor Optuna."""
