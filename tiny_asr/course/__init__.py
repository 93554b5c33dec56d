"""What only the notebooks need: checks, quizzes, explorers, and each lesson's own experiments."""
