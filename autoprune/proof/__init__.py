"""Proof that cuts compute the same as masks, before anything is offered."""
