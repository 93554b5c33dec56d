"""The pictures of a trace, for notebooks and the command line."""
