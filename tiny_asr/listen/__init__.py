"""Words while one speaks: live sound, read again at every step."""
