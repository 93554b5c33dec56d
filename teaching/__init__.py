"""For instructors: the students' copy of the course, and grading. `python -m teaching --help`."""
