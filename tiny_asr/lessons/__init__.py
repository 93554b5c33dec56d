"""What only one notebook needs: its pictures, its widgets, its small experiments."""
