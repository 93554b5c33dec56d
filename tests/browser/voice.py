"""A person with a microphone: a Chromium whose microphone plays the bundled sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import chromium
import soundfile
import torch
from playwright.sync_api import Browser, Playwright
from torchaudio.functional import resample

from tiny_asr import load_audio, sample_clip

SENTENCE = "she listens to the sea and its waves turn into words"
BEFORE, AFTER = 1.5, 0.5  # seconds of quiet: on a busy machine a page begins to listen late
SPEAKING_SECONDS = BEFORE + 3 + AFTER + 0.5  # after so long the sentence is over
RATE = 48_000  # of most microphones


@contextmanager
def speaking(playwright: Playwright, folder: Path) -> Iterator[Browser]:
    """A browser that says the bundled sentence, once, into every microphone that a page opens."""
    before, after = (torch.zeros(round(seconds * RATE)) for seconds in (BEFORE, AFTER))
    sentence = resample(load_audio(sample_clip()), 16_000, RATE)
    file = folder / "microphone.wav"
    soundfile.write(file, torch.cat([before, sentence, after]).numpy(), RATE, "PCM_16")
    browser = chromium.launch(
        playwright,
        "--use-fake-ui-for-media-stream",  # says yes to every question about the microphone
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={file}%noloop",
    )
    yield browser
    browser.close()


def words_heard(text: str) -> int:
    """How many of the sentence's words are in a transcript; the browser's microphone costs some."""
    return len(set(SENTENCE.split()) & set(text.split()))
