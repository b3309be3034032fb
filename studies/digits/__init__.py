"""The digits study."""
