"""Samplers that choose the parameters of trials."""
