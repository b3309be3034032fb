"""Search spaces: pruning plans as parameters of Optuna trials."""
