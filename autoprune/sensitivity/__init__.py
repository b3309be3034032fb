"""How much quality each group costs, and the widths that a budget buys."""
