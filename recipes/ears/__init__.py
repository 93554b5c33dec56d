"""Trains what hears: the tiny encoder, and the projectors of `tiny`, `small` and `medium`."""
