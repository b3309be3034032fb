"""Which channels are worth keeping: scores per channel from signals that are gathered once."""
