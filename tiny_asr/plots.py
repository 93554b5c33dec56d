"""Every figure of the notebooks and of the command line.

A shape is a list of numbers until it is drawn. These figures draw one clip's `Trace` with every
size read off its tensors, so that a picture cannot tell another story than the model. Each carries
an alt text with the numbers that a seeing reader would read off it: `show` hands it to the
notebook, `save` writes it into the file. They are matplotlib figures outside pyplot: none stays
open, none needs a screen, and the same trace gives the same bytes.
"""

import base64
import io
import textwrap
from functools import lru_cache, wraps
from pathlib import Path

import numpy as np
import torch
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Patch, Rectangle
from torch import Tensor
from transformers.audio_utils import hertz_to_mel

from tiny_asr.audio import SAMPLE_RATE
from tiny_asr.tracing import Trace

# Okabe and Ito's colours stay apart for colour-blind readers; black text reads on the last four.
SOUND, MARK, MEL = "#0072B2", "#D55E00", "#CC79A7"
ENCODER, AUDIO, PROMPT, TEXT = "#009E73", "#E69F00", "#C8C8C8", "#56B4E9"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.facecolor": "white",  # in a dark notebook, too: the figure brings its own paper
    "text.parse_math": False,  # a token may well be a dollar sign
    "legend.frameon": False,
}
WIDTH = 8.3  # inches: 800 CSS pixels, the width of a notebook's output and of an A4 page
DPI, CSS_DPI = 150, 96
MONOSPACE = "DejaVu Sans Mono"  # comes with matplotlib
GREATEST_TOKENS = 1000  # tokens of a vocabulary that a scatter plot can hold


class Picture(Figure):
    """A figure with an alt text: what is seen on it, in a few sentences with numbers."""

    alt = ""

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        return _bundle(self, self.alt)


def drawn(draw):
    """Decorate a figure's function: the course's style, whatever the notebook around it has set."""

    @wraps(draw)
    def wrapper(*args, **kwargs) -> Picture:
        with style.context(["default", STYLE]):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()
        figure.set_layout_engine("none")  # computed for every output anew, it moves by a hair
        return figure

    return wrapper


def png(figure: Figure, alt: str | None = None, dpi: float = DPI) -> bytes:
    """The figure as PNG: the alt text as its Description, no date and no version in it."""
    alt = alt or (figure.alt if isinstance(figure, Picture) else "")
    if not alt:
        raise ValueError(f"{figure} came without alt text; expected one: pass alt='what is seen'")
    out = io.BytesIO()
    with style.context(["default", STYLE]):
        figure.savefig(out, dpi=dpi, metadata={"Software": None, "Description": alt})
    return out.getvalue()


def _bundle(figure: Figure, alt: str) -> tuple[dict, dict]:
    data = {"image/png": base64.b64encode(png(figure, alt)).decode(), "text/plain": repr(figure)}
    width = round(figure.get_figwidth() * CSS_DPI)  # fewer than the pixels: sharp on fine screens
    return data, {"image/png": {"alt": alt, "width": width}}


def show(figure: Figure, alt: str | None = None) -> None:
    """Display a figure in a notebook with its alt text, and close it.

    Args:
        figure: one of this module; or any other, together with `alt`, what is seen on it.
    """
    from IPython.display import display  # the command line draws, too, and has no notebook
    from matplotlib import pyplot

    alt = alt or (figure.alt if isinstance(figure, Picture) else "")
    data, metadata = _bundle(figure, alt)
    display(data, metadata=metadata, raw=True)
    pyplot.close(figure)


def save(figure: Figure, path: str | Path, alt: str | None = None) -> Path:
    """Write a figure as PNG, its alt text inside; the same figure gives the same bytes."""
    path = Path(path)
    path.write_bytes(png(figure, alt))
    return path


def _many(number: float) -> str:
    """12345 -> '12 345'."""
    return f"{number:,.0f}".replace(",", " ")


def _title(trace: Trace, name: str) -> str:
    """`log_mel (B, M, F) = 1 x 80 x 590: loudness of ...`, all of it from the trace."""
    line, tensor = trace.stages[name].stage, trace[name]
    return f"{name} {line.shape} = {_sizes(tensor)}: {line.meaning}"


