"""The pages of docs/ agree with the notebooks and the package: what a look at the sources can tell.

Whether the site builds, and what it looks like, is tested in tests/browser/test_site.py.
"""

import json
import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
# Modules that are no part of the reference: what lies behind a command or a button, not a library.
NOT_LISTED = (
    "cli.*",
    "demo.*",
    "course.recorder",
    "course.lesson_*",
    "course.exercises.*",
    "*__init__",
)


def cells(notebook: Path) -> list[tuple[str, str]]:
    """Kind and source of each of a notebook's cells."""
    stored = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in stored]


def sections(notebook: Path) -> dict[str, str]:
    """Anchor of each heading -> it and all that stands below it, smaller headings included."""
    found, above, fenced = {}, [], False
    for kind, source in cells(notebook):
        for line in source.split("\n"):
            fenced ^= line.startswith("```")
            if kind == "markdown" and not fenced and (heading := re.match("(#+) (.+)", line)):
                level = len(heading[1])
                anchor = re.sub(r"[^\w\- ]", "", heading[2].lower()).replace(" ", "-")
                above = [(other, name) for other, name in above if other < level]
                above.append((level, anchor))
            for _, name in above:
                found[name] = found.get(name, "") + line + "\n"
    return found


def glossary() -> list[tuple[list[str], str]]:
    """Each entry's terms, and its definition."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    entries = text.split(":sorted:\n\n")[1].split("```")[0].strip().split("\n\n")
    parted = [re.split(r"\n  ", entry, maxsplit=1) for entry in entries]
    return [(terms.split("\n"), definition) for terms, definition in parted]


def uses(text: str, term: str) -> bool:
    """Does a text use a term, in any form that only adds letters at its end?"""
    plain, text = re.sub(r" \(.*\)", "", term), re.sub(r"[*`]", "", text)
    return re.search(rf"(?<!\w){re.escape(plain)}", text, re.IGNORECASE) is not None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_lesson_is_on_the_start_page_with_its_minutes(notebook):
    time = next(source for _, source in cells(notebook) if "**Time.**" in source)
    lecture, hands_on = re.search(
        r"(\d+) minutes of lecture.*?(\d+) minutes hands-on", time
    ).groups()
    row = re.search(rf"\| \[.*\]\(\.\./notebooks/{notebook.name}\) \|.*\| (.*) \|", INDEX)
    assert row, f"docs/index.md has no row for {notebook.name}"
    assert row[1] == f"{lecture} + {hands_on}"


def test_each_page_is_in_the_table_of_contents():
    assert "\nnotebooks/*\n" in INDEX  # a pattern: they all are
    cards = [path.relative_to(REPOSITORY) for path in REPOSITORY.glob("data/**/README.md")]
    cards.append(Path("recipes/README.md"))
    pages = [
        path.relative_to(DOCS) for path in DOCS.glob("*.md") if path.stem not in ("README", "index")
    ]
    for page in [*cards, *pages]:
        assert f"\n{page.with_suffix('')}\n" in INDEX, (
            f"docs/index.md has no {page} in its toctrees"
        )


def test_the_picture_is_small_and_the_text_beside_it_tells_the_same():
    picture = DOCS / "images" / "journey.png"
    assert picture.stat().st_size < 150_000
    told = Image.open(picture).info["Description"]
    alt = re.search(r":alt: (.*)", INDEX)[1]
    numbers = re.findall(r"\d+(?: \d{3})*(?:\.\d+)?", alt)
    assert len(numbers) > 10
    assert not set(numbers) - set(re.findall(r"\d+(?: \d{3})*(?:\.\d+)?", told))
    assert alt.split("reads, ")[1].rstrip(".") == told.split("text: ")[1]


def test_the_glossary_is_complete_and_in_order_of_nothing_twice():
    terms = [term for names, _ in glossary() for term in names]
    assert len(terms) >= 60 and len(set(terms)) == len(terms)


@pytest.mark.parametrize(("terms", "definition"), glossary(), ids=[e[0][0] for e in glossary()])
def test_each_term_is_met_where_the_glossary_says(terms, definition):
    links = re.findall(r"\]\(\.\./notebooks/(.+?\.ipynb)#(.+?)\)", definition)
    assert links
    texts = [sections(REPOSITORY / "notebooks" / name)[anchor] for name, anchor in links]
    for term in terms:
        assert any(uses(text, term) for text in texts), f"{term!r} does not occur in {links}"


def test_each_link_of_a_page_leads_to_a_page_or_a_file():
    """In a clone; on the site they lead to the copies that conf.py makes, one `../` shorter."""
    copies = [DOCS / top for top in ("notebooks", "data", "recipes")]
    broken = []
    for page in sorted(DOCS.rglob("*.md")):
        if any(page.is_relative_to(copy) for copy in copies):
            continue
        for link in re.findall(r"\]\((?!https?:|mailto:|#)([^)\s#]+)", page.read_text("utf-8")):
            there = Path(os.path.normpath(page.parent / link))
            made = there == DOCS / "api/command_line.md"
            found = made or (there.exists() and not any(map(there.is_relative_to, copies)))
            if link.endswith((".md", ".ipynb")):  # so it is a page, and must be one of the site
                tops = [DOCS, *(REPOSITORY / copy.name for copy in copies)]
                found = found and any(map(there.is_relative_to, tops))
            broken += [] if found else [f"{page.relative_to(DOCS)}: {link}"]
    assert not broken, "dead in a clone, or on the site (to a card: ../data/models/...)"


def test_each_module_is_in_the_reference():
    reference = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("api/*.md"))
    listed = set(re.findall(r"automodule:: tiny_asr\.([\w.]+)", reference))
    package = REPOSITORY / "tiny_asr"
    paths = [path.relative_to(package).with_suffix("") for path in package.rglob("*.py")]
    modules = {".".join(path.parts) for path in paths}
    modules = {name for name in modules if not any(fnmatch(name, each) for each in NOT_LISTED)}
    assert listed == modules, "list it in a page of docs/api/, or in NOT_LISTED"
