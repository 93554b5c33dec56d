"""The page of `tiny-asr demo`: speak, and watch each stage come to be."""
