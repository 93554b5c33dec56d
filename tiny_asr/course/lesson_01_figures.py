"""The figures of notebook 01: what sampling, rounding, framing and the mel scale do to sound.

Unlike `tiny_asr.figures.plots` they draw no trace of the model but the steps before it. Each is a
`Picture` with an alt text.
"""

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from tiny_asr.audio import N_FFT
from tiny_asr.course.drawing import over_time, page
from tiny_asr.course.lesson_01_mel import filters
from tiny_asr.course.sounds import quantised, snr_db
from tiny_asr.figures.style import (
    AUDIO,
    ENCODER,
    MARK,
    MEL,
    PROMPT,
    SOUND,
    Picture,
    drawn,
    many,
)
from tiny_asr.shapes import HOP_LENGTH, SAMPLE_RATE

COLORS = (SOUND, MARK, ENCODER, AUDIO)


def _level(power: Tensor, span: float = 80) -> Tensor:
    """Power in dB, 0 at the loudest and nothing below -span."""
    return (10 * (power / power.max()).clamp(min=10 ** (-span / 10)).log10()).float()


def _frame_spectrum(samples: Tensor, window: Tensor, size: int = 4096) -> tuple[Tensor, Tensor]:
    """Frequencies in Hz and the level in dB of one windowed frame, finely sampled by padding."""
    power = torch.fft.rfft(samples.double() * window.double(), size).abs().square()
    return torch.fft.rfftfreq(size, 1 / SAMPLE_RATE), _level(power, 100)


@drawn
def aliasing(low: int = 1000) -> Picture:
    """Two tones with the same samples, and which pitch is heard of any tone at 16 kHz."""
    high = SAMPLE_RATE - low
    figure, (left, right) = page(3, 1, 2, width_ratios=[1.4, 1])
    time = np.linspace(0, 1e-3, 2001)
    dots = np.arange(17) / SAMPLE_RATE
    for frequency, color, width in ((high, PROMPT, 1), (low, SOUND, 1.5)):
        wave = np.cos(2 * np.pi * frequency * time)
        left.plot(time * 1000, wave, color=color, linewidth=width, label=f"{frequency} Hz")
    left.plot(dots * 1000, np.cos(2 * np.pi * low * dots), "o", color=MARK, label="samples")
    left.set(xlabel="time in ms", ylabel="amplitude", ylim=(-1.15, 1.6))
    left.legend(ncols=3, loc="upper center")
    left.set_title("two tones, one set of samples")
    sent = np.arange(0, 32_001, 100)
    heard = np.minimum(sent % SAMPLE_RATE, SAMPLE_RATE - sent % SAMPLE_RATE)
    right.plot(sent / 1000, heard / 1000, color=SOUND)
    right.axvline(8, color=MARK, linestyle="--", label="half the rate")
    right.set(xlabel="tone in kHz", ylabel="heard in kHz", xlim=(0, 32), xticks=range(0, 33, 8))
    right.set(ylim=(0, 11), yticks=(0, 4, 8))
    right.legend(loc="upper right")
    right.set_title("sampled at 16 kHz, no filter")
    figure.alt = (
        f"Left: 1 ms of a tone of {high} Hz and one of {low} Hz; both pass through the same "
        f"{len(dots)} dots, the samples at 16 kHz. Right: the frequency heard against the one "
        "played is a zigzag: up to 8 kHz, down to 0 at 16 kHz, up and down again."
    )
    return figure


