"""Every notebook as a student meets it: `make lab`, Run All Cells, then slider, quiz and themes.

What the outputs hold is compared by nbval. Here it matters that the page works: that every cell
runs in JupyterLab, that the widgets are drawn and answer, that everything can be read.
"""

import re
from collections.abc import Iterator

import lab
import pytest
from legible import cut_off, faint
from playwright.sync_api import Browser, expect

from tiny_asr.course.quiz import questions

RUN_SECONDS = 420  # of a cell that hangs
ANSWER_MS = 30_000  # a slider may ask for another pass through the model
WITHOUT_SLIDER = {"04", "05", "07"}  # a beam by hand; a run to watch; recordings of one's own
WITHOUT_QUIZ = {"07"}  # it is for those who want more


@pytest.fixture(scope="class")
def opened(request, browser: Browser, server: lab.Server) -> Iterator[lab.Lab]:
    """The notebook in a window as large as a small laptop's, with all its cells run."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    opened = lab.Lab(page, server, request.cls.notebook)
    opened.run_all(RUN_SECONDS)
    yield opened
    page.close()
    server.stop_kernels()


class Notebook:
    """The tests of one notebook. A class each, because xdist runs one in one process."""

    notebook: str

    def test_every_cell_runs_without_an_error_or_a_warning(self, opened):
        state = opened.state()
        assert state["errors"] == []
        assert state["counts"] == list(range(1, len(state["counts"]) + 1))
        assert state["warnings"] == []

    def test_a_slider_changes_its_picture(self, opened):
        if self.notebook[:2] in WITHOUT_SLIDER:
            assert not opened.page.get_by_role("slider").count()
            return
        cell = opened.cell_with("explore_")
        slider, picture = cell.get_by_role("slider").first, cell.get_by_role("img").last
        where, before = slider.get_attribute("aria-valuetext"), picture.get_attribute("src")
        slider.focus()
        opened.page.keyboard.press("ArrowRight")
        expect(slider).not_to_have_attribute("aria-valuetext", where)
        expect(picture).not_to_have_attribute("src", before, timeout=ANSWER_MS)
        assert picture.get_attribute("alt")

    def test_the_quiz_answers_to_the_keyboard(self, opened):
        if self.notebook[:2] in WITHOUT_QUIZ:
            return
        first = questions(self.notebook[:2])[0]
        cell = opened.cell_with("quiz(")
        cell.get_by_role("button", name=re.compile(r"^a\) ")).first.focus()
        for letter, _, reply in first.lettered():
            opened.page.keyboard.press("Space")
            verdict = f"✓ Right. {reply}" if letter == first.right else f"✗ Not quite. {reply}"
            expect(cell.get_by_role("status")).to_have_text(verdict, timeout=ANSWER_MS)
            if letter == first.right:
                break
            opened.page.keyboard.press("Tab")

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_all_can_be_read(self, opened, shots, theme):
        opened.theme(dark=theme == "dark")
        opened.photograph(shots, f"{self.notebook[:2]}-{theme}")
        assert faint(opened.panel) == []
        assert cut_off(opened.panel) == []


for path in sorted((lab.REPOSITORY / "notebooks").glob("*.ipynb")):
    name = f"Test{path.stem[:2]}"
    globals()[name] = type(name, (Notebook,), {"notebook": path.name})
