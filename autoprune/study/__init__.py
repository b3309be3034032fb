"""The ask/tell loop: storage, samplers, warm starts, lineage."""
