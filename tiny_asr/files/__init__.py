"""Sound files as they are found: odd, torn, of unknown length, and what may be doubted in them."""
