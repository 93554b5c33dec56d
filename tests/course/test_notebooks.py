"""The notebooks themselves: what nbval does not see.

nbval compares outputs, but a cell that was never run passes uncompared, a wrong picture passes, and
so does a cell marked to be ignored. These tests close the gaps.
"""

import ast
import base64
import re
import struct
from collections import Counter
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
IGNORED = "nbval-ignore-output"
MOST_IGNORED = {"05": 12, "06": 6}  # cells whose output depends on training; 4 elsewhere
PLUMBING = re.compile(r"\bassert\b|NBVAL|PAIR ==")  # for tests and pairs, not for learners
HIDDEN = {"setup", "claims"}  # tags of cells whose source is folded away
MOST_LINES = 15  # longer code belongs in the package
MOST_BYTES = 1_000_000


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook) -> list:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_it_was_run_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_cell_failed(notebook):
    assert not [output for output in outputs(notebook) if output.output_type == "error"]


def test_nothing_random_is_stored(notebook):
    assert "widgets" not in notebook.metadata
    for output in outputs(notebook):
        kinds = set(output.get("data", {}))
        assert "application/vnd.jupyter.widget-view+json" not in kinds
        assert "image/svg+xml" not in kinds, "an SVG has random ids in it"
    for cell in notebook.cells:
        assert "execution" not in cell.metadata


def test_every_figure_has_an_alt_text_with_numbers(notebook):
    figures = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert figures
    for output in figures:
        alt = output.metadata["image/png"]["alt"]
        assert len(alt) > 60 and re.search(r"\d", alt), alt


def test_figures_are_whole_and_wide_enough_to_read(notebook):
    for output in outputs(notebook):
        if "image/png" in output.get("data", {}):
            data = base64.b64decode(output.data["image/png"])
            assert data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82")
            width, height = struct.unpack(">II", data[16:24])
            assert width >= 600 and height >= 200


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def test_few_outputs_are_ignored_and_their_claims_are_checked(path, notebook):
    """A cell tagged `claims` further down asserts what the text says of an ignored output."""
    ignored = [
        place
        for place, cell in enumerate(code_cells(notebook))
        if IGNORED in tags(cell) or "NBVAL_IGNORE_OUTPUT" in cell.source
    ]
    assert len(ignored) <= MOST_IGNORED.get(path.stem[:2], 4)
    for place in ignored:
        below = code_cells(notebook)[place:]
        checked = [cell for cell in below if "claims" in tags(cell) or "assert " in cell.source]
        assert checked, "an ignored output needs an assert on what the text claims"


def test_learners_see_ideas_and_no_plumbing(path, notebook):
    for cell in code_cells(notebook):
        if tags(cell) & HIDDEN:
            assert cell.metadata.jupyter.source_hidden
        else:
            assert not PLUMBING.search(cell.source), cell.source


def test_a_cell_of_claims_asserts_and_says_what_it_checked(notebook):
    for cell in code_cells(notebook):
        if "claims" in tags(cell):
            assert "assert " in cell.source
            (output,) = cell.outputs
            assert len(output.text.strip().splitlines()) == 1


def test_it_is_small(path):
    assert path.stat().st_size < MOST_BYTES


def test_code_cells_are_short_and_not_empty(notebook):
    for cell in code_cells(notebook):
        assert cell.source.strip(), "JupyterLab drops the count of an empty cell"
        assert len(cell.source.splitlines()) <= MOST_LINES, cell.source


def test_a_cell_can_be_run_again(notebook):
    """No cell gives the name of a module of the course to something else."""
    kept, taken = set(), Counter()
    for cell in code_cells(notebook):
        nodes = list(ast.walk(ast.parse(cell.source)))
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module == "tiny_asr.course":
                kept |= {name.asname or name.name for name in node.names}
                taken.update(name.asname or name.name for name in node.names)
        names = (n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        taken.update({name.id for name in names})
    assert [name for name in kept if taken[name] > 1] == []


def test_it_states_its_goal_time_and_neighbours(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for part in ("**Goal.**", "**Time.**", "**By the end you will**", "# Key insights"):
        assert part in text
    for part in ("# Further reading", "**Previous:**", "**Next:**"):
        assert part in text


def test_links_to_files_lead_somewhere(path, notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith("https://"):
            assert (path.parent / target).exists(), target


def test_no_shape_of_the_contract_is_typed_again(notebook):
    """The prose may count; tuples of axis symbols come from the contract alone."""
    from tiny_asr.shapes import CONTRACT

    shapes = {stage.shape for stage in CONTRACT.values()}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert not [shape for shape in shapes if shape in cell.source]
