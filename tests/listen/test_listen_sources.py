"""Where live sound comes from: what is put in comes out, in time, and a bad source is named."""

import io
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tiny_asr.listen.sources import Inbox, microphone, microphones, played, raw_pcm


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-(2**15), 2**15, count).astype("<i2")


def test_what_waits_comes_as_one_block_and_nothing_after_the_end():
    inbox = Inbox()
    for number in range(3):
        inbox.put(torch.full((2,), float(number)))
    assert inbox.waiting() == 3
    blocks = iter(inbox)
    assert next(blocks).tolist() == [0, 0, 1, 1, 2, 2]
    inbox.put(torch.ones(1))
    inbox.close()
    inbox.put(torch.ones(1))
    assert [block.tolist() for block in blocks] == [[1]]


def test_a_file_is_played_in_its_time():
    inbox, waveform = Inbox(), torch.randn(8_100)
    start = time.perf_counter()
    played(inbox, waveform)()
    came = [(time.perf_counter() - start, len(block)) for block in inbox]
    assert sum(length for _, length in came) == 8_100
    heard = 0
    for seconds, length in came:
        heard += length
        assert seconds >= heard / 16_000 - 0.001, "before it was said"


def test_an_inbox_that_is_closed_stops_the_player():
    inbox = Inbox()
    played(inbox, torch.zeros(160_000))()
    next(iter(inbox))
    inbox.close()
    assert sum(map(len, inbox)) < 160_000


@pytest.mark.parametrize("count", [1, 2, 3, 8_001])
def test_raw_samples_are_read_to_the_last(count):
    inbox, sound = Inbox(), samples(count)
    raw_pcm(inbox, io.BytesIO(sound.tobytes()), 16_000)()
    blocks = [*inbox]
    assert torch.equal(torch.cat(blocks), torch.from_numpy(sound / np.float32(32_768)))


def test_half_a_sample_at_the_end_is_left_out_and_told(monkeypatch):
    told, inbox = [], Inbox()
    monkeypatch.setattr("warnings.warn", lambda message, **_: told.append(message))
    raw_pcm(inbox, io.BytesIO(samples(5).tobytes() + b"x"), 16_000)()
    assert sum(map(len, inbox)) == 5
    assert told == ["stdin ended within a sample, whose one byte is left out"]


@pytest.mark.parametrize(
    ("data", "rate", "complaint"),
    [
        (b"", 16_000, "nothing came on stdin; expected raw samples"),
        (b"RIFF....WAVE", 16_000, "begins with RIFF came on stdin.*arecord -t raw"),
        (b"....", 16, "--rate 16 came; expected 1000 to 1000000 Hz"),
    ],
)
def test_a_wrong_pipe_is_refused(data, rate, complaint):
    with pytest.raises(ValueError, match=complaint):
        raw_pcm(Inbox(), io.BytesIO(data), rate)


class PortAudioError(Exception):
    """As sounddevice has it."""


@pytest.fixture
def sounddevice(monkeypatch):
    """A machine with one microphone, of 48 kHz, and one loudspeaker."""
    devices = [
        {"index": 0, "name": "speaker", "max_input_channels": 0, "default_samplerate": 44_100.0},
        {"index": 1, "name": "USB mic", "max_input_channels": 1, "default_samplerate": 48_000.0},
    ]

    def query(device=None, kind=None):
        if kind is None:
            return devices
        if device in (None, 1, "USB"):
            return devices[1]
        raise PortAudioError("Error querying device -1") if device == 7 else ValueError("No match")

    class InputStream:
        def __init__(self, callback, **options):
            self.callback, self.options = callback, options

        def start(self):
            for status in ("", "input overflow"):
                self.callback(np.ones((4_800, 1), np.float32), 4_800, None, status)

    module = SimpleNamespace(
        query_devices=query, InputStream=InputStream, PortAudioError=PortAudioError
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)


@pytest.mark.parametrize("name", [None, "1", "USB"])
def test_a_microphone_by_number_or_name(sounddevice, name):
    inbox = Inbox()
    start, rate = microphone(inbox, name)
    with pytest.warns(UserWarning, match="lost sound of the microphone.*overflow"):
        start()
    inbox.close()
    assert rate == 48_000
    assert torch.cat([*inbox]).tolist() == [1.0] * 9_600


def test_the_microphones_are_listed_and_no_others(sounddevice):
    assert microphones() == "  1  USB mic, 48000 Hz"


@pytest.mark.parametrize("name", ["7", "none such"])
def test_no_microphone(sounddevice, name):
    with pytest.raises(ValueError, match=f"no microphone '{name}' can be opened.*--devices"):
        microphone(Inbox(), name)


def test_without_sounddevice(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ValueError, match=r"pip install '\.\[listen\]'"):
        microphone(Inbox())


def test_without_portaudio(monkeypatch, tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    with pytest.raises(ValueError, match=r"PortAudio library not found.*libportaudio2"):
        microphones()
