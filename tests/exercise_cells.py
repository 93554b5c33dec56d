"""The exercises of the notebooks, found by their tags: stubs, checks, solutions, wrong answers."""

import re
from functools import cache
from pathlib import Path

import nbformat
from conftest import REPOSITORY


@cache
def cells_of(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def tagged(path: Path, kind: str) -> dict[str, int]:
    """ID -> index of the cell with the tag `kind:ID`."""
    tags = [(i, tag) for i, c in enumerate(cells_of(path)) for tag in c.metadata.get("tags", ())]
    return {tag.split(":", 1)[1]: i for i, tag in tags if tag.startswith(f"{kind}:")}


NOTEBOOKS = {
    path.stem[:2]: path
    for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
    if tagged(path, "exercise")
}
EXERCISES = [key for path in NOTEBOOKS.values() for key in tagged(path, "exercise")]


@cache
def wrong_answers(lesson: str) -> list[tuple[str, str, str]]:
    """(ID, what the check must say, code) of each wrong answer to a notebook's exercises."""
    return [(*map(str.strip, head.split("|")), code) for head, code in answers("wrong", lesson)]


def right_answers(lesson: str) -> list[tuple[str, str]]:
    """(ID, code) of right answers that are written otherwise than the solution."""
    return [(head.strip(), code) for head, code in answers("right", lesson)]


def answers(kind: str, lesson: str) -> list[list[str]]:
    """What follows `# %% ` and the code below it, of each cell of a file; none without a file."""
    file = REPOSITORY / f"tests/course/{kind}_answers" / f"lesson_{lesson}.py"
    if not file.exists():
        return []
    _, *parts = re.split(r"^# %% ", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [part.split("\n", 1) for part in parts]


def solution(identifier: str) -> str:
    path = NOTEBOOKS[identifier[:2]]
    source = cells_of(path)[tagged(path, "solution")[identifier]].source
    return re.search(r"<details>.*?```python\n(.*?)```.*?</details>", source, re.DOTALL)[1]
