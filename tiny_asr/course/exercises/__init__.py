"""What the exercises ask and accept: one module a notebook, `lesson_01` for notebook 01.

Each declares the judges of its exercises (see `course.checks`) and its `QUIZ` (see
`course.quiz`). They lie here and not in the notebooks, so that nobody reads the answer before the
question.
"""
