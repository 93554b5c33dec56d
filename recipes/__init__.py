"""The programs that made what is bundled in data/: `python -m recipes --help`."""
