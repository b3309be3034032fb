"""Find the channels and blocks of a model that can be removed together, by following channels through one forward."""
