"""One rule for each operator, in one file for each family of operators."""
