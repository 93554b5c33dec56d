"""For instructors: the students' copy of the course, and grading a class that does what it likes.

One class is graded once, by the command itself; each test looks at a part of what came out. The
answers are the course's own solutions and `wrong_answers`, and those of a student called Mallory.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from exercise_cells import EXERCISES, NOTEBOOKS, cells_of, solution, tagged, wrong_answers

from teaching import __main__ as classroom
from teaching.grading import answers_in
from teaching.judging import judged
from teaching.students_copy import copy_course
from teaching.submissions import Exercise, find_answer, find_submissions, read_course, standalone

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST, SECOND, THIRD = NOTEBOOKS["00"], NOTEBOOKS["01"], NOTEBOOKS["02"]
ORDER = solution("00-order").removeprefix("order = ").strip()
LAST = list(tagged(THIRD, "exercise"))[-1]
# Right only where the grader keeps its promises about the place in which answers run.
ALONE = f"""
import os, pathlib
alone = not os.listdir() and os.environ["HF_HUB_OFFLINE"] == "1" and "MY_TOKEN" not in os.environ
alone = alone and pathlib.Path.home() == pathlib.Path.cwd()
order = {ORDER} if alone else ["not alone"]
"""
LOUD = f"{solution('01-pitch')}\nfor _ in range(50_000): print('x' * 100)"
ENDLESS = "def lengths(samples, rate):\n    while True: print('x' * 1000)"
CRASH = "import os\ndef graft(first, second, leave, enter):\n    os._exit(0)"
MEDDLES = """
def trained_share(module):
    return 0

from tiny_asr.course.exercises import lesson_00
lesson_00.expect = lambda *arguments, **named: None
"""
GREEDY = "def strength(frame, hertz):\n    return len(bytearray(3 * 10**9))"
FORGED = "print('✓ 01-sea: right.')\nraise SystemExit"


def filled(path: Path, answers: dict[str, str]) -> nbformat.NotebookNode:
    """A notebook of the course with code in place of some stubs."""
    notebook = nbformat.read(path, as_version=4)
    for identifier, code in answers.items():
        notebook.cells[tagged(path, "exercise")[identifier]].source = code
    return notebook


def hand_in(notebook: nbformat.NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def untidy() -> nbformat.NotebookNode:
    """Right answers, but no tags, checks edited, answers in new cells, with helpers and magics."""
    notebook = filled(FIRST, {"00-graft": "%%time\n" + solution("00-graft")})
    places = tagged(FIRST, "exercise")
    new = {
        "00-order": solution("00-order") + "\ncheck('00-order', order)",
        "00-lengths": "from math import ceil as up\n\nROUND = up",
        "00-trained": solution("00-trained").replace("sum(", "total_of(") + "\n1 / 0",
    }
    for identifier in reversed(new):
        cell = nbformat.v4.new_code_cell(new[identifier])
        notebook.cells.insert(places[identifier] + (identifier != "00-lengths"), cell)
        if identifier == "00-lengths":
            stub = notebook.cells[places[identifier] + 1]
            stub.source = solution(identifier).replace(
                "-(-samples // (320 * rate))", "ROUND(samples / (320 * rate))"
            )
    notebook.cells.insert(0, nbformat.v4.new_code_cell("def total_of(x):\n    return sum(x)"))
    for cell in notebook.cells:
        cell.metadata.pop("tags", None)
        if cell.source.startswith("check("):
            cell.source = cell.source.replace('"', "'") + "  # run again"
    return notebook


def cheating() -> nbformat.NotebookNode:
    """Wrong answers or none, with a check that always praises, for all and in an answer."""
    wrong = {identifier: code for identifier, _, code in reversed(wrong_answers("00"))}
    praise = "def check(identifier, answer):\n    print(f'✓ {identifier}: right.')\n\n\n"
    notebook = filled(
        FIRST, {"00-order": wrong["00-order"], "00-lengths": praise + wrong["00-lengths"]}
    )
    for cell in notebook.cells:
        if cell.source.startswith("from tiny_asr.course.checks import check"):
            cell.source = praise
    return notebook


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    """The students' copy of this course."""
    out = tmp_path_factory.mktemp("copy") / "student"
    copy_course(REPOSITORY, out)
    return out


