"""What pre-processing throws away, as sounds to listen to: too few samples, bits, or hertz.

They are made in float64 and `players` rounds to 16 bits, so that a notebook stores the same bytes
everywhere.
"""

import base64
import io
from dataclasses import replace
from html import escape

import soundfile
import torch
import torchaudio
from IPython.display import HTML
from torch import Tensor

from tiny_asr.data.utterance import Utterance
from tiny_asr.shapes import SAMPLE_RATE


def sweep(low: float, high: float, seconds: float, rate: int = SAMPLE_RATE) -> Tensor:
    """A tone that rises steadily from `low` to `high` Hz, sampled with no filter before: (S,)."""
    time = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    turns = low * time + (high - low) / (2 * seconds) * time.square()
    return 0.3 * torch.sin(2 * torch.pi * turns)


def quantised(waveform: Tensor, bits: int) -> Tensor:
    """The waveform (S,), -1 to 1, with each sample rounded to one of 2^bits evenly spaced steps."""
    steps = 2 ** (bits - 1)  # on each side of 0
    return (waveform * steps).round().clamp(-steps, steps - 1) / steps


def snr_db(clean: Tensor, changed: Tensor) -> float:
    """Signal-to-noise ratio in dB: the power of the clean sound over that of what was added."""
    noise = (changed - clean).double().square().sum()
    return float(10 * torch.log10(clean.double().square().sum() / noise))


def band_limited(waveform: Tensor, rate: int) -> Tensor:
    """As recorded at a lower rate in Hz, properly: all above rate / 2 is filtered out first: (S,).
    The result is at 16 kHz again, so that it can be played and recognised like any clip."""
    low = torchaudio.functional.resample(waveform.double(), SAMPLE_RATE, rate)
    return torchaudio.functional.resample(low, rate, SAMPLE_RATE)[: len(waveform)]


def at_rate(clip: Utterance, rate: int) -> Utterance:
    """A clip of a data set as if it had been recorded at `rate` Hz, 16 000 or less."""
    if rate == SAMPLE_RATE:
        return clip
    encoded = io.BytesIO()
    samples = band_limited(clip.load(), rate).float().numpy()
    soundfile.write(encoded, samples, SAMPLE_RATE, format="FLAC")
    return replace(clip, audio=encoded.getvalue())


def mp3(waveform: Tensor) -> bytes:
    """A clip (S,) at 16 kHz as MP3, rounded to 16 bits first: the last digits change nothing."""
    samples = quantised(waveform.detach().double().cpu(), 16).float().numpy()
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, SAMPLE_RATE, format="MP3")
    return encoded.getvalue()


def players(clips: dict[str, Tensor]) -> HTML:
    """A player under each title, for clips (S,) at 16 kHz; stored in the notebook as MP3."""
    parts = []
    for title, waveform in clips.items():
        data = base64.b64encode(mp3(waveform)).decode()
        name = escape(title)
        parts.append(
            f'<figure style="margin: 0.5em 0"><figcaption>{name}</figcaption>'
            f'<audio controls aria-label="{name}" src="data:audio/mpeg;base64,{data}"></audio>'
            "</figure>"
        )
    return HTML("".join(parts))
