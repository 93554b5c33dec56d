"""Find the answers in the notebooks that students hand in.

Of a student's notebook only the exercises count, and the checks are the course's own: whatever else
was edited, deleted or added there changes nothing. An answer is found by the name that it defines,
not by the cell's tag, so it does not matter if a site drops tags, or if the answer stands in a new
cell. The rule is what running the notebook from top to bottom does: the last cell that defines the
name, up to the check. An answer may use imports and helpers from cells above it, so the statements
that define those names come along, and no others: no model is loaded to judge a function.
"""

import ast
import json
import re
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LARGEST = 50_000_000  # bytes of a notebook; with all outputs, each of ours has less than a million
CHECK = r"""\bcheck\(\s*["']{}["']"""
NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)  # what reading code can raise


@dataclass(frozen=True)
class Exercise:
    """One exercise of the course: its ID, the name that an answer defines, the check cell."""

    identifier: str
    answer: str
    check: str


@dataclass(frozen=True)
class Lesson:
    """A notebook of the course: its file name without the ending, its exercises, its imports."""

    stem: str
    exercises: tuple[Exercise, ...]
    imports: str


@dataclass(frozen=True)
class Submission:
    """A notebook that a student handed in."""

    student: str
    lesson: Lesson
    path: Path


def read_course(folder: Path) -> list[Lesson]:
    """The notebooks in a folder that have exercises. Raises ValueError if there are none."""
    lessons = []
    for path in sorted(folder.glob("*.ipynb")):
        cells = code_cells(path)
        found = re.findall(r"""^check\("([\w-]+)", (\w+)\)$""", "\n".join(cells), re.MULTILINE)
        exercises = tuple(Exercise(key, name, f'check("{key}", {name})') for key, name in found)
        imports = [part for part, *_ in statements(cells) if part.startswith(("import ", "from "))]
        lessons.append(Lesson(path.stem, exercises, "\n".join(imports)))
    if not any(lesson.exercises for lesson in lessons):
        raise ValueError(f"no exercises in '{folder}'; expected the course's notebooks there")
    return lessons


def find_submissions(folder: Path, lessons: list[Lesson]) -> tuple[list[Submission], list[str]]:
    """The notebooks handed in, and a line about each that is left out.

    Two layouts, also mixed: FOLDER/anna/00_one_clip_all_the_way.ipynb, at any depth below anna, and
    FOLDER/anna_00_one_clip_all_the_way.ipynb. What a browser or a learning platform puts behind the
    name, such as " (1)", does not matter. Of two versions the one changed last counts.
    """
    newest: dict[tuple[str, str], Submission] = {}
    left_out = []
    for path in sorted(folder.rglob("*.ipynb"), key=lambda path: (path.stat().st_mtime, path)):
        inside = path.relative_to(folder)
        if any(part.startswith((".", "__MACOSX")) for part in inside.parts):
            continue
        lesson = next((lesson for lesson in lessons if lesson.stem in path.stem), None)
        before = path.stem.partition(lesson.stem)[0].rstrip("_- ") if lesson else ""
        student = inside.parts[0] if len(inside.parts) > 1 else before
        if lesson is None or not student:
            expected = "NAME/NOTEBOOK or NAME_NOTEBOOK, as the course's notebooks are called"
            left_out.append(f"{inside}: left out; expected {expected}")
            continue
        older = newest.get((student, lesson.stem))
        if older:
            left_out.append(f"{older.path.relative_to(folder)}: left out; {inside} is newer")
        newest[student, lesson.stem] = Submission(student, lesson, path)
    return [newest[key] for key in sorted(newest)], left_out


def code_cells(path: Path) -> list[str]:
    """The sources of a notebook's code cells. Raises ValueError if the file is not a notebook."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST / 1e6:.0f} MB")
        cells = json.loads(path.read_bytes())["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"this is no notebook that can be read ({what})") from error


def find_answer(cells: list[str], exercise: Exercise) -> int | None:
    """The place of the cell that answers an exercise, or None."""
    check = re.compile(CHECK.format(re.escape(exercise.identifier)))
    name = re.escape(exercise.answer)
    defines = re.compile(
        rf"^(?:async\s+)?(?:def|class)\s+{name}\b|^{name}\s*(?::[^=\n]+)?=(?!=)", re.MULTILINE
    )
    checked = [place for place, source in enumerate(cells) if check.search(source)]
    upto = checked[-1] if checked else len(cells) - 1
    return next((i for i in range(upto, -1, -1) if defines.search(cells[i])), None)


def standalone(cell: str, above: Iterable[str]) -> str:
    """A cell with the statements from the cells above it that it needs, and no others before it."""
    cell = without_magics(cell)
    try:
        wanted = list(names(cell)[1])
    except NOT_PYTHON:
        return cell  # running it says what is wrong with it
    known = list(statements(above))
    needed: set[int] = set()
    while wanted:
        name = wanted.pop()
        new = {place for place, (_, bound, _) in enumerate(known) if name in bound} - needed
        needed |= new
        wanted += [used for place in new for used in known[place][2]]
    return "\n".join([*(known[place][0] for place in sorted(needed)), cell])


def without_magics(source: str) -> str:
    """A cell without IPython's own lines, such as %time and !pip."""
    return re.sub(r"^[%!].*", "", source, flags=re.MULTILINE)


def statements(cells: Iterable[str]) -> Iterator[tuple[str, set[str], set[str]]]:
    """The statements of all cells that are Python, each with the names it defines and uses."""
    for cell in cells:
        try:
            parts = [ast.unparse(node) for node in ast.parse(without_magics(cell)).body]
            found = [(part, *names(part)) for part in parts]
        except NOT_PYTHON:
            continue
        yield from found


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that some code defines, and those that it uses without defining them."""
    module = symtable.symtable(source, "cell", "exec")
    tables, used = [module], set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table is module or symbol.is_global()):
                used.add(symbol.get_name())
    bound = {s.get_name() for s in module.get_symbols() if s.is_assigned() or s.is_imported()}
    return bound, used - bound
