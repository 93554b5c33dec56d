"""The course's web site: it builds, every link leads somewhere, and it works without a network."""

import functools
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from legible import faint
from playwright.sync_api import Page, expect

REPOSITORY = Path(__file__).resolve().parents[2]
LESSONS = [path.stem for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))]
# One page of each kind beside the lessons.
OTHERS = (
    "index",
    "glossary",
    "api/index",
    "api/training",
    "api/command_line",
    "data/README",
    "data/models/tiny-asr/README",
)
# Elements that a browser fetches by itself; a link is only followed when somebody clicks on it.
FETCHED = {"img", "script", "source", "audio", "video", "iframe", "object", "embed"}


class Links(HTMLParser):
    """What a page's elements refer to, as (element, address), and the anchors that it has."""

    def __init__(self, page: Path):
        super().__init__()
        self.references: list[tuple[str, str]] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        for name in ("href", "src"):
            if given.get(name):
                fetched = tag in FETCHED or (tag == "link" and "stylesheet" in given["rel"])
                self.references.append(("fetched" if fetched else tag, given[name]))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site as `make site` builds it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-b", "html"]
    command += ["-d", folder / "doctrees", "docs", folder / "html"]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path) for path in site.rglob("*.html")}


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served, on this machine only."""
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def visit(new_page, address: str) -> Iterator[Callable[..., Page]]:
    """Open a page of the site. An error, or a request to another machine, fails the test."""
    trouble = []

    def asked(request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            trouble.append(request.url)

    def open_page(name: str, **options) -> Page:
        page = new_page(**options)
        page.on("request", asked)
        page.on("console", lambda line: line.type == "error" and trouble.append(line.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(f"{address}/{name}.html")
        return page

    yield open_page
    assert not trouble


def test_every_link_inside_the_site_leads_somewhere(site, pages):
    assert {f"notebooks/{name}.html" for name in LESSONS} <= {
        path.relative_to(site).as_posix() for path in pages
    }
    broken = []
    for path, links in pages.items():
        for _, reference in links.references:
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {""}
            if not target.is_file() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in anchors
            ):
                broken.append(f"{path.relative_to(site)}: {reference}")
    assert not broken


def test_nothing_is_fetched_from_elsewhere(site, pages):
    """What a page fetches by itself lies in the site; links to other places are only listed."""
    links = [(path, *link) for path, each in pages.items() for link in each.references]
    outside = [link for link in links if urlsplit(link[2]).scheme not in ("", "data")]
    assert not [link for link in outside if link[1] == "fetched"]
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\s]+", styles)
    print(*sorted({address for *_, address in outside}), sep="\n")


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_reads_well(visit, shots, lesson):
    page = visit(f"notebooks/{lesson}")
    page.screenshot(path=shots / f"site-{lesson}.png")
    expect(page.locator("article h1")).to_have_count(1)
    alts = page.locator("article .cell_output img").evaluate_all("all => all.map(one => one.alt)")
    more = lesson.startswith("07")  # for those who want more: one picture, no exercises
    assert len(alts) > (0 if more else 3)
    assert not [alt for alt in alts if len(alt) < 60 or " " not in alt]  # it may be a file's name
    page.wait_for_function("[...document.images].every(image => image.naturalWidth)")
    page.wait_for_function(
        "[...document.querySelectorAll('audio')].every(sound => sound.duration > 0.1)"
    )
    for fold in () if more else ("Hint", "Solution", "Answers to 1", "For instructors"):
        box = page.locator("details", has=page.locator("summary", has_text=fold)).first
        inside = box.locator("p, pre, li").first
        expect(inside).to_be_hidden()
        box.locator("summary").first.click()  # a second hint lies in the first
        expect(inside).to_be_visible()


def test_the_start_page_leads_to_the_lessons(visit, shots):
    page = visit("index")
    page.screenshot(path=shots / "site-index.png", full_page=True)
    assert page.locator("img.journey").evaluate("image => image.naturalWidth") > 600
    rows = page.locator("article table a[href^='notebooks/']")
    expect(rows).to_have_count(len(LESSONS))
    rows.last.click()
    expect(page.locator("article h1")).to_contain_text("07 ·")


def test_the_search_finds_a_word(visit, shots):
    page = visit("index")
    page.get_by_placeholder("Search").fill("cliff")
    page.keyboard.press("Enter")
    results = page.locator("#search-results .search li")
    expect(results.filter(has_text="05 · Training").first).to_be_visible(timeout=20_000)
    expect(page.locator(".search-summary")).to_contain_text("found")
    page.screenshot(path=shots / "site-search.png")
    results.filter(has_text="Glossary").locator("a").first.click()
    expect(page.locator("article h1")).to_contain_text("Glossary")


def test_the_search_does_not_find_what_is_not_there(visit):
    page = visit("search")
    page.goto(page.url + "?q=zzyzx")
    expect(page.locator("#search-results")).to_contain_text("did not match any documents")


@pytest.mark.parametrize("name", [*OTHERS, f"notebooks/{LESSONS[0]}", f"notebooks/{LESSONS[-1]}"])
def test_dark_and_on_a_phone(visit, shots, name):
    """In the dark theme every text stands out, and on a phone no page is wider than the screen."""
    page = visit(name, width=400, dark=True)
    page.screenshot(path=shots / f"site-dark-{name.replace('/', '-')}.png")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", ground)[:3])) < 150
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert not faint(page.locator("article"))
