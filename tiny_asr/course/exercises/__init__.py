"""What the exercises ask and accept (see `course.checks`): `lesson_01` for notebook 01, and so on.

They lie here and not in the notebooks, so that nobody reads the answer before the question.
"""
