"""Every notebook as a page that runs nothing: what `jupyter nbconvert --to html` makes of it."""

import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from lab import REPOSITORY
from nbconvert import HTMLExporter


@pytest.fixture(params=sorted((REPOSITORY / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem[:2])
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def figures(notebook) -> list:
    """The outputs that hold a picture."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output for output in outputs if "image/png" in output.get("data", {})]


def test_the_page_shows_headings_pictures_and_no_error(path, notebook, new_page, shots, tmp_path):
    html, _ = HTMLExporter().from_notebook_node(notebook)
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    page = new_page()
    page.route(re.compile("^https?:"), lambda route: route.abort())  # MathJax: no network here
    page.goto((tmp_path / "page.html").as_uri())
    page.screenshot(path=shots / f"{path.stem[:2]}-html.png", full_page=True)

    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^#+ ", re.sub(r"(?s)```.*?```", "", text), re.MULTILINE)
    assert page.locator("h1, h2, h3, h4").count() == len(headings)
    widths = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) == len(figures(notebook)) and all(widths)
    assert page.get_by_text("Traceback (most recent call last)").count() == 0


def test_pictures_keep_their_alt_texts(notebook):
    """In nbconvert's classic template: its default one, in version 7.17, drops them."""
    html, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    images = BeautifulSoup(html, "html.parser").select("img")
    given = [figure.metadata["image/png"]["alt"] for figure in figures(notebook)]
    assert [image["alt"] for image in images] == given
