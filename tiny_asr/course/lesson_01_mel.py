"""How much does a mel spectrogram keep? Choose its parameters, see it, and hear what is left.

The spectrogram is turned into sound again: noise that is as loud as it says, at each time and in
each band. It sounds whispered because the phase, and with it most of the voice's tone, is lost.
"""

import warnings
from functools import lru_cache, partial

import numpy as np
import torch
from ipywidgets import SelectionSlider
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from tiny_asr.course.drawing import over_time, page
from tiny_asr.course.explorers import Explorer
from tiny_asr.course.sounds import mp3
from tiny_asr.figures.style import MEL, Picture, drawn, name_words
from tiny_asr.shapes import HOP_LENGTH, SAMPLE_RATE

BANDS = (4, 8, 20, 40, 80, 128)
WINDOWS_MS = (16, 25, 64)
TOPS = (2000, 4000, 8000)  # Hz
QUIETEST = 1e-12  # keeps divisions finite where a band is empty


@lru_cache(maxsize=64)
def filters(bands: int, window_ms: int, top: int) -> Tensor:
    """Whisper's kind of mel filters (bands, window / 2 + 1) float64, but of any size. A filter is
    empty (all zero) where its triangle falls between two lines of the spectrum."""
    length = SAMPLE_RATE * window_ms // 1000
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty filters; `about` tells the student
        matrix = mel_filter_bank(length // 2 + 1, bands, 0.0, top, SAMPLE_RATE, "slaney", "slaney")
    return torch.from_numpy(matrix.T.copy())


def _spectrum(waveform: Tensor, length: int) -> Tensor:
    window = torch.hann_window(length, dtype=torch.float64)
    return torch.stft(waveform.double(), length, HOP_LENGTH, window=window, return_complex=True)


def mel_power(waveform: Tensor, bands: int = 80, window_ms: int = 25, top: int = 8000) -> Tensor:
    """Mel power (bands, frames) float64 up to `top` Hz of a clip (S,) at 16 kHz, each 10 ms."""
    matrix = filters(bands, window_ms, top)
    return matrix @ _spectrum(waveform, 2 * (matrix.shape[1] - 1)).abs().square()


def through_mel(waveform: Tensor, bands: int = 80, window_ms: int = 25, top: int = 8000) -> Tensor:
    """The clip (S,) as its mel spectrogram describes it: seeded noise, shaped by it; (S,) float64.
    After the noise vocoder of Shannon et al., "Speech recognition with primarily temporal cues"
    (1995). Each frequency is as loud as the bands that hear it are on average."""
    matrix, mel = filters(bands, window_ms, top), mel_power(waveform, bands, window_ms, top)
    density = mel / matrix.sum(dim=1, keepdim=True).clamp(min=QUIETEST)
    shares = matrix / matrix.sum(dim=0).clamp(min=QUIETEST)
    length = 2 * (matrix.shape[1] - 1)
    noise = np.random.default_rng(0).standard_normal(len(waveform))
    carrier = _spectrum(torch.from_numpy(noise), length)
    shaped = (shares.T @ density).sqrt() * carrier / carrier.abs().clamp(min=QUIETEST)
    window = torch.hann_window(length, dtype=torch.float64)
    sound = torch.istft(shaped, length, HOP_LENGTH, window=window, length=len(waveform))
    return sound / max(1.0, float(sound.abs().max()))


def about(bands: int, window_ms: int, top: int) -> str:
    """What a choice of parameters costs and what is wrong with it, in words."""
    empty = int((filters(bands, window_ms, top).sum(dim=1) == 0).sum())
    words = (
        f"{bands} bands up to {top} Hz from windows of {window_ms} ms: "
        f"{bands * SAMPLE_RATE // HOP_LENGTH} numbers a second; the spectrum has a line every "
        f"{1000 / window_ms:.1f} Hz."
    )
    if empty:
        words += f" {empty} bands are empty: they fall between two lines; take a longer window."
    return words


@drawn
def mel_view(
    waveform: Tensor, bands: int = 80, window_ms: int = 25, top: int = 8000, words=()
) -> Picture:
    """The filters, and the log-mel spectrogram that they make of a clip (S,) at 16 kHz."""
    mel = mel_power(waveform, bands, window_ms, top)
    matrix = filters(bands, window_ms, top)
    loudness = 10 * mel.clamp(min=1e-10).log10()
    loudness = torch.maximum(loudness, loudness.max() - 80)
    figure, (left, right) = page(3, 1, 2, width_ratios=[1, 2.2])
    hertz = np.linspace(0, SAMPLE_RATE / 2, matrix.shape[1])
    step = -(-bands // 10)  # all 80 would look like grass
    for row in matrix[::step]:
        left.fill_between(hertz / 1000, row / matrix.max(), color=MEL, alpha=0.4)
    left.set(xlabel="frequency in kHz", ylabel="weight", xlim=(0, 8), yticks=[])
    left.set_title(f"{bands} filters" + (f", one in {step} drawn" if step > 1 else ""))
    duration = len(waveform) / SAMPLE_RATE
    image = over_time(right, loudness, duration)
    name_words(right, words, size=6.5)
    right.set(xlabel="time in s", ylabel="mel bin")
    right.set_title(f"log-mel: {bands} x {mel.shape[1]}, windows of {window_ms} ms")
    figure.colorbar(image, ax=right, label="loudness in dB", pad=0.01)
    figure.alt = (
        f"Left: {bands} triangular filters from 0 to {top} Hz, narrow at the bottom and wide at "
        f"the top. Right: the log-mel spectrogram of {duration:.2f} s, {bands} by {mel.shape[1]}, "
        f"from {loudness.min():.0f} to {loudness.max():.0f} dB. {about(bands, window_ms, top)}"
    )
    return figure


def explore_mel(waveform: Tensor, words=()) -> Explorer:
    """Choose the parameters of a clip's (S,) mel spectrogram, see it, and hear what it keeps."""
    ranges = (("mel bands", BANDS, 80), ("window in ms", WINDOWS_MS, 25), ("top, Hz", TOPS, 8000))
    sliders = [
        SelectionSlider(description=name, options=options, value=value, continuous_update=False)
        for name, options, value in ranges
    ]
    return Explorer(
        "explore_mel",
        *sliders,
        draw=partial(mel_view, waveform, words=words),
        explain=about,
        sound=lambda *chosen: mp3(through_mel(waveform, *chosen)),
    )
