"""`make badges` names the repository everywhere, can be repeated, and leaves nothing if undone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = sorted(path.name for path in (REPOSITORY / "notebooks").glob("[0-9]*.ipynb"))
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def publish(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "notebooks")
    import badges

    return badges.publish


@pytest.fixture
def course(tmp_path, publish) -> Path:
    """A copy of what `make badges` reads and writes, with no repository named."""
    (tmp_path / "notebooks").mkdir()
    for name in ("Makefile", "README.md", "notebooks/badges.py"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for name in NAMES:
        notebook = nbformat.read(REPOSITORY / "notebooks" / name, as_version=4)
        notebook.cells = notebook.cells[:6]  # title, set-up and a few more: quick to read
        nbformat.write(notebook, tmp_path / "notebooks" / name)
    publish("", tmp_path)
    return tmp_path


def contents(course: Path) -> dict[str, str]:
    paths = [course / "README.md", *(course / "notebooks").glob("*.ipynb")]
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def setup_cell(course: Path, name: str) -> str:
    cells = nbformat.read(course / "notebooks" / name, as_version=4).cells
    (cell,) = (cell for cell in cells if "setup" in cell.metadata.get("tags", []))
    return cell.source


def test_without_a_repository_nothing_names_an_address(course):
    for name, text in contents(course).items():
        assert "colab.research" not in text, name
    for name in NAMES:
        assert '\nADDRESS = ""  #' in setup_cell(course, name)


def test_each_notebook_and_its_row_in_the_readme_get_a_badge_and_an_address(course, publish):
    assert publish("some-one/a.course", course) == [*NAMES, "README.md"]
    readme = (course / "README.md").read_text(encoding="utf-8")
    assert readme.count("colab-badge.svg") == len(NAMES) == 8
    for name in NAMES:
        path = f"some-one/a.course/blob/main/notebooks/{name}"
        opens = f"https://colab.research.google.com/github/{path}"
        row = rf"^\|.*\(notebooks/{name}\) \[!\[Open in Colab\]\(.*\)\]\({opens}\) \|"
        assert re.search(row, readme, re.MULTILINE)
        notebook = nbformat.read(course / "notebooks" / name, as_version=4)
        title, line, _ = notebook.cells[0].source.split("\n\n", 2)
        assert title.startswith("# ") and line.endswith(f"]({opens})")
        assert '\nADDRESS = "https://github.com/some-one/a.course"  #' in setup_cell(course, name)


def test_it_can_be_repeated_renamed_and_undone(course, publish):
    nothing = contents(course)
    publish("one/first", course)
    first = contents(course)
    assert all(first[name] != nothing[name] for name in nothing)
    assert publish("one/first", course) == []
    assert contents(course) == first
    publish("two/second", course)
    assert not any("one/first" in text for text in contents(course).values())
    publish("one/first", course)
    assert contents(course) == first
    publish("", course)
    assert contents(course) == nothing


@pytest.mark.parametrize("wrong", ["name", "https://github.com/a/b", "a/b/c", 'a/b"', "a b/c"])
def test_what_is_no_repository_is_refused(course, publish, wrong):
    before = contents(course)
    with pytest.raises(ValueError, match=f"{re.escape(repr(wrong))}.*expected owner/name"):
        publish(wrong, course)
    assert contents(course) == before


@pytest.mark.parametrize("broken", ["README.md", "06_evaluation.ipynb"])
def test_nothing_is_written_where_one_file_is_not_as_expected(course, publish, broken):
    (path,) = course.rglob(broken)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("notebooks/03", "3").replace("ADDRESS =", "PLACE ="), "utf-8")
    before = contents(course)
    with pytest.raises(ValueError, match="expected one"):
        publish("one/first", course)
    assert contents(course) == before


@needs_make
def test_make_badges_wants_a_name_and_takes_an_empty_one(course):
    bin_ = Path(sys.executable).parent  # -o: what is installed here counts as up to date
    make = ["make", "badges", "-o", ".venv/.installed", f"BIN={bin_}"]
    environment = {k: v for k, v in os.environ.items() if k not in ("REPO", "MAKEFLAGS")}

    def run(*more: str) -> subprocess.CompletedProcess:
        command = make + list(more)
        return subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)

    before = contents(course)
    asked = run()
    assert asked.returncode != 0 and "make badges REPO=owner/name" in asked.stderr
    refused = run("REPO=name")
    assert refused.returncode != 0 and "badges: 'name' is no repository" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert contents(course) == before
    assert run("REPO=one/first").returncode == 0
    assert contents(course) != before
    assert run("REPO=").returncode == 0
    assert contents(course) == before
