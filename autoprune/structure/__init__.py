"""Structure of a dense model as plain data: groups, blocks, costs and reasons. Without torch."""
