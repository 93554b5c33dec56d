"""Low-rank adapters on the frozen decoder: a second stage of training."""
