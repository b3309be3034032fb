"""An Optuna study of one's own over the space of autoprune."""
