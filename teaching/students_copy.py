"""The students' copy of the course: the same notebooks without solutions, outputs and time plans.

It is a whole course, from which `make lab` installs and opens everything, so a student needs this
folder alone. The tests stay out, as they hold right and wrong answers; the site's sources, too, as
its build puts whole notebooks there. The judges in `tiny_asr/course` stay: the checks need them.
"""

import shutil
from pathlib import Path

import nbformat

COPIED = (  # with every page that the README or a notebook leads to
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "data",
    "docs/adapters.md",
    "docs/glossary.md",
    "docs/images",
    "docs/languages.md",
    "docs/listening.md",
    "docs/map.md",
    "docs/projectors.md",
    "docs/scale.md",
    "docs/serving.md",
    "docs/speed",
    "docs/speed.md",
    "docs/teaching.md",
    "docs/words.md",
    "docs/your_own_hours.md",
    "environment.yml",
    "notebooks/colab.py",
    "pyproject.toml",
    "recipes",
    "tiny_asr",
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")


def copy_course(course: Path, out: Path) -> list[Path]:
    """Write the students' copy of a checkout of the course into a new folder.

    Returns the notebooks written. Raises ValueError if `out` exists: there may be work in it.
    """
    notebooks = sorted((course / "notebooks").glob("*.ipynb"))
    if not notebooks:
        raise ValueError(f"no notebooks in '{course / 'notebooks'}'; expected a checkout there")
    if out.exists():
        raise ValueError(f"'{out}' exists; delete it first, or choose another --out")
    for name in COPIED:
        source = course / name
        if source.is_dir():
            shutil.copytree(source, out / name, ignore=LEFT_OUT)
        elif source.exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, out / name)
    (out / "notebooks").mkdir(parents=True, exist_ok=True)
    for path in notebooks:
        notebook = for_students(nbformat.read(path, as_version=4))
        nbformat.write(notebook, out / "notebooks" / path.name)
    return [out / "notebooks" / path.name for path in notebooks]


def for_students(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without solutions, boxes for instructors, outputs and counts, in place; hints stay."""
    notebook.cells = [cell for cell in notebook.cells if not is_for_instructors(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def is_for_instructors(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell holds a solution or a box for instructors: its tags say so."""
    tags = cell.metadata.get("tags", ())
    return any(tag == "instructor" or tag.startswith("solution:") for tag in tags)
