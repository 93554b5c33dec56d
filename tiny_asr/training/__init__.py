"""Training the projector: the loop, its settings, its checkpoints, its cache and its log."""
