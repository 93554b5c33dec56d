"""The command line: `tiny-asr`, or `python -m tiny_asr.cli`."""
