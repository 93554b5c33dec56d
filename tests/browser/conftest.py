"""What the browser tests share: a browser, pages in it, JupyterLab, a folder for screenshots.

So a test takes `new_page` and `shots`, calls `page = new_page(dark=True)`, and in the end
`page.screenshot(path=shots / "name.png")`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import chromium
import lab
import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

SHOTS = Path(__file__).parents[2] / "trace" / "browser"


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """Playwright's driver; it allows one at a time, so start no second one."""
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """One headless Chromium for all tests. For other flags: `chromium.launch(playwright, FLAG)`."""
    browser = chromium.launch(playwright)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[lab.Server]:
    """JupyterLab, as `make lab` starts it, on copies of the notebooks."""
    with lab.make_lab(tmp_path_factory.mktemp("class_room")) as server:
        yield server


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`new_page(width=1280, height=800, dark=False)`: an empty page with no cookies and no cache.

    Sizes are CSS pixels; `dark` is what the page learns of the user's preferred colour scheme.
    """
    contexts = []

    def make(width: int = 1280, height: int = 800, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        contexts.append(context)
        return context.new_page()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def shots() -> Path:
    """The folder for screenshots, `trace/browser`, which git ignores; old ones are overwritten."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS


def pytest_terminal_summary(terminalreporter) -> None:
    """Say at the end where the screenshots lie."""
    if any(SHOTS.glob("*.png")):
        terminalreporter.write_line(f"screenshots: {SHOTS}")
