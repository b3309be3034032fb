"""The non-dominated candidates and the choice among them: plain data, without torch."""