def _sizes(tensor: Tensor) -> str:
    return " x ".join(map(_many, tensor.shape))


def _duration(trace: Trace) -> float:
    """Seconds on every time axis: the clip, and the padding that fills its last embedding."""
    return trace.sizes["S"] / SAMPLE_RATE


# Sound -------------------------------------------------------------------------------------------


def _draw_waveform(axes: Axes, samples: np.ndarray, seconds: float) -> None:
    """Samples over time; `seconds` is where the clip ends and its padding begins."""
    duration = len(samples) / SAMPLE_RATE
    axes.plot(np.arange(len(samples)) / SAMPLE_RATE, samples, color=SOUND, linewidth=0.5)
    axes.axvspan(seconds, duration, color=PROMPT, linewidth=0)
    axes.set(xlim=(0, duration), xlabel="time in s", ylabel="amplitude")


@drawn
def waveform(source: Trace | Tensor) -> Picture:
    """The clip, 20 ms of it, and 2 ms of it, where single samples are seen.

    Args:
        source: a trace, or samples (S,) or (1, S) at 16 kHz.
    """
    whole = source["waveform"] if isinstance(source, Trace) else source
    samples = whole.detach().float().cpu().flatten().numpy()
    duration = len(samples) / SAMPLE_RATE
    seconds = source.seconds_of_audio if isinstance(source, Trace) else duration
    padding = f", then padding to {duration:.2f} s" if seconds < duration else ""
    facts = f"{seconds:.2f} s = {_many(seconds * SAMPLE_RATE)} samples{padding}"
    figure = Picture(figsize=(WIDTH, 4.4), layout="constrained")
    panels = figure.subplot_mosaic([["whole", "whole"], ["20 ms", "2 ms"]])
    _draw_waveform(panels["whole"], samples, seconds)
    panels["whole"].set_title(facts)
    loudest = int(np.abs(samples).argmax())
    panels["whole"].axvline(loudest / SAMPLE_RATE, color=MARK, linewidth=1)
    for name, length, size in (("20 ms", 320, 2), ("2 ms", 32, 6)):
        start = max(min(loudest - length // 2, len(samples) - length), 0)
        near = samples[start : start + length]
        milliseconds = np.arange(start, start + len(near)) / SAMPLE_RATE * 1000
        panels[name].plot(milliseconds, near, ".-", color=SOUND, linewidth=0.8, markersize=size)
        panels[name].set_title(f"{name} around the loudest sample: {len(near)} samples")
        panels[name].set(xlabel="time in ms", ylabel="amplitude")
    panels["2 ms"].vlines(milliseconds, 0, near, color=SOUND, linewidth=0.8)
    panels["2 ms"].axhline(0, color="black", linewidth=0.8)
    figure.alt = (
        f"Waveform: {facts}; values from {samples.min():.2f} to {samples.max():.2f}, the loudest at "
        f"{loudest / SAMPLE_RATE:.2f} s. Around it a zoom to 20 ms, a curve of 320 samples, and one "
        f"to 2 ms, {len(near)} single dots from {near.min():.2f} to {near.max():.2f}."
    )
    return figure


def _draw_cells(axes: Axes, rows: Tensor, duration: float, **options):
    """An image, one cell a number: averaging cells would hide the few loud ones among many."""
    extent = (0, duration, 0, len(rows))
    image = axes.imshow(
        rows, aspect="auto", origin="lower", interpolation="nearest", extent=extent, **options
    )
    axes.set(xlabel="time in s")
    return image


def _draw_log_mel(axes: Axes, trace: Trace, legend: bool = True) -> None:
    """Time by mel bin; the legend is a second scale in Hz and a colour bar."""
    mel = trace["log_mel"][0]
    image = _draw_cells(axes, mel, _duration(trace), cmap="magma")
    axes.set(ylabel="mel bin")
    if legend:
        # Whisper's M triangles have M + 2 corners, equally far apart on the mel scale, 0 to 8 kHz.
        hertz = np.array([250.0, 500.0, 1000.0, 2000.0, 4000.0])
        share = hertz_to_mel(hertz, "slaney") / hertz_to_mel(SAMPLE_RATE / 2, "slaney")
        scale = axes.secondary_yaxis("right")
        scale.set_yticks(share * (len(mel) + 1) - 0.5, labels=[f"{value:.0f} Hz" for value in hertz])
        axes.figure.colorbar(image, ax=axes, label="loudness\n(1 = 40 dB)", pad=0.01)


@drawn
def log_mel(trace: Trace) -> Picture:
    """The log-mel spectrogram: what the encoder hears, with its bins in Hz as well."""
    figure = Picture(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    _draw_log_mel(axes, trace)
    axes.set_title(_title(trace, "log_mel"))
    mel = trace["log_mel"][0]
    bins, frames = mel.shape
    figure.alt = (
        f"Log-mel spectrogram, {frames} frames of 10 ms over {_duration(trace):.2f} s by {bins} mel "
        f"bins from 0 to 8000 Hz. Values from {mel.min():.2f} (dark) to {mel.max():.2f} (bright); "
        f"the loudest frame is at {int(mel.mean(dim=0).argmax()) / 100:.2f} s."
    )
    return figure


# Embeddings --------------------------------------------------------------------------------------


def _draw_embeddings(axes: Axes, values: Tensor, duration: float, legend: bool = True) -> tuple:
    """Time by dimension; returns the limits of the colours."""
    # A few of Whisper's dimensions are ten times louder than all others, and would leave one colour.
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
    title = f"{title}: {_many(frames)} steps of {step}, {_many(width)} dimensions"
    axes.set_title(title)
    figure.alt = (
        f"{title}, {frames * seconds_per_frame:.2f} s in all. 98 of 100 activations lie between "
        f"{low:.3g} and {high:.3g}, which the colours span; the extremes are {values.min():.3g} and "
        f"{values.max():.3g}."
    )
    return figure


def _principal(points: Tensor) -> tuple[Tensor, Tensor]:
    """Points (N, D) on their two principal axes (N, 2), and the share of the variance on each."""
    centred = points - points.mean(dim=0)
    _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    # An axis has no direction of its own: its largest entry shall be positive, on every machine.
    signs = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    return centred @ (axes * signs)[:2].T, sizes[:2].square() / sizes.square().sum()


@drawn
def modality_gap(trace: Trace, model) -> Picture:
    """Do audio embeddings lie where the decoder's token embeddings do? A PCA, and their loudness.

    Args:
        model: the `ASRModel` of the trace.
    """
    frames, audio = trace["encoder_output"][0], trace["audio_embeddings"][0]
    table = model.decoder.token_embeddings.detach()
    tokens = table[:: -(-len(table) // GREATEST_TOKENS)].float().cpu()
    points, share = _principal(torch.cat([tokens, audio]))
    figure = Picture(figsize=(WIDTH, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    left.scatter(*points[: len(tokens)].T, 14, TEXT, "o", edgecolor="black", linewidth=0.3)
    left.scatter(*points[len(tokens) :].T, 22, AUDIO, "^", edgecolor="black", linewidth=0.3)
    left.legend([f"{len(tokens)} token embeddings", f"{len(audio)} audio embeddings"])
    left.set(xlabel=f"1st principal axis ({share[0]:.0%} of the variance)")
    left.set(ylabel=f"2nd principal axis ({share[1]:.0%})")
    left.set_title(f"after the projector: {audio.shape[1]} dimensions, as tokens have")
    groups = {"encoder frames": frames, "audio embeddings": audio, "token embeddings": tokens}
    loudness = [rows.square().mean(dim=1).sqrt() for rows in groups.values()]
    labels = [f"{name}\n({rows.shape[1]} dimensions)" for name, rows in groups.items()]
    boxes = right.boxplot(
        [values.numpy() for values in loudness], orientation="horizontal", patch_artist=True,
        tick_labels=labels, widths=0.5, whis=(0, 100), medianprops={"color": "black"},
    )
    for box, color in zip(boxes["boxes"], (ENCODER, AUDIO, TEXT), strict=True):
        box.set_facecolor(color)
    right.set(xscale="log", xlabel="root mean square of one embedding", ylim=(3.6, 0.4))
    right.set_title("loudness, before and after")
    apart = (tokens.mean(dim=0) - audio.mean(dim=0)).norm()
    spread = (tokens - tokens.mean(dim=0)).norm(dim=1).mean()
    figure.alt = (
        f"Left: {len(tokens)} token and {len(audio)} audio embeddings on two principal axes "
        f"({share[0]:.0%} and {share[1]:.0%} of the variance). The centres of the two clouds lie "
        f"{apart:.3g} apart, a token {spread:.3g} from its own centre on average. Encoder frames "
        f"cannot be there: they have {frames.shape[1]} dimensions, not {audio.shape[1]}. Right: the "
        f"median root mean square is {loudness[0].median():.3g} of encoder frames, "
        f"{loudness[1].median():.3g} of audio embeddings, {loudness[2].median():.3g} of tokens. "
        f"{trace.warning}"
    )
    figure.suptitle(trace.warning or "the modality gap")
    return figure


# From sound to text ------------------------------------------------------------------------------


def draw_panels(panels, trace: Trace, legend: bool = True) -> None:
    """Waveform, log-mel, encoder output and audio embeddings, on four axes of the same time."""
    _draw_waveform(panels[0], trace["waveform"][0].numpy(), trace.seconds_of_audio)
    _draw_log_mel(panels[1], trace, legend)
    for axes, name in zip(panels[2:], ("encoder_output", "audio_embeddings"), strict=True):
        _draw_embeddings(axes, trace[name][0], _duration(trace), legend)
    for axes in panels[:-1]:
        axes.set(xlabel="")
        axes.tick_params(labelbottom=False)


def decoder_parts(trace: Trace) -> dict[str, tuple[int, str]]:
    """What the decoder reads and writes, in order: name -> number of positions, colour."""
    prompt, audio = trace.sizes["P"], trace["audio_embeddings"][0]
    # The prompt's length before the audio, read off the tensor: where the first embedding lies.
    distance = (trace["decoder_input"][0, : prompt + 1] - audio[0]).norm(dim=1)
    before = int(distance.argmin())
    return {
        "prompt": (before, PROMPT),
        "audio embeddings": (len(audio), AUDIO),
        "rest of the prompt": (prompt - before, PROMPT),
        "written tokens": (trace["token_ids"].shape[1], TEXT),
    }


@lru_cache(maxsize=1)
def _drawable() -> frozenset[int]:
    return frozenset(get_font(findfont(MONOSPACE)).get_charmap())


def _legible(text: str) -> str:
    """The text with a box for every character that the font cannot draw."""
    return "".join(c if c.isprintable() and ord(c) in _drawable() else "\u25a1" for c in text)


@drawn
def journey(trace: Trace) -> Picture:
    """One page, from sound to text: four panels on one time axis, the decoder's input, the text."""
    figure = Picture(figsize=(8.27, 11.69), layout="constrained")  # A4
    *panels, strip, words = figure.subplots(6, 1, height_ratios=[1, 1.4, 1.6, 1.6, 0.3, 0.8])
    draw_panels(panels, trace)
    names = ["waveform", "log_mel", "encoder_output", "audio_embeddings"]
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(_title(trace, name))
    parts, left = decoder_parts(trace), 0
    for length, color in parts.values():
        strip.barh(0, length, left=left, color=color, edgecolor="black", linewidth=0.8)
        left += length
    strip.set(xlim=(0, left), yticks=[], xlabel="position in the decoder's sequence")
    strip.set_title(f"{_title(trace, 'decoder_input')}, and the text after it")
    words.axis("off")
    counts = [f"{length} {name}" for name, (length, _) in parts.items()]
    handles = [Patch(facecolor=color, edgecolor="black") for _, color in parts.values()]
    words.legend(handles, counts, loc="upper left", ncols=4, borderpad=0)
    text = textwrap.shorten(trace.text, 500, placeholder=f" ... ({len(trace.text)} characters)")
    lines = textwrap.wrap(f"text: {_legible(text) or '(nothing that can be seen)'}", 95)
    words.text(0, 0.66, trace.warning, color=MARK, weight="bold", va="top")
    words.text(0, 0.44 if trace.warning else 0.66, "\n".join(lines), fontsize=10, va="top")
    encoder, decoder = (trace.names[part].rsplit("/", 1)[-1] for part in ("encoder", "decoder"))
    figure.suptitle(f"{trace.seconds_of_audio:.2f} s of sound through {encoder} and {decoder}")
    figure.alt = (
        f"The journey of {trace.seconds_of_audio:.2f} s of sound, on one time axis: "
        f"{'; '.join(_title(trace, name) for name in names)}. Below, the decoder's sequence: "
        f"{', '.join(counts)}. {trace.warning} {lines[0]}"
    )
    return figure


def _draw_bar(axes: Axes, x: float, y: float, size: tuple, steps: int, color: str) -> None:
    """A bar of `steps` cells, all in inches; lines between cells where there is room for them."""
    width, height = size
    bar = Rectangle((x, y), width, height, facecolor=color, edgecolor="black", linewidth=0.7)
    axes.add_patch(bar)
    if width / steps > 0.025:
        edges = x + width / steps * np.arange(1, steps)
        axes.vlines(edges, y, y + height, color="black", linewidth=0.5)


@drawn
def shapes(trace: Trace) -> Picture:
    """The shape contract to scale: one bar a stage, as long as its time, as high as it is wide.

    Beside the whole clip stands the time of one audio embedding, where single steps can be seen.
    """
    n, parts = trace.sizes, decoder_parts(trace)
    read, written = n["P"] + n["A"], parts["written tokens"][0]
    positions = {"decoder_input": (0, read), "next_token_logits": (read - 1, 1)}
    positions["token_ids"] = (read, written)
    colors = {"waveform": SOUND, "log_mel": MEL, "audio_embeddings": AUDIO}
    highest = max(trace["stacked_frames"].shape[-1], n["llm_dim"])
    left, length, zoom, zoomed = 0.1, 6.0, 6.4, 1.8  # inches
    seconds, unit = _duration(trace) / n["A"], length / (read + written)
    figure = Picture(figsize=(WIDTH, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.text(left, 0.15, f"the whole clip: {_duration(trace):.2f} s", color=MARK)
    axes.text(zoom, 0.15, f"enlarged: {seconds * 1000:g} ms of it", color=MARK)
    y = 0.4
    for name, recorded in trace.stages.items():
        numbers = recorded.tensor.numel()
        time = [n[axis] for axis in recorded.stage.axes if axis in ("S", "F", "T", "A")]
        steps = time[0] if time else positions[name][1]
        height = min(max(0.9 * numbers / steps / highest, 0.05), 1.2)
        if name == "decoder_input":
            y = _draw_time(axes, left, y, length, trace)
            text = f"the decoder's positions, no longer times: {read} read, {written} written"
            axes.text(left, y, text, color=MARK)
            y += 0.28
        axes.text(left, y, f"{name} {recorded.stage.shape}", weight="bold")
        rate = f", {_many(numbers / _duration(trace))} numbers/s" if time else ""
        axes.text(zoom + zoomed, y, _sizes(recorded.tensor) + rate, ha="right")
        y += 0.07
        if time:
            color = colors.get(name, ENCODER)
            _draw_bar(axes, left, y, (length, height), steps, color)
            _draw_bar(axes, zoom, y, (zoomed, height), steps // n["A"], color)
        elif name == "decoder_input":
            x = left
            for count, color in list(parts.values())[:3]:
                _draw_bar(axes, x, y, (count * unit, height), max(count, 1), color)
                x += count * unit
        else:
            first, count = positions[name]
            _draw_bar(axes, left + first * unit, y, (count * unit, height), count, TEXT)
        y += height + 0.24
    figure.set_figheight(y)
    axes.set(xlim=(0, WIDTH), ylim=(y, 0))
    axes.axis("off")
    figure.alt = "1"
    return figure


def _draw_time(axes: Axes, x: float, y: float, length: float, trace: Trace) -> float:
    """A time axis under the bars; returns where to go on."""
    duration = _duration(trace)
    axes.hlines(y, x, x + length, color="black", linewidth=0.8)
    for second in range(0, int(duration) + 1, 1 if duration < 12 else 5):
        tick = x + second / duration * length
        axes.vlines(tick, y, y + 0.05, color="black", linewidth=0.8)
        axes.text(tick, y + 0.2, f"{second} s", ha="center")
    return y + 0.5
