"""Every figure of a `Trace`, for notebooks and the command line, its sizes read off the tensors.

Each carries an alt text with the numbers that a seeing reader would read off it. They are
matplotlib figures outside pyplot, and the same trace gives the same bytes.
"""

import textwrap
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from torch import Tensor
from transformers.audio_utils import hertz_to_mel

from tiny_asr.figures.diagrams import decoder_input
from tiny_asr.figures.style import (
    AUDIO,
    ENCODER,
    MARK,
    PROMPT,
    SOUND,
    TEXT,
    WIDTH,
    Picture,
    decoder_parts,
    drawn,
    duration_of,
    legible,
    many,
    name_words,
    png,
    save,
    show,
    title_of,
)
from tiny_asr.figures.trace import Trace
from tiny_asr.hub import BUNDLED
from tiny_asr.shapes import SAMPLE_RATE

__all__ = ["decoder_input", "embeddings", "journey", "log_mel", "modality_gap"]
__all__ += ["png", "save", "show"]
MOST_TOKENS = 1000  # tokens of a vocabulary that a scatter plot can hold


# Sound -------------------------------------------------------------------------------------------


def _draw_waveform(axes: Axes, samples: np.ndarray, seconds: float, legend: bool = True) -> None:
    """Samples over time; `seconds` is where the clip ends and its padding begins."""
    duration = len(samples) / SAMPLE_RATE
    axes.plot(np.arange(len(samples)) / SAMPLE_RATE, samples, color=SOUND, linewidth=0.5)
    if seconds < duration:
        axes.axvspan(seconds, duration, color=PROMPT, linewidth=0, label="padding")
        if legend:
            axes.legend(loc="lower right", borderpad=0)
    axes.set(xlim=(0, duration), xlabel="time in s", ylabel="amplitude")


