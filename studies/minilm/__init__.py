"""The MiniLM study."""
