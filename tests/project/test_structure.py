"""The house's rules: who imports whom, and how much there is to read."""

import ast
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "tiny_asr"
FILES = {
    ".".join(("tiny_asr", *file.relative_to(PACKAGE).with_suffix("").parts)): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
PATH_OF_THE_SOUND = [name for name in FILES if name.count(".") == 1]
OUTSIDE = ("teaching", "recipes")  # programs beside the package, which nothing in it may need
LONGEST_FILE, LONGEST_PATH = 330, 2300  # lines
# What grew: search, projectors, serve, plan, adapters, words, listen, fp8, guesses, CTC
LONGEST_PACKAGE = 18_300


def imported(tree: ast.AST) -> set[str]:
    """The names of all modules that the statements in a tree may import."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out in full here"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def in_functions(tree: ast.AST) -> set[str]:
    """What is imported when a function runs."""
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return set(chain.from_iterable(map(imported, functions)))


TREES = {name: ast.parse(file.read_text()) for name, file in FILES.items()}
LATE = {name: in_functions(tree) & FILES.keys() for name, tree in TREES.items()}
EARLY = {name: (imported(tree) & FILES.keys()) - LATE[name] for name, tree in TREES.items()}


def lines(name: str) -> int:
    return len(FILES[name].read_text().splitlines())


def circles(imports: dict[str, set[str]]) -> str:
    """The first circle of imports, or nothing."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def test_the_rules_are_about_this_package():
    assert {"tiny_asr.model", "tiny_asr.shapes"} <= set(PATH_OF_THE_SOUND)
    assert {"tiny_asr.audio", "tiny_asr.decoder"} <= EARLY["tiny_asr.model"]
    assert "tiny_asr.model" in LATE["tiny_asr.cli.options"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) and not circles({"a": {"b"}, "b": set()})


def test_no_module_imports_itself_in_a_circle():
    assert circles(EARLY) == ""


def test_no_circle_is_hidden_in_a_function():
    both = {name: EARLY[name] | LATE[name] for name in FILES}
    assert circles(both) == ""


@pytest.mark.parametrize("name", PATH_OF_THE_SOUND)
def test_the_path_of_the_sound_needs_five_wings_alone(name):
    """`adapters` holds what may be trained beside the frozen decoder, `fast` the same computation
    for a GPU, `files` the same reading for odd files, `projectors` what a projector is and others
    to choose, `search` what looks further than the likeliest next token: loops, beams, hints."""
    wings = {other.split(".")[1] for other in EARLY[name] | LATE[name] if other.count(".") > 1}
    assert wings <= {"adapters", "fast", "files", "projectors", "search"}


@pytest.mark.parametrize("name", FILES)
def test_the_package_needs_no_program_beside_it(name):
    assert [other for other in imported(TREES[name]) if other.split(".")[0] in OUTSIDE] == []


@pytest.mark.parametrize("wing", ["adapters", "fast", "files", "projectors", "search"])
def test_these_need_the_path_alone(wing):
    names = [name for name in FILES if name.startswith(f"tiny_asr.{wing}.")]
    needed = set().union(*(EARLY[name] | LATE[name] for name in names))
    assert needed <= {*names, *PATH_OF_THE_SOUND}


def test_the_path_can_be_read_in_an_afternoon():
    assert [name for name in PATH_OF_THE_SOUND if lines(name) > LONGEST_FILE] == []
    assert sum(map(lines, PATH_OF_THE_SOUND)) <= LONGEST_PATH


def test_the_package_stays_small():
    assert sum(map(lines, FILES)) <= LONGEST_PACKAGE
