"""Where live sound comes from: a microphone, raw samples from a pipe, a file played in its time.

Each source puts blocks into an `Inbox` from a thread of its own, whatever the recogniser is doing.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from itertools import takewhile
from queue import SimpleQueue
from threading import Event, Thread
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from tiny_asr.audio import HIGHEST_RATE, LOWEST_RATE
from tiny_asr.shapes import SAMPLE_RATE

BLOCK = 0.1  # seconds
MOST_WAITING = 6000  # blocks of a pipe, 10 minutes: then the pipe has to wait
Start = Callable[[], None]  # from then on a source puts its blocks into its inbox


class Inbox:
    """Blocks that wait to be heard. Iterating gives all that wait as one, and waits for the next.

    So whoever takes sound more slowly than it comes gets longer blocks, and loses none.
    """

    def __init__(self) -> None:
        self.closed = Event()
        self._queue: SimpleQueue[Tensor | None] = SimpleQueue()

    def put(self, block: Tensor) -> None:
        """Add a block (n,), from any thread."""
        self._queue.put(block)

    def close(self) -> None:
        """What comes from now on is no longer heard; may be called by a signal's handler."""
        self.closed.set()
        self._queue.put(None)

    def waiting(self) -> int:
        """How many blocks wait."""
        return self._queue.qsize()

    def __iter__(self) -> Iterator[Tensor]:
        ended = False
        while not ended:
            blocks = [self._queue.get()]
            while not self._queue.empty():
                blocks.append(self._queue.get())
            before_end = list(takewhile(lambda block: block is not None, blocks))
            ended = len(before_end) < len(blocks)
            if before_end:
                yield torch.cat(before_end)


def played(inbox: Inbox, waveform: Tensor) -> Start:
    """A waveform (S,) at 16 kHz as if it were spoken now: no block comes before it was said."""

    def play() -> None:
        due = time.perf_counter()
        for block in waveform.split(int(BLOCK * SAMPLE_RATE)):
            due += len(block) / SAMPLE_RATE
            inbox.closed.wait(due - time.perf_counter())
            inbox.put(block)
        inbox.close()

    return Thread(target=play, daemon=True).start


def raw_pcm(inbox: Inbox, stream: BinaryIO, sampling_rate: int) -> Start:
    """Mono samples of 16 bits, the lower byte first, as `arecord -t raw -f S16_LE` writes them.

    `stream` is not buffered: what has come is read. Raises ValueError for a rate out of range, and
    for a stream that is empty or begins as a file with a header does.
    """
    if not LOWEST_RATE <= sampling_rate <= HIGHEST_RATE:
        raise ValueError(
            f"--rate {sampling_rate} came; expected {LOWEST_RATE} to {HIGHEST_RATE} Hz: give the "
            "one that the sound was recorded at"
        )
    head = stream.read(4)
    if head in (b"RIFF", b"fLaC", b"OggS", b""):
        what = f"a file that begins with {head.decode()}" if head else "nothing"
        advice = "let the recorder write no header, as arecord -t raw and ffmpeg -f s16le do"
        raise ValueError(f"{what} came on stdin; expected raw samples of 16 bits: {advice}")

    def read() -> None:
        data, more = b"", head
        while more:
            data += more
            whole = len(data) // 2 * 2
            inbox.put(torch.from_numpy(np.frombuffer(data[:whole], "<i2") / np.float32(32_768)))
            data = data[whole:]
            while inbox.waiting() > MOST_WAITING and not inbox.closed.wait(BLOCK):
                pass
            more = stream.read(2 * int(BLOCK * sampling_rate))
        if data:
            warnings.warn("stdin ended within a sample, whose one byte is left out", stacklevel=1)
        inbox.close()

    return Thread(target=read, daemon=True).start


def microphone(inbox: Inbox, name: str | None = None) -> tuple[Start, int]:
    """A microphone by its number or a part of its name, the system's own if None; its rate in Hz.

    Raises ValueError, with what to do, where no microphone can be opened.
    """
    sounddevice = _sounddevice()

    def put(samples: np.ndarray, _frames, _time, status) -> None:
        if status:
            warnings.warn(f"the system lost sound of the microphone ({status})", stacklevel=1)
        inbox.put(torch.from_numpy(samples[:, 0].copy()))

    device = int(name) if name and name.isdigit() else name
    try:
        rate = int(sounddevice.query_devices(device, "input")["default_samplerate"])
        options = {"channels": 1, "samplerate": rate, "dtype": "float32", "callback": put}
        stream = sounddevice.InputStream(device=device, blocksize=int(BLOCK * rate), **options)
    except (sounddevice.PortAudioError, ValueError) as error:
        what = "no microphone" if name is None else f"no microphone {name!r}"
        advice = "connect one, or see which are there with tiny-asr listen --devices"
        raise ValueError(f"{what} can be opened here ({error}); {advice}") from error
    return stream.start, rate


def microphones() -> str:
    """The microphones of this machine, a line each with its number."""
    lines = [
        f"{device['index']:>3}  {device['name']}, {device['default_samplerate']:g} Hz"
        for device in _sounddevice().query_devices()
        if device["max_input_channels"] > 0
    ]
    return "\n".join(lines) or "no microphone is known to the system: connect one"


def _sounddevice():
    try:
        import sounddevice
    except ImportError as error:
        raise ValueError(
            "no sounddevice here, which reads the microphone; expected the extra `listen`: "
            "pip install '.[listen]' in the clone"
        ) from error
    except OSError as error:
        raise ValueError(
            f"sounddevice can't be used ({error}); expected the system's PortAudio: on Debian and "
            "Ubuntu, sudo apt install libportaudio2"
        ) from error
    return sounddevice
