"""The demo as a person uses it: `tiny-asr demo` in a browser with a microphone, and no network."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect
from voice import SPEAKING_SECONDS, speaking, words_heard

from tiny_asr import ASRModel, sample_clip
from tiny_asr.demo.page import serve
from tiny_asr.shapes import CONTRACT

HEARD = "she listens to the sea and its waves turn into words"
WAIT_MS = 30_000
# Keeps every text that the transcript shows, for a test to read later.
WATCH = """() => {
    window.texts = [];
    const area = document.querySelector('#transcript textarea');
    setInterval(() => {
        if (area.value !== window.texts.at(-1)) window.texts.push(area.value);
    }, 5);
}"""


@contextmanager
def running(folder: Path, *options: str) -> Iterator[subprocess.Popen]:
    """`tiny-asr demo --no-open`, whose recordings go into the folder.

    What it asks of the network goes to a proxy: the socket `process.proxy`, which never answers.
    """
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        own = {"HTTP_PROXY": address, "HTTPS_PROXY": address, "NO_PROXY": "127.0.0.1,localhost"}
        process = subprocess.Popen(
            [sys.executable, "-m", "tiny_asr.cli", "demo", "--no-open", *options],
            env=os.environ | own | {name.lower(): own[name] for name in own} | {"TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Started from a script in the background, tests and their children would ignore Ctrl-C.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        process.proxy = proxy
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(folder: Path) -> Iterator[subprocess.Popen]:
    with running(folder / "recordings") as process:
        line = process.stdout.readline()
        assert line.endswith("for this machine only; Ctrl-C stops it\n"), process.stderr.read()
        process.address = line.split()[4]
        yield process


@pytest.fixture(scope="module")
def speaker(playwright: Playwright, folder: Path) -> Iterator[Browser]:
    with speaking(playwright, folder) as browser:
        yield browser


@pytest.fixture
def asked() -> list[str]:
    """Addresses that the page asked for."""
    return []


@pytest.fixture
def page(request, speaker: Browser, demo: subprocess.Popen, asked: list[str]) -> Iterator[Page]:
    """The demo's page; parameters of `new_context` can be given by `parametrize`."""
    context = speaker.new_context(**getattr(request, "param", {}))
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(demo.address)
    expect(page.get_by_role("button", name="Transcribe")).to_be_visible()
    page.evaluate(WATCH)
    yield page
    outside = [url for url in asked if not url.startswith((demo.address, "blob:", "data:"))]
    assert outside == [], "the page asked another machine"
    context.close()


def shapes(page: Page) -> dict[str, str]:
    """Stage -> its shape in numbers, as the page shows it."""
    rows = page.locator("#shapes tbody tr").all()
    return {
        row.locator("td").nth(0).inner_text(): row.locator("td").nth(2).inner_text() for row in rows
    }


def transcript(page: Page) -> str:
    """The text on the page once it is complete, after the pictures were drawn."""
    expect(page.locator("#pictures img")).to_have_count(3, timeout=WAIT_MS)
    expect(page.locator("#status")).to_contain_text("written in")
    return page.get_by_label("Transcript").input_value()


def upload(page: Page, file: str | Path | dict) -> None:
    page.get_by_label("Upload file").click()
    page.locator("input[type=file]").set_input_files(file)


LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 400, "height": 800}},
}


def test_a_voice_becomes_text_word_by_word(page, shots):
    page.get_by_role("button", name="Record", exact=True).click()
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_visible()  # the microphone has begun
    page.wait_for_timeout(SPEAKING_SECONDS * 1000)
    stop.click()
    text = transcript(page)
    assert words_heard(text) >= 5, text
    texts = [text for text in page.evaluate("window.texts") if text]
    # How many beginnings a page shows in time is the machine's; tests/demo counts what is sent.
    assert texts and all(text.startswith(part) for part in texts), texts
    seen = shapes(page)
    assert list(seen) == [stage for stage in CONTRACT if stage != "text_logits"]
    samples = int(seen["waveform"].split()[-1])
    # The sentence lasts 2.99 s; where it is quiet for long afterwards, that is left out.
    assert 2.9 < samples / 16_000 < SPEAKING_SECONDS + 2
    assert seen["log_mel"] == f"1 x 80 x {samples // 160}"
    page.screenshot(path=shots / "demo_voice.png", full_page=True)


def test_words_come_while_one_speaks(page, shots):
    stop, tentative = page.get_by_role("button", name="Stop"), page.locator("#live .tentative")
    for attempt in range(3):  # at times the page gets nothing from the browser's feigned microphone
        page.get_by_role("tab", name="While you speak").click()
        page.get_by_role("button", name="Record", exact=True).click()
        try:
            some = re.compile("she listens|to the sea|and its waves")
            expect(tentative).to_contain_text(some, timeout=WAIT_MS)  # before anything is stopped
            break
        except AssertionError:
            if attempt == 2:
                raise
            page.reload()
    page.screenshot(path=shots / "demo_live.png", full_page=True)
    page.wait_for_timeout(SPEAKING_SECONDS * 1000)
    stop.click()
    expect(tentative).to_be_empty(timeout=WAIT_MS)
    text = page.locator("#live").inner_text()
    assert words_heard(text) >= 5, text


@pytest.mark.parametrize(("page", "look"), [(LOOKS[n], n) for n in LOOKS], indirect=["page"])
def test_a_file_in_every_look(page, look, shots):
    upload(page, sample_clip())
    assert transcript(page) == HEARD
    assert shapes(page)["waveform"] == "1 x 48000"
    page.screenshot(path=shots / f"demo_{look}.png", full_page=True)
    wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wider <= 0, f"the page is {wider} pixels wider than the window"


def test_a_bundled_clip(page):
    page.get_by_label("choose a bundled clip").click()
    page.get_by_role("option", name="the sentence of the course").click()
    assert transcript(page) == HEARD


def test_what_is_no_sound_is_explained_and_the_old_text_goes(page, shots):
    upload(page, sample_clip())
    assert transcript(page) == HEARD
    page.get_by_label("Clear").click()
    upload(page, {"name": "notes.wav", "mimeType": "audio/wav", "buffer": b"no sound in here"})
    expect(page.locator("#status")).to_contain_text("notes.wav cannot be decoded", timeout=WAIT_MS)
    expect(page.get_by_label("Transcript")).to_have_value("")
    expect(page.locator("#pictures img")).to_have_count(0)
    page.screenshot(path=shots / "demo_no_sound.png", full_page=True)


def test_without_a_clip_the_button_says_what_to_do(page):
    page.get_by_role("button", name="Transcribe").click()
    expect(page.locator("#status")).to_contain_text("there is no clip yet. Record a sentence")


def test_a_port_that_is_taken_is_named(demo, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "restored after the test")
    port = int(demo.address.rstrip("/").rsplit(":")[-1])
    with pytest.raises(ValueError, match=f"port {port} is taken; .* choose another --port"):
        serve(ASRModel.from_pretrained("tiny"), port, open_browser=False)


def test_ctrl_c_deletes_the_recordings_and_nothing_was_asked_of_the_network(demo, folder):
    """The last test here: it ends the demo that the others use."""
    assert list((folder / "recordings").rglob("*.wav")), "this test looks in the wrong place"
    demo.send_signal(signal.SIGINT)
    demo.wait(timeout=30)
    assert [path for path in (folder / "recordings").rglob("*") if path.is_file()] == []
    with pytest.raises(BlockingIOError):  # nobody has called
        demo.proxy.accept()
