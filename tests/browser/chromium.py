"""Finding and starting the system's Chromium, for every test in this folder."""

import os
import shutil

import pytest
from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
# No sandbox, because containers rarely allow one; no GPU, because CI has none.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")


def find() -> str:
    """Path of the system's Chromium or Chrome.

    Where there is none the test that asks is skipped, or fails if TINY_ASR_NEEDS_BROWSER=1 is set,
    as `.ci/run` does: a test that is skipped in CI tests nothing.
    """
    for name in NAMES:
        if path := shutil.which(name):
            return path
    missing = (
        f"none of {', '.join(NAMES)} is on the PATH: install Chromium, "
        "for example with 'apt-get install chromium'"
    )
    if os.environ.get("TINY_ASR_NEEDS_BROWSER") == "1":
        pytest.fail(missing)
    pytest.skip(missing)


def launch(playwright: Playwright, *flags: str) -> Browser:
    """Start the system's Chromium without a window; `flags` are added to its command line."""
    return playwright.chromium.launch(executable_path=find(), headless=True, args=[*FLAGS, *flags])
