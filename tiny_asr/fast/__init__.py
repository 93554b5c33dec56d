"""The same numbers sooner, on a GPU: packed clips, recorded steps, compiled layers, less memory."""
