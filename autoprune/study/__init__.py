"""The study: a search over pruning plans in one run folder."""
