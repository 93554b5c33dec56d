"""For instructors: `python -m teaching student | grade` (`make student`, `make grade`).

The students' copy of the course is made in `students_copy`. Grading reads what was handed in
(`submissions`), runs it elsewhere (`grading`, which starts `judging`), and
prints a table here. Whatever a user can get wrong leaves as one line on stderr and exit status 2.
"""

import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from teaching.grading import (
    ERROR,
    MARKS,
    MISSING,
    NOT_HANDED_IN,
    PASSED,
    TIMEOUT,
    Grade,
    grade_class,
    write_csv,
)
from teaching.submissions import find_submissions, read_course
from tiny_asr.cli.options import error_line

COURSE = Path(__file__).resolve().parent.parent
WIDTH = 80  # columns of a terminal
WARNING = """\
Grading runs the students' code on this machine, as you. Each answer has a time
limit and, on Linux, a memory limit; there is no sandbox. Ctrl-C stops."""

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="For instructors: the students' copy of the course, and grading.",
)


@app.command()
def student(
    out: Annotated[Path, typer.Option(help="a new folder for the copy")] = Path("student"),
) -> None:
    """Write a copy of the course without solutions and outputs."""
    from teaching.students_copy import copy_course

    notebooks = copy_course(COURSE, out)
    megabytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(f"{out}: {len(notebooks)} notebooks without solutions and outputs, {megabytes:.0f} MB")
    print("Hand out the whole folder; in it, `make lab` installs and opens everything.")


@app.command()
def grade(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="with NAME/NOTEBOOK.ipynb or NAME_NOTEBOOK.ipynb"),
    ],
    seconds: Annotated[float, typer.Option(min=1, help="that one answer may take")] = 20,
    memory: Annotated[float, typer.Option(min=1, help="GB that a student's process may take")] = 4,
    out: Annotated[Path | None, typer.Option(help="CSV; if not given, FOLDER/grades.csv")] = None,
) -> None:
    """Run the course's checks over the notebooks that students handed in."""
    if not folder.is_dir():
        raise ValueError(f"'{folder}' came; expected a folder of notebooks, handed in by students")
    submissions, left_out = find_submissions(folder, read_course(COURSE / "notebooks"))
    if not submissions:
        raise ValueError(
            f"no notebooks of the course in '{folder}'; expected NAME/NOTEBOOK.ipynb or "
            "NAME_NOTEBOOK.ipynb, such as anna/00_one_clip_all_the_way.ipynb"
        )
    out = out or folder / "grades.csv"
    print(WARNING, file=sys.stderr)
    students = len({each.student for each in submissions})
    grades, start = [], time.perf_counter()
    for number, theirs in enumerate(grade_class(submissions, seconds, int(memory * 1e9)), start=1):
        took, start = time.perf_counter() - start, time.perf_counter()
        count = f"{sum(each.result == PASSED for each in theirs)} of {len(theirs)} passed"
        line = f"{number}/{students} {theirs[0].student}: {count} ({took:.0f} s)"
        print(line, file=sys.stderr, flush=True)
        grades += theirs
    print("", table(grades), "", *wrapped([*remarks(grades), *left_out]), sep="\n")
    write_csv(out, grades)
    print(f"wrote {out}, with what the check said about each answer")


def table(grades: list[Grade]) -> str:
    """Students x exercises, a mark each, in 80 columns; then how many passed each exercise."""
    exercises = list(dict.fromkeys(each.exercise for each in grades))
    lessons = [list(group) for _, group in groupby(exercises, key=lambda key: key[:2])]
    rows = {name: list(theirs) for name, theirs in groupby(grades, key=lambda each: each.student)}
    head = "  ".join(lesson[0][:2].ljust(len(lesson)) for lesson in lessons)
    name_width = min(max(map(len, [*rows, "student"])), WIDTH - len(head) - len("    passed"))
    lines = [f"{'student':<{name_width}}  {head}  passed"]
    for name, theirs in rows.items():
        marks = {each.exercise: MARKS[each.result] for each in theirs}
        row = "  ".join("".join(map(marks.get, lesson)) for lesson in lessons)
        short = name if len(name) <= name_width else f"{name[: name_width - 1]}…"
        passed = sum(each.result == PASSED for each in theirs)
        lines.append(f"{short:<{name_width}}  {row}  {passed:>6}")
    lines += ["", "  ".join(f"{mark} {result}" for result, mark in MARKS.items()), ""]
    right = Counter(each.exercise for each in grades if each.result == PASSED)
    lines.append(f"Passed by so many of {len(rows)}, in the order of the columns:")
    lines += wrapped(
        f"{lesson[0][:2]}  " + ", ".join(f"{key[3:]} {right[key]}" for key in lesson)
        for lesson in lessons
    )
    return "\n".join(lines)


def remarks(grades: list[Grade]) -> list[str]:
    """Why an answer has no verdict of a check: a line for each reason, student and notebook."""
    lines = []
    for alike, group in groupby(grades, key=lambda each: each._replace(exercise="")):
        name, notebook, _, result, said = alike
        if result in (ERROR, TIMEOUT, MISSING) and said != NOT_HANDED_IN:
            keys = [each.exercise for each in group]
            whole = len(keys) == len({e.exercise for e in grades if e.notebook == notebook})
            lines.append(f"{name} {notebook if whole else ', '.join(keys)}: {result}: {said}")
    return lines


def wrapped(lines: Iterable[str]) -> list[str]:
    """Lines broken at 80 columns, what follows set in."""
    return ["\n".join(textwrap.wrap(line, WIDTH, subsequent_indent="    ")) for line in lines]


def main() -> None:
    """Run a command; exit status 2 after a user's mistake."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know fewer characters
    try:
        app()
    except ValueError as error:
        print(error_line(error), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
