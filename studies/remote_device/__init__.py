"""Latency from a device that is not this machine."""
