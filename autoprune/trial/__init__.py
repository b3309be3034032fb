"""How to try a plan: prune, recover and measure one candidate."""
