"""Every exercise of every notebook: the stub, the solution, and answers that students do give.

An exercise is three cells in a row, known by their tags: `exercise:ID`, a stub that a student fills
in; `check:ID`, which judges it; `solution:ID`, a Markdown cell with the solution folded away. Wrong
answers lie in `wrong_answers/lesson_NN.py`, in cells that begin `# %% ID | what the check says`.
They run in a namespace with the notebook's imports and nothing else, so an exercise stands alone.
Right ones that are written otherwise than the solution lie in `right_answers`, headed `# %% ID`.
"""

import ast
import re
from pathlib import Path

import pytest
from exercise_cells import (
    EXERCISES,
    NOTEBOOKS,
    cells_of,
    right_answers,
    solution,
    tagged,
    wrong_answers,
)

from tiny_asr.course.quiz import questions

FEWEST, MOST = 4, 5  # exercises of a notebook, where it has any
WRONG = [answer for lesson in NOTEBOOKS for answer in wrong_answers(lesson)]
RIGHT = [answer for lesson in NOTEBOOKS for answer in right_answers(lesson)]


def imports(path: Path) -> str:
    """The import statements of a notebook's code cells."""
    trees = [ast.parse(c.source) for c in cells_of(path) if c.cell_type == "code"]
    found = (n for tree in trees for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom))
    return "\n".join(map(ast.unparse, found))


def judged(identifier: str, code: str, capsys) -> str:
    """The one line that the notebook's own check cell prints about an answer."""
    path = NOTEBOOKS[identifier[:2]]
    namespace = {}
    exec(imports(path), namespace)
    exec(code, namespace)
    capsys.readouterr()
    exec(cells_of(path)[tagged(path, "check")[identifier]].source, namespace)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("lesson", NOTEBOOKS)
def test_a_notebook_has_exercises_a_quiz_and_a_box_for_instructors(lesson):
    path = NOTEBOOKS[lesson]
    assert FEWEST <= len(tagged(path, "exercise")) <= MOST
    assert len([c for c in cells_of(path) if "quiz" in c.metadata.get("tags", ())]) == 1
    assert len([c for c in cells_of(path) if "instructor" in c.metadata.get("tags", ())]) == 1
    assert all(key.startswith(f"{lesson}-") for key in tagged(path, "exercise"))


@pytest.mark.parametrize("identifier", EXERCISES)
def test_an_exercise_is_its_task_stub_check_and_solution(identifier):
    path = NOTEBOOKS[identifier[:2]]
    place = tagged(path, "exercise")[identifier]
    assert tagged(path, "check")[identifier] == place + 1
    assert tagged(path, "solution")[identifier] == place + 2
    task = cells_of(path)[place - 1]
    assert task.cell_type == "markdown" and "<summary>Hint</summary>" in task.source
    assert re.search(r"\*\d+ minutes? · (easy|medium|hard)\*", task.source)
    # the first hint says where to look, the second, folded inside it, how
    assert task.source.count("<details>") == 2


@pytest.mark.parametrize("identifier", EXERCISES)
def test_a_stub_is_not_attempted_and_the_notebook_shows_that(identifier, capsys):
    path = NOTEBOOKS[identifier[:2]]
    line = judged(identifier, cells_of(path)[tagged(path, "exercise")[identifier]].source, capsys)
    assert line == f"○ {identifier}: not attempted yet"
    (stored,) = cells_of(path)[tagged(path, "check")[identifier]].outputs
    assert stored.text.strip() == line


@pytest.mark.parametrize("identifier", EXERCISES)
def test_a_solution_passes(identifier, capsys):
    assert judged(identifier, solution(identifier), capsys).startswith(f"✓ {identifier}: right.")


@pytest.mark.parametrize(("identifier", "code"), RIGHT)
def test_a_right_answer_passes_however_it_is_written(identifier, code, capsys):
    assert judged(identifier, code, capsys).startswith(f"✓ {identifier}: right.")


@pytest.mark.parametrize(("identifier", "said", "code"), WRONG)
def test_a_wrong_answer_gets_a_line_that_helps(identifier, said, code, capsys):
    line = judged(identifier, code, capsys)
    assert line.startswith(f"✗ {identifier}: ") and said in line, line


@pytest.mark.parametrize("identifier", EXERCISES)
def test_an_exercise_has_two_wrong_answers_at_least(identifier):
    answers = [code for key, _, code in wrong_answers(identifier[:2]) if key == identifier]
    assert len(answers) >= 2


@pytest.mark.parametrize("lesson", NOTEBOOKS)
def test_a_quiz_has_three_to_five_questions_with_a_reply_to_each_option(lesson):
    asked = questions(lesson)
    assert 3 <= len(asked) <= 5
    for question in asked:
        letters = [letter for letter, _, _ in question.lettered()]
        assert len(letters) >= 3 and question.right in letters
        assert all(len(reply) > 10 for reply in question.options.values())
    # "always b" is not a way to pass
    assert len({question.right for question in asked}) > 1


@pytest.mark.parametrize("lesson", NOTEBOOKS)
def test_the_quiz_can_be_read_where_nothing_runs(lesson):
    (cell,) = [c for c in cells_of(NOTEBOOKS[lesson]) if "quiz" in c.metadata.get("tags", ())]
    (output,) = cell.outputs
    for question in questions(lesson):
        assert question.ask in output.data["text/markdown"]
    assert "<details>" in output.data["text/markdown"]
