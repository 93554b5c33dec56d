"""Projectors to choose from, one a file; and checkpoints of another project's projectors."""