def _draw_cells(axes: Axes, rows: Tensor, duration: float, **options):
    """An image, one cell a number: averaging cells would hide the few loud ones among many."""
    options |= {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
    image = axes.imshow(rows.numpy(), extent=(0, duration, 0, len(rows)), **options)
    axes.set(xlabel="time in s")
    return image


def _draw_log_mel(axes: Axes, trace: Trace, legend: bool = True) -> None:
    """Time by mel bin; the legend is a second scale in Hz and a colour bar."""
    mel = trace["log_mel"][0]
    image = _draw_cells(axes, mel, duration_of(trace), cmap="magma")
    axes.set(ylabel="mel bin")
    if legend:
        # Whisper's M triangles have M + 2 corners, equally far apart on the mel scale, 0 to 8 kHz.
        hertz = np.array([250.0, 500.0, 1000.0, 2000.0, 4000.0])
        share = hertz_to_mel(hertz, "slaney") / hertz_to_mel(SAMPLE_RATE / 2, "slaney")
        labels = [f"{value:.0f} Hz" for value in hertz]
        axes.secondary_yaxis("right").set_yticks(share * (len(mel) + 1) - 0.5, labels=labels)
        axes.figure.colorbar(image, ax=axes, label="loudness\n(1 = 40 dB)", pad=0.01)


@drawn
def log_mel(trace: Trace, words=()) -> Picture:
    """The log-mel spectrogram: what the encoder hears, with its bins in Hz as well. `words`: (word,
    begin, end) in s, to be named above."""
    figure = Picture(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    _draw_log_mel(axes, trace)
    name_words(axes, words)
    axes.set_title(title_of(trace, "log_mel"))
    mel = trace["log_mel"][0]
    bins, frames = mel.shape
    figure.alt = (
        f"Log-mel spectrogram: {frames} frames of 10 ms over {duration_of(trace):.2f} s by {bins} "
        f"mel bins from 0 to 8000 Hz. Values from {mel.min():.2f} (dark) to {mel.max():.2f} "
        f"(bright); the loudest frame is at {int(mel.mean(dim=0).argmax()) / 100:.2f} s."
    )
    return figure


# Embeddings --------------------------------------------------------------------------------------


def _draw_embeddings(axes: Axes, values: Tensor, duration: float, legend: bool = True) -> tuple:
    """Time by dimension; returns the limits of the colours."""
    # A few of Whisper's dimensions are so loud that they would leave one colour to all others.
    low, high = np.percentile(values.numpy(), (1, 99))
    image = _draw_cells(axes, values.T, duration, cmap="viridis", vmin=low, vmax=high)
    axes.set(ylabel="dimension")
    if legend:
        label = "activation\n(1st to 99th percentile)"
        axes.figure.colorbar(image, ax=axes, label=label, extend="both", pad=0.01)
    return low, high


@drawn
def embeddings(tensor: Tensor, title: str, seconds_per_frame: float) -> Picture:
    """A sequence of embeddings as a picture: the encoder's output, or the projector's.

    Args:
        tensor: (T, D) or (1, T, D).
        title: what it is; the sizes are put behind it.
        seconds_per_frame: time from one embedding to the next, such as 0.02 or 0.1.
    """
    if tensor.ndim not in (2, 3) or 0 in tensor.shape or (tensor.ndim == 3 and len(tensor) > 1):
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} came; expected (T, D) or (1, T, D): a figure "
            "shows one clip, take it out of its batch"
        )
    values = tensor.detach().float().cpu().reshape(tensor.shape[-2:])
    frames, width = values.shape
    figure = Picture(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    low, high = _draw_embeddings(axes, values, frames * seconds_per_frame)
    step = f"{seconds_per_frame * 1000:g} ms"
    title = f"{title}: {many(frames)} steps of {step}, {many(width)} dimensions"
    axes.set_title(title)
    figure.alt = (
        f"{title}, {frames * seconds_per_frame:.2f} s in all. 98 of 100 activations lie between "
        f"{low:.3g} and {high:.3g}, which the colours span; the extremes are {values.min():.3g} "
        f"and {values.max():.3g}."
    )
    return figure


def principal(points: Tensor) -> tuple[Tensor, Tensor]:
    """Points (N, D) on their two principal axes (N, 2), and the share of the variance on each."""
    centred = points - points.mean(dim=0)
    _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    # An axis has no direction of its own: its largest entry shall be positive, on every machine.
    signs = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    return centred @ (axes * signs)[:2].T, sizes[:2].square() / sizes.square().sum()


@drawn
def modality_gap(trace: Trace, model) -> Picture:
    """Do audio embeddings lie where the decoder's token embeddings do? A PCA, and their loudness.
    `model`: the `ASRModel` of the trace."""
    frames, audio = trace["encoder_output"][0], trace["audio_embeddings"][0]
    tokens = model.decoder.some_embeddings(MOST_TOKENS).float().cpu()
    points, share = principal(torch.cat([tokens, audio]))
    figure = Picture(figsize=(WIDTH, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    left.scatter(*points[: len(tokens)].T, 14, TEXT, marker="o", edgecolor="black", linewidth=0.3)
    left.scatter(*points[len(tokens) :].T, 22, AUDIO, marker="^", edgecolor="black", linewidth=0.3)
    left.set_aspect("equal", "datalim")
    left.locator_params(nbins=6)
    left.set(xlabel=f"1st principal axis ({share[0]:.0%} of the variance)")
    left.set(ylabel=f"2nd principal axis ({share[1]:.0%})")
    left.set_title(f"after the projector: {audio.shape[1]} dimensions each")
    groups = [("encoder frames", frames), ("audio embeddings", audio), ("token embeddings", tokens)]
    loudness = [rows.square().mean(dim=1).sqrt() for _, rows in groups]
    for place, (values, color) in enumerate(zip(loudness, (ENCODER, AUDIO, TEXT), strict=True)):
        height = np.linspace(place - 0.3, place + 0.3, len(values))
        right.scatter(values, height, 8, color)
    labels = [f"{len(rows)} {name}\n({rows.shape[1]} dimensions)" for name, rows in groups]
    right.set_yticks(range(3), labels=labels)
    right.set(xscale="log", xlabel="root mean square of one embedding", ylim=(2.6, -0.6))
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_formatter("")
    right.set_title("how loud each is")
    apart = (tokens.mean(dim=0) - audio.mean(dim=0)).norm()
    spread = (tokens - tokens.mean(dim=0)).norm(dim=1).mean()
    figure.alt = (
        f"Left: {len(tokens)} token and {len(audio)} audio embeddings on two principal axes "
        f"({share[0]:.0%} and {share[1]:.0%} of the variance). The centres of the two clouds lie "
        f"{apart:.3g} apart, a token {spread:.3g} from its own centre on average. Before the "
        f"projector there is nothing to compare: encoder frames have {frames.shape[1]} dimensions "
        f"of their own, tokens {tokens.shape[1]}. Right: the median root mean square is "
        f"{loudness[0].median():.3g} of encoder frames, {loudness[1].median():.3g} of audio "
        f"embeddings, {loudness[2].median():.3g} of tokens. {trace.warning}"
    )
    figure.suptitle(trace.warning, color=MARK, weight="bold")
    return figure


# From sound to text ------------------------------------------------------------------------------


def draw_panels(panels, trace: Trace, legend: bool = True, words=()) -> None:
    """Waveform, log-mel, encoder output and audio embeddings, on four axes of the same time, each
    with the words above it, where there are any."""
    _draw_waveform(panels[0], trace["waveform"][0].numpy(), trace.seconds_of_audio, legend)
    _draw_log_mel(panels[1], trace, legend)
    for axes, name in zip(panels[2:], ("encoder_output", "audio_embeddings"), strict=True):
        _draw_embeddings(axes, trace[name][0], duration_of(trace), legend)
    for axes in panels:
        name_words(axes, words)
    for axes in panels[:-1]:
        axes.set(xlabel="")
        axes.tick_params(labelbottom=False)


@drawn
def journey(trace: Trace, words=()) -> Picture:
    """One page, from sound to text: four panels on one time axis, the decoder's input, the text.
    `words`: (word, begin, end) in s, to be named above the panels."""
    figure = Picture(figsize=(8.27, 11.69), layout="constrained")  # A4
    *panels, strip, below = figure.subplots(6, 1, height_ratios=[1, 1.4, 1.6, 1.6, 0.3, 1.3])
    draw_panels(panels, trace, words=words)
    names = ["waveform", "log_mel", "encoder_output", "audio_embeddings"]
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(title_of(trace, name))
    parts, left = decoder_parts(trace), 0
    for length, color in parts.values():
        strip.barh(0, length, left=left, color=color, edgecolor="black", linewidth=0.8)
        left += length
    strip.set(xlim=(0, left), yticks=[], xlabel="position in the decoder's sequence")
    strip.set_title(f"{title_of(trace, 'decoder_input')}, and the text after it")
    below.axis("off")
    counts = [f"{length} {name}" for name, (length, _) in parts.items()]
    handles = [Patch(facecolor=color, edgecolor="black") for _, color in parts.values()]
    legend = below.legend(handles, counts, loc="upper left", ncols=4, borderpad=0)
    legend.set_in_layout(False)  # wider than the panels, which shall not shrink for it
    text = textwrap.shorten(trace.text, 500, placeholder=f" ... ({len(trace.text)} characters)")
    lines = textwrap.wrap(f"text: {legible(text) or '(nothing that can be seen)'}", 95)
    options = {"textcoords": "offset points", "va": "top", "in_layout": False}
    below.annotate(trace.warning, (0, 1), (0, -24), color=MARK, weight="bold", **options)
    below.annotate("\n".join(lines), (0, 1), (0, -42 if trace.warning else -24), **options)
    encoder, decoder = (Path(trace.names[part]).name for part in ("encoder", "decoder"))
    title = f"{trace.seconds_of_audio:.2f} s of sound through {encoder} and {decoder}"
    figure.suptitle(title.replace(BUNDLED, ""))
    figure.alt = (
        f"The journey of {trace.seconds_of_audio:.2f} s of sound, on one time axis: "
        f"{'; '.join(title_of(trace, name) for name in names)}. Below, the decoder's sequence: "
        f"{', '.join(counts)}. {trace.warning} {lines[0]}"
    )
    return figure