@drawn
def spectrograms(clips: dict[str, Tensor], top: int = 8000) -> Picture:
    """Spectrograms up to `top` Hz (not mel) of clips (S,) at 16 kHz, one above the other."""
    figure, panels = page(0.4 + 1.7 * len(clips), len(clips), 1, squeeze=False)
    loudest = []
    for axes, (title, clip) in zip(panels.flat, clips.items(), strict=True):
        window = torch.hann_window(N_FFT, dtype=torch.float64)
        clip = clip.double()
        lines = torch.stft(clip, N_FFT, HOP_LENGTH, window=window, return_complex=True)
        power = lines.abs().square()
        image = over_time(axes, _level(power, 60), len(clip) / SAMPLE_RATE)
        image.set_extent((0, len(clip) / SAMPLE_RATE, 0, SAMPLE_RATE / 2000))
        axes.set(ylabel="kHz", ylim=(0, top / 1000), title=title)
        middle = power.argmax(dim=0)[[power.shape[1] * i // 4 for i in (1, 2, 3)]]
        loudest.append(f"{title}: {', '.join(f'{int(k) * 40}' for k in middle)} Hz")
        axes.tick_params(labelbottom=len(loudest) == len(clips))
    axes.set(xlabel="time in s")
    figure.colorbar(image, ax=panels, label="dB, the loudest = 0", pad=0.01)
    figure.alt = (
        f"Spectrograms up to {top} Hz. The strongest frequency at a quarter, a half and three "
        f"quarters of the time: {'; '.join(loudest)}."
    )
    return figure


@drawn
def bit_depths(waveform: Tensor, start: float, bits=(16, 8, 4)) -> Picture:
    """5 ms of a clip (S,) from `start` s on with ever fewer bits, and the noise that this adds."""
    figure, panels = page(2.6, 1, len(bits), sharey=True)
    first = round(start * SAMPLE_RATE)
    near = slice(first, first + SAMPLE_RATE // 200)
    milliseconds = np.arange(near.start, near.stop) / SAMPLE_RATE * 1000
    facts = []
    for axes, depth in zip(panels, bits, strict=True):
        sound = quantised(waveform, depth)
        axes.plot(milliseconds, waveform[near], color=PROMPT, linewidth=3, label="16 bits")
        axes.step(milliseconds, sound[near], where="mid", color=SOUND, label=f"{depth} bits")
        fact = f"{depth} bits: {many(2**depth)} levels"
        if depth < 16:
            fact += f", {snr_db(waveform, sound):.0f} dB"
        axes.set(xlabel="time in ms", title=fact)
        facts.append(fact)
    panels[0].set(ylabel="amplitude")
    figure.alt = (
        f"5 ms of the clip from {start:.3f} s on, with fewer bits from left to right. "
        f"{'; '.join(facts)} of signal above the added noise. The curve of 4 bits is a staircase."
    )
    return figure


@drawn
def instants(waveform: Tensor, moments: dict[str, float]) -> Picture:
    """The spectra of single frames of a clip (S,): name -> seconds at which the frame begins."""
    figure, axes = page(3)
    facts = []
    for (name, seconds), color in zip(moments.items(), COLORS, strict=False):
        first = round(seconds * SAMPLE_RATE)
        hertz, level = _frame_spectrum(waveform[first : first + N_FFT], torch.hann_window(N_FFT))
        axes.plot(hertz / 1000, level, color=color, linewidth=1, label=name)
        power = 10 ** (level.double() / 10)
        share = float(power[hertz >= 4000].sum() / power.sum())
        facts.append(f"{name}: {share:.0%} of its power lies above 4 kHz")
    for edge, label in ((4, "8 kHz rate ends"), (8, "16 kHz rate ends")):
        axes.axvline(edge, color="black", linestyle="--", linewidth=1)
        axes.annotate(label, (edge, 4), ha="right", xytext=(-3, 0), textcoords="offset points")
    axes.set(xlabel="frequency in kHz", ylabel="dB, its peak = 0", xlim=(0, 8.05), ylim=(-80, 12))
    axes.legend(loc="upper left", bbox_to_anchor=(0.1, 1.0))
    axes.set_title("one frame of 25 ms each")
    figure.alt = f"Spectra of single frames from 0 to 8 kHz. {'; '.join(facts)}."
    return figure


@drawn
def windows(waveform: Tensor, start: float, tone: float = 1020.0) -> Picture:
    """Windows over 65 ms of a clip (S,) from `start` s on; what they do to the spectrum of a tone.

    The tone in Hz shall be no multiple of 40 Hz, so that it does not fit 25 ms evenly.
    """
    figure, (left, right) = page(3, 1, 2, width_ratios=[1.3, 1])
    first = round(start * SAMPLE_RATE)
    near = waveform[first : first + 65 * SAMPLE_RATE // 1000]
    left.plot(np.arange(len(near)) / 16, near, color=PROMPT, linewidth=0.8)
    height, hann = float(near.abs().max()), torch.hann_window(N_FFT)
    for number, color in enumerate(COLORS):
        begin = number * HOP_LENGTH
        left.plot(np.arange(begin, begin + N_FFT) / 16, hann * height, color=color)
        bottom = -height * (1.25 + 0.22 * number)
        bar = Rectangle((begin / 16, bottom), N_FFT / 16, 0.14 * height, color=color)
        left.add_patch(bar)
    left.set(xlabel="time in ms", yticks=[], ylim=(-2.1 * height, 1.15 * height), xlim=(0, 65))
    left.set_title("frames of 25 ms, one every 10 ms, under a window")
    wave = torch.sin(2 * torch.pi * tone * torch.arange(N_FFT, dtype=torch.float64) / SAMPLE_RATE)
    levels = {}
    for name, window, color in (("cut", torch.ones(N_FFT), MARK), ("window", hann, SOUND)):
        hertz, levels[name] = _frame_spectrum(wave, window)
        right.plot(hertz / 1000, levels[name], color=color, linewidth=0.8, label=name)
    right.set(xlabel="frequency in kHz", ylabel="dB, the peak = 0", xlim=(0, 4), ylim=(-100, 5))
    right.legend(loc="upper right")
    right.set_title(f"spectrum of a tone of {tone:.0f} Hz")
    far = (hertz > 3000) & (hertz < 4000)
    cut, soft = (float(levels[name][far].max()) for name in ("cut", "window"))
    figure.alt = (
        "Left: 65 ms of the clip under 4 bell-shaped windows of 25 ms, each 10 ms after the last. "
        f"Right: the spectrum of a tone of {tone:.0f} Hz. Simply cut out, it leaks to all "
        f"frequencies: {cut:.0f} dB at 3 to 4 kHz. Under the window it is {soft:.0f} dB there."
    )
    return figure


@drawn
def mel_scale(bands: int = 10) -> Picture:
    """From equal steps in mel to unequal ones in Hz, and the triangles between them."""
    figure, (left, right) = page(3, 1, 2)
    hertz = np.linspace(0, 8000, 801)
    corners = np.linspace(0, hertz_to_mel(8000.0, "slaney"), bands + 2)
    points = mel_to_hertz(corners, "slaney")
    left.plot(hertz / 1000, hertz_to_mel(hertz, "slaney"), color="black")
    left.hlines(corners, 0, points / 1000, color=PROMPT, linewidth=0.8)
    left.vlines(points / 1000, 0, corners, color=MEL, linewidth=0.8)
    left.set(xlabel="frequency in kHz", ylabel="mel (Slaney)", xlim=(0, 8), ylim=(0, 46))
    left.set_title(f"{bands + 2} equal steps of mel")
    for begin, middle, end in zip(points, points[1:], points[2:], strict=False):
        corner = np.array([begin, middle, end]) / 1000
        right.plot(corner, [0, 2000 / (end - begin), 0], color=MEL)
    right.set(xlabel="frequency in kHz", ylabel="weight", xlim=(0, 8), ylim=(0, None), yticks=[0])
    right.set_title(f"{bands} triangles of equal area")
    whisper = filters(80, 25, 8000)
    narrow, wide = (int((row > 0).sum()) for row in (whisper[0], whisper[-1]))
    figure.alt = (
        f"Left: mel against frequency, straight up to 1 kHz = 15 mel, then bending down to "
        f"{corners[-1]:.1f} mel at 8 kHz; {bands + 2} equal steps of mel are ever wider in Hz. "
        f"Right: the {bands} triangles between them, the first "
        f"{points[2] - points[0]:.0f} Hz wide and tall, the last {points[-1] - points[-3]:.0f} Hz "
        f"wide and low. Of Whisper's 80, the first covers {narrow} line of the spectrum, the last "
        f"{wide}."
    )
    return figure


@drawn
def steps(stages: dict[str, Tensor]) -> Picture:
    """Matrices (rows, F) of one clip over time, title -> matrix: a frame every 10 ms."""
    (figure, grid), facts = page(4.6, 2, 2), []
    for axes, (title, matrix) in zip(grid.flat, stages.items(), strict=True):
        rows, frames = matrix.shape
        image = over_time(axes, matrix.float(), frames / 100)
        axes.set(xlabel="time in s", title=f"{title}: {rows} x {frames}")
        figure.colorbar(image, ax=axes, pad=0.01)
        middle = matrix.float().median()
        facts.append(f"{title}, {matrix.min():.3g} to {matrix.max():.3g}, half below {middle:.2g}")
    figure.alt = f"Four pictures of the same seconds. {'; '.join(facts)}."
    return figure