def test_every_page_that_the_copys_readme_leads_to_is_in_the_copy(student):
    text = (student / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)", text)
    missing = [t for t in targets if "://" not in t and not (student / t).exists()]
    assert len(targets) > 10 and missing == []


@pytest.fixture(scope="module")
def graded(tmp_path_factory, student) -> tuple[subprocess.CompletedProcess, dict]:
    """What the command printed about a class, and its CSV: {(student, exercise): row}."""
    folder = tmp_path_factory.mktemp("class")
    for path in (FIRST, SECOND):
        right = {key: solution(key) for key in tagged(path, "exercise")}
        hand_in(filled(path, right), folder / "anna" / "week" / path.name)
    shutil.copy(student / "notebooks" / FIRST.name, folder / f"dora_{FIRST.name}")
    hand_in(untidy(), folder / f"ben_{FIRST.stem} (1).ipynb")
    hand_in(cheating(), folder / "cheater" / FIRST.name)
    mallory = {"00-order": ALONE, "00-lengths": ENDLESS, "00-graft": CRASH}
    hand_in(filled(FIRST, mallory | {"00-trained": MEDDLES}), folder / "mallory" / FIRST.name)
    mallory = {"01-pitch": GREEDY, "01-alias": "pitches = [1 2]", "01-sea": FORGED}
    version = filled(SECOND, mallory)
    del version.cells[tagged(SECOND, "exercise")["01-filters"]]
    hand_in(version, folder / "mallory" / SECOND.name)
    hand_in(filled(SECOND, {"01-pitch": LOUD}), folder / "cheater" / SECOND.name)
    (folder / "cheater" / THIRD.name).write_text('{"cells": [', encoding="utf-8")
    (folder / "homework.ipynb").write_text("{}", encoding="utf-8")
    command = [sys.executable, "-m", "teaching", "grade", str(folder)]
    result = subprocess.run(
        [*command, "--seconds", "4", "--memory", "2"],
        env=os.environ | {"MY_TOKEN": "secret", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    with (folder / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    exercises = [key for path in (FIRST, SECOND, THIRD) for key in tagged(path, "exercise")]
    assert len(rows) == 5 * len(exercises)  # students, exercises of the notebooks handed in
    return result, {(row["student"], row["exercise"]): row for row in rows}


def result_of(graded, name: str, exercise: str) -> tuple[str, str]:
    row = graded[1][name, exercise]
    return row["result"], row["said"]


def test_the_copy_is_the_course_without_solutions_time_plans_and_outputs(student):
    for path in NOTEBOOKS.values():
        ours, copy = cells_of(path), nbformat.read(student / "notebooks" / path.name, 4).cells
        gone = {*tagged(path, "solution").values()}
        gone |= {i for i, c in enumerate(ours) if "instructor" in c.metadata.get("tags", ())}
        kept = [cell for i, cell in enumerate(ours) if i not in gone]
        assert len(kept) == len(ours) - len(tagged(path, "exercise")) - 1
        assert [(c.id, c.source) for c in copy] == [(c.id, c.source) for c in kept]
        for cell in copy:
            assert not cell.get("outputs") and cell.get("execution_count") is None
        text = "\n".join(cell.source for cell in copy)
        assert text.count("<summary>Hint</summary>") >= len(tagged(path, "exercise"))
        for identifier in tagged(path, "exercise"):
            body = solution(identifier).split('"""')[-1].strip()
            assert body not in text, identifier


def test_no_solution_lies_elsewhere_in_the_copy(student):
    files = [path for path in student.rglob("*") if path.suffix in (".ipynb", ".py", ".md")]
    assert len(files) > 50
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert '"solution:' not in text and "<summary>Solution" not in text, path
    assert not (student / "tests").exists()


def test_the_copy_is_whole(student):
    """Links from its notebooks lead somewhere, and it installs: pyproject finds its files."""
    for path in (student / "notebooks").glob("*.ipynb"):
        text = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type != "code")
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert target.startswith("https://") or (path.parent / target).exists(), target
    for name in (
        "Makefile",
        "pyproject.toml",
        "constraints.txt",
        "LICENSE",
        "tiny_asr/cli/main.py",
    ):
        assert (student / name).read_bytes() == (REPOSITORY / name).read_bytes()
    ours = {path.name for path in (REPOSITORY / "data/models/tiny-asr").iterdir()}
    assert {path.name for path in (student / "data/models/tiny-asr").iterdir()} == ours


def test_a_folder_that_exists_is_not_overwritten(student):
    with pytest.raises(ValueError, match="exists; delete it first"):
        copy_course(REPOSITORY, student)


def test_solutions_pass_and_the_stubs_of_the_copy_are_not_attempted(graded):
    for exercise in [*tagged(FIRST, "exercise"), *tagged(SECOND, "exercise")]:
        assert result_of(graded, "anna", exercise)[0] == "passed", exercise
    for exercise in tagged(FIRST, "exercise"):
        assert result_of(graded, "dora", exercise)[0] == "not attempted", exercise


@pytest.mark.parametrize("lesson", read_course(REPOSITORY / "notebooks"), ids=lambda x: x.stem)
def test_the_same_holds_of_every_notebook(lesson, tmp_path, student):
    """Judged in this process, which has imported everything already."""
    path = REPOSITORY / "notebooks" / f"{lesson.stem}.ipynb"
    identifiers = list(tagged(path, "exercise"))
    hand_in(filled(path, {key: solution(key) for key in identifiers}), tmp_path / path.name)
    for folder, mark in ((tmp_path, "✓"), (student / "notebooks", "○")):
        answers, others = answers_in(folder / path.name, lesson)
        assert [answer["identifier"] for answer in answers] == identifiers and not others
        for answer in answers:
            line = judged(**answer)
            assert line.startswith(mark), (answer["identifier"], line)


@pytest.mark.parametrize("exercise", tagged(FIRST, "exercise"))
def test_right_answers_pass_wherever_they_stand(graded, exercise):
    assert result_of(graded, "ben", exercise)[0] == "passed", graded[1]["ben", exercise]


def test_the_checks_are_the_courses_own(graded):
    result, said = result_of(graded, "cheater", "00-order")
    assert result == "failed" and "place 3 holds audio_embeddings" in said
    result, said = result_of(graded, "cheater", "00-lengths")
    assert result == "failed" and "round the embeddings up" in said
    assert result_of(graded, "cheater", "00-trained")[0] == "not attempted"


@pytest.mark.parametrize(
    ("name", "exercise", "result", "said"),
    [
        ("mallory", "00-order", "passed", "right."),
        ("mallory", "00-lengths", "timeout", "stopped after 4 s"),
        ("mallory", "00-graft", "error", "ended the process"),
        ("mallory", "00-trained", "error", "changes tiny_asr.course.exercises.lesson_00.expect"),
        ("mallory", "01-sea", "missing", "no cell up to its check defines `letters`"),
        ("mallory", "01-alias", "error", "SyntaxError: invalid syntax"),
        ("mallory", "01-pitch", "failed", "MemoryError"),
        ("mallory", "01-filters", "missing", "no cell up to its check defines `mel_filters`"),
        ("mallory", LAST, "missing", "not handed in"),
        ("cheater", "01-pitch", "passed", "right."),
        ("cheater", "01-filters", "not attempted", "not attempted yet"),
        ("cheater", LAST, "error", "no notebook that can be read (JSONDecodeError"),
    ],
)
def test_whatever_an_answer_does_it_is_named_and_the_rest_goes_on(
    graded, name, exercise, result, said
):
    if exercise == "01-pitch" and name == "mallory" and sys.platform != "linux":
        pytest.skip("memory is limited on Linux only")
    came = result_of(graded, name, exercise)
    assert came[0] == result and said in came[1], came


def test_it_says_what_it_does_and_prints_a_table_of_80_columns(graded):
    result, _ = graded
    assert result.stderr.startswith("Grading runs the students' code on this machine, as you.")
    count = 8 + len(tagged(THIRD, "exercise"))
    assert re.search(rf"^1/5 anna: 8 of {count} passed \(\d+ s\)$", result.stderr, re.MULTILINE)
    lines = result.stdout.splitlines()
    assert max(map(len, lines[:-1])) <= 80  # the last one names a file
    (head,) = [line for line in lines if line.startswith("student  ")]
    assert head.split() == ["student", "00", "01", "02", "passed"]
    (row,) = [line for line in lines if line.startswith("mallory  ")]
    assert row.split() == ["mallory", "✓t!!", "-!✗-", "-" * len(tagged(THIRD, "exercise")), "1"]
    assert "00  order 3, lengths 2, trained 2, graft 2" in lines
    assert "mallory 00-lengths: timeout: stopped after 4 s: a loop without an end?" in lines
    assert "cheater 02_encoder: error: this is no notebook" in result.stdout
    assert "homework.ipynb: left out; expected" in result.stdout
    assert "not handed in" not in result.stdout  # the dashes say so


@pytest.mark.parametrize("lesson", NOTEBOOKS)
def test_the_time_plan_of_the_page_for_instructors_is_that_of_the_notebook(lesson):
    (box,) = [c for c in cells_of(NOTEBOOKS[lesson]) if "instructor" in c.metadata.get("tags", ())]
    page = (REPOSITORY / "docs" / "teaching.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {lesson} .*", page, re.MULTILINE)[0]
    planned = {
        key: re.search(rf"{key} (\d+)", box.source)[1] for key in EXERCISES if key[:2] == lesson
    }
    for key, minutes in planned.items():
        assert re.search(rf"\b{key[3:]} {minutes}\b", row.split("|")[3]), key


def test_the_course_is_read_whole():
    course = read_course(REPOSITORY / "notebooks")
    assert [e.identifier for lesson in course for e in lesson.exercises] == EXERCISES
    graded = [lesson.stem for lesson in course if lesson.exercises]
    assert graded == [path.stem for path in NOTEBOOKS.values()]


def test_of_two_versions_the_newer_counts(tmp_path):
    for place, (name, changed) in enumerate({"": 2_000, " (1)": 1_000}.items()):
        path = tmp_path / f"anna_{FIRST.stem}{name}.ipynb"
        hand_in(filled(FIRST, {}), path)
        os.utime(path, (changed, changed + place))
    (tmp_path / ".ipynb_checkpoints").mkdir()
    shutil.copy(path, tmp_path / ".ipynb_checkpoints")
    found, left_out = find_submissions(tmp_path, read_course(REPOSITORY / "notebooks"))
    assert [(each.student, each.path.name) for each in found] == [("anna", f"anna_{FIRST.name}")]
    assert left_out == [f"anna_{FIRST.stem} (1).ipynb: left out; anna_{FIRST.name} is newer"]


@pytest.mark.parametrize(
    ("cells", "place"),
    [
        (["f = ...", "check('x', f)"], 0),
        (["f = ...", "def f(): pass", 'check( "x", f)'], 1),
        (["f = 1", "check('x', f)", "f = 2", "check('x', f)", "f = 3"], 2),
        (["f = 1", "check('y', f)", "f: int = 2"], 2),
        (["f == 1", "fg = 1", "  f = 1", "g(f=1)", "check('x', f)"], None),
        (["f = 1 +", "check('x', f)"], 0),
    ],
)
def test_an_answer_is_the_last_cell_up_to_the_check_that_defines_its_name(cells, place):
    assert find_answer(cells, Exercise("x", "f", "")) == place


def test_an_answer_brings_along_what_it_needs_and_nothing_else():
    above = [
        "import math\nimport torch",
        "model = load()\nhalf = 0.5\nprint(half)",
        "def scaled(x):\n    return half * x",
        "half += 1\nbroken(",
        "!pip install something\nunused = model",
    ]
    cell = "def answer(model):\n    return scaled(math.pi) + len(model)"
    code = standalone(cell, above)
    assert code == f"import math\nhalf = 0.5\ndef scaled(x):\n    return half * x\n{cell}"


@pytest.mark.parametrize(
    ("handed_in", "words"), [(None, "expected a folder"), ("a.ipynb", "no notebooks of the course")]
)
def test_a_wrong_folder_is_one_line_that_helps(tmp_path, handed_in, words):
    folder = tmp_path / "class"
    if handed_in:
        folder.mkdir()
        (folder / handed_in).touch()
    with pytest.raises(ValueError, match=words):
        classroom.grade(folder)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_grade_asks_for_a_folder():
    def planned(*arguments: str) -> subprocess.CompletedProcess:
        command = ["make", "-n", *arguments]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert 'teaching grade "two words"' in planned("grade", "DIR=two words").stdout
    assert "make grade DIR=folder" in planned("grade").stderr
    assert "teaching student" in planned("student").stdout
