"""The non-dominated candidates, and the choice among them. Plain data; torch is not imported."""
