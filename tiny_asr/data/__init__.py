"""Speech with its text: from files to batches, augmented."""
