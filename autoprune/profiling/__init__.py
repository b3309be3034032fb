"""Device profiles: which widths are fast on a device, and how long any cut of a model takes there."""
