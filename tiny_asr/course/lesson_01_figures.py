"""The figures of notebook 01: how to read a spectrogram, and what each step to it does to sound."""

from functools import partial

import numpy as np
import torch
from ipywidgets import IntSlider
from matplotlib.patches import Rectangle
from torch import Tensor
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from tiny_asr.audio import N_FFT
from tiny_asr.course.drawing import over_time, page
from tiny_asr.course.exercises.lesson_01 import UNNAMED
from tiny_asr.course.explorers import Explorer
from tiny_asr.course.lesson_01_mel import filters
from tiny_asr.figures.style import (
    AUDIO,
    ENCODER,
    MARK,
    MEL,
    PROMPT,
    SOUND,
    WIDTH,
    Picture,
    drawn,
    name_words,
)
from tiny_asr.shapes import HOP_LENGTH, SAMPLE_RATE

COLORS = (SOUND, MARK, ENCODER, AUDIO)
SEEN = {  # in the sample clip: begin and end in s, bottom and top in kHz
    "cloud": (0.75, 0.88, 4.2, 7.95),
    "band": (1.66, 1.93, 1.7, 3.2),
    "stripes": (1.66, 1.93, 0.05, 1.2),
}


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


def _draw_spectrogram(axes, clip: Tensor):
    """A spectrogram (not mel) of a clip (S,) at 16 kHz; the image."""
    window, clip = torch.hann_window(N_FFT, dtype=torch.float64), clip.double()
    lines = torch.stft(clip, N_FFT, HOP_LENGTH, window=window, return_complex=True)
    image = over_time(axes, _level(lines.abs().square(), 70), len(clip) / SAMPLE_RATE)
    image.set_extent((0, len(clip) / SAMPLE_RATE, 0, SAMPLE_RATE / 2000))
    axes.set(ylabel="kHz", ylim=(0, SAMPLE_RATE / 2000))
    return image


@drawn
def how_to_read(clip: Tensor, words=(), notes=SEEN) -> Picture:
    """The spectrogram of a clip (S,) with its words above and notes in it. `notes`: what is seen ->
    (begin, end, bottom, top) of the box around it, in s and kHz."""
    figure, axes = page(3.4)
    image = _draw_spectrogram(axes, clip)
    name_words(axes, words)
    for note, (begin, end, bottom, top) in notes.items():
        box = Rectangle((begin, bottom), end - begin, top - bottom, fill=False, edgecolor="white")
        axes.add_patch(box)
        place = {"xytext": (2, -2), "textcoords": "offset points", "va": "top"}
        axes.annotate(note, (begin, top), color="white", weight="bold", **place)
    axes.set(xlabel="time in s")
    figure.colorbar(image, ax=axes, label="dB, the loudest = 0", pad=0.01)
    boxes = [f"{note} from {b[0]:.2f} to {b[1]:.2f} s" for note, b in notes.items()]
    said = ", ".join(f"{word} at {begin:.2f} s" for word, begin, _ in words)
    figure.alt = f"Spectrogram up to 8 kHz. The words: {said}. Framed: {'; '.join(boxes)}."
    return figure


@drawn
def unnamed(clip: Tensor, words) -> Picture:
    """The spectrograms of some words of a clip (S,) side by side, under letters: a game."""
    figure, panels = page(2.6, 1, len(UNNAMED), sharey=True)
    times = {word: ends for word, *ends in words}
    lengths = []
    for axes, (letter, word) in zip(panels, UNNAMED.items(), strict=True):
        begin, end = (round(seconds * SAMPLE_RATE) for seconds in times[word])
        _draw_spectrogram(axes, clip[begin:end])
        axes.set(title=letter, xlabel="time in s", ylabel="")
        lengths.append(f"{letter}, {(end - begin) / SAMPLE_RATE:.2f} s long")
    panels[0].set(ylabel="kHz")
    figure.alt = (
        f"Spectrograms of {len(UNNAMED)} words up to 8 kHz, without their names, because to name "
        f"them by their looks is the exercise: {'; '.join(lengths)}."
    )
    return figure


