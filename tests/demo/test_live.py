"""What the demo's page shows while somebody speaks, without the page."""

from threading import Lock

import numpy as np
from fixtures_models import noise, talkative

from tiny_asr.demo.live import Live


def blocks(seconds: float, rate: int, channels: int | None = None) -> list[np.ndarray]:
    """Noise as a browser sends it: 16 bits, 0.1 s each."""
    samples = (noise(seconds * rate / 16_000).numpy() * 32_767).astype(np.int16)
    if channels:
        samples = np.repeat(samples[:, None], channels, axis=1)
    return np.array_split(samples, int(seconds * 10))


def test_a_recording_ends_with_the_transcript():
    live, sound = Live(talkative(), Lock()), blocks(1.5, 48_000)
    for block in sound:
        live.put(block, 48_000)
    live.finish()
    text = talkative().transcribe(np.concatenate(sound), 48_000)
    assert live.heard.final == text != "" and live.heard.tentative == ""


def test_channels_are_averaged():
    one, two = Live(talkative(), Lock()), Live(talkative(), Lock())
    for mono, stereo in zip(blocks(1, 16_000), blocks(1, 16_000, 2), strict=True):
        one.put(mono, 16_000)
        two.put(stereo, 16_000)
    for live in (one, two):
        live.finish()
    assert one.heard.final == two.heard.final != ""


def test_while_the_model_is_busy_sound_waits():
    lock = Lock()
    live = Live(talkative(), lock)
    with lock:
        for block in blocks(1, 16_000):
            live.put(block, 16_000)
        assert live.heard.seconds == 0
    live.finish()
    assert live.heard.final != ""


def test_without_sound_nothing_is_said():
    live = Live(talkative(), Lock())
    live.finish()
    assert live.html() == ' <span class="tentative"></span>'


def test_a_text_cannot_put_html_on_the_page():
    live = Live(talkative(), Lock())
    live.heard = live.heard._replace(final="<img>", tentative="&")
    assert live.html() == '&lt;img&gt; <span class="tentative">&amp;</span>'