@drawn
def one_pitch(frame: Tensor, hertz: int) -> Picture:
    """What a Fourier transform does for one pitch: a windowed frame (400,) times two waves."""
    figure = Picture(figsize=(WIDTH, 4.4), layout="constrained")
    panels = figure.subplot_mosaic([["frame", "all"], ["cos", "all"], ["sin", "all"]])
    seconds = torch.arange(len(frame), dtype=torch.float64) / SAMPLE_RATE
    height, angle = frame.abs().max(), 2 * torch.pi * hertz * seconds
    waves = {"cos": angle.cos(), "sin": angle.sin()}
    panels["frame"].plot(1000 * seconds, frame, color=SOUND)
    panels["frame"].plot(1000 * seconds, height * waves["cos"], color=MARK, linewidth=0.8)
    panels["frame"].set_title(f"the frame (blue), a cosine of {hertz} Hz (orange)")
    for name, wave in waves.items():
        product = frame * wave
        panels[name].fill_between(1000 * seconds, product, color=ENCODER, linewidth=0)
        panels[name].set_title(f"frame x {name}: the sum is {float(product.sum()):.1f}")
    for name in ("frame", "cos", "sin"):
        panels[name].set(yticks=[0], xlim=(0, 25), ylim=(-1.1 * height, 1.1 * height))
        panels[name].tick_params(labelbottom=name == "sin")
    panels["sin"].set(xlabel="time in ms")
    power = torch.fft.rfft(frame.double()).abs().square()
    share = float(power[hertz // 40] / power.max())
    panels["all"].plot(torch.arange(201) * 0.04, _level(power), color=SOUND)
    panels["all"].axvline(hertz / 1000, color=MARK)
    panels["all"].set(xlabel="pitch in kHz", ylabel="dB, the loudest = 0", xlim=(0, 4))
    panels["all"].set_title("the same for all pitches")
    figure.alt = f"A frame of 25 ms and a cosine of {hertz} Hz. {pitch_words(frame, hertz)} " + (
        f"On the right the spectrum, with this pitch marked at {share:.0%} of the loudest."
    )
    return figure


def pitch_words(frame: Tensor, hertz: int) -> str:
    """`one_pitch`, in words."""
    number = torch.fft.rfft(frame.double())[hertz // 40]
    return (
        f"{hertz} Hz: times the cosine and summed {number.real:.1f}, times the sine and summed "
        f"{-number.imag:.1f}. Both squared and added: {number.abs().square():.1f}."
    )


def explore_pitch(frame: Tensor, hertz: int) -> Explorer:
    """A slider over the pitches that a windowed frame (400,) is asked for, up to 4 kHz."""
    slider = IntSlider(value=hertz, min=0, max=4000, step=40, description="pitch in Hz")
    draw, explain = partial(one_pitch, frame), partial(pitch_words, frame)
    return Explorer("explore_pitch", slider, draw=draw, explain=explain)


@drawn
def windows(waveform: Tensor, start: float, tone: float = 1020.0) -> Picture:
    """Windows over 65 ms of a clip (S,) from `start` s on; what they do to the spectrum of a tone.
    The tone in Hz shall be no multiple of 40 Hz, so that it does not fit 25 ms evenly."""
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
    left.set_title(f"{bands + 2} points, equally far apart in mel")
    for begin, middle, end in zip(points, points[1:], points[2:], strict=False):
        corner = np.array([begin, middle, end]) / 1000
        right.plot(corner, [0, 2000 / (end - begin), 0], color=MEL)
    right.set(xlabel="frequency in kHz", ylabel="weight", xlim=(0, 8), ylim=(0, None), yticks=[0])
    right.set_title(f"{bands} triangles of equal area")
    whisper = filters(80, 25, 8000)
    narrow, wide = (int((row > 0).sum()) for row in (whisper[0], whisper[-1]))
    figure.alt = (
        f"Left: mel against frequency, straight up to 1 kHz = 15 mel, then bending down to "
        f"{corners[-1]:.1f} mel at 8 kHz; {bands + 2} points equally far apart in mel "
        f"are ever wider apart in Hz. "
        f"Right: the {bands} triangles between them, the first "
        f"{points[2] - points[0]:.0f} Hz wide and tall, the last {points[-1] - points[-3]:.0f} Hz "
        f"wide and low. Of Whisper's 80, the first covers {narrow} line of the spectrum, the last "
        f"{wide}."
    )
    return figure


@drawn
def steps(stages: dict[str, Tensor], words=()) -> Picture:
    """Matrices (rows, F) of one clip over time, title -> matrix: a frame every 10 ms."""
    (figure, grid), facts = page(1.75 * len(stages), len(stages), 1), []
    for axes, (title, matrix) in zip(grid, stages.items(), strict=True):
        rows, frames = matrix.shape
        image = over_time(axes, matrix.float(), frames / 100)
        axes.set(title=f"{title}: {rows} x {frames}")
        axes.tick_params(labelbottom=False)
        figure.colorbar(image, ax=axes, pad=0.01)
        middle = matrix.float().median()
        facts.append(f"{title}, {matrix.min():.3g} to {matrix.max():.3g}, half below {middle:.2g}")
    name_words(grid[0], words)
    axes.tick_params(labelbottom=True)
    axes.set(xlabel="time in s")
    figure.alt = f"{len(stages)} pictures of the same seconds. {'; '.join(facts)}."
    return figure


@drawn
def onsets(loudness: Tensor, rises: Tensor, words) -> Picture:
    """Loudness (F,) over time, and what a small kernel finds in it (F - 2,): where it rises."""
    figure, (above, below) = page(2.9, 2, 1, sharex=True)
    above.plot(torch.arange(len(loudness)) / 100, loudness, color=MEL)
    above.set(ylabel="loudness", xlim=(0, len(loudness) / 100))
    below.plot((torch.arange(len(rises)) + 1) / 100, rises, color=SOUND)
    below.axhline(0, color="black", linewidth=0.5)
    below.set(ylabel="kernel's result", xlabel="time in s")
    name_words(above, words)
    first = sorted((torch.topk(rises, 3).indices + 1).tolist())
    figure.alt = (
        f"Above, the loudness of {len(loudness)} frames over time; below, the result of the "
        f"kernel, high where it rises. Its three highest values: {', '.join(map(str, first))} "
        "hundredths of a second."
    )
    return figure
