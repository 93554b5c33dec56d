"""Notebook 02: what happens inside the encoder, from the mel to the last layer.

Which mel frames reach one encoder frame, what does a kernel answer to, how far does a head of
attention look, and at what? The layers are run one by one, as `AudioEncoder.forward` runs them, and
everything is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from ipywidgets import IntSlider
from matplotlib import colormaps
from torch import Tensor
from torch.nn import functional as F

from tiny_asr.audio import log_mel, pad_batch
from tiny_asr.course.drawing import over_time, page, say
from tiny_asr.course.explorers import Explorer
from tiny_asr.figures.style import ENCODER, MEL, PROMPT, WIDTH, Picture, drawn
from tiny_asr.shapes import SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME

FRAME = SAMPLES_PER_ENCODER_FRAME / SAMPLE_RATE  # seconds from one encoder frame to the next
MOST_MAPS = 6  # heads that a page can hold side by side
SHOWN = 64  # dimensions of a frame that can be told apart in a picture
Words = Sequence[tuple[str, float, float]]  # what is said, from when to when, in s
# Ten steps of each colour are told apart as well as a thousand, and take a third of the bytes.
GREENS, BOTH_WAYS = (colormaps[name].resampled(10) for name in ("Greens", "RdBu_r"))


# Layer by layer ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """One clip inside the encoder; float32 on the CPU.

    layers: frames (T, encoder_dim): what enters the first layer, what leaves each layer, and the
        encoder's output, which is the last layer's after a norm.
    maps: of each layer the attention weights (heads, T, T): a row is a frame that asks.
    """

    layers: list[Tensor]
    maps: list[Tensor]


def mel_of(model, waveform: Tensor, pad_to: int | None = None) -> Tensor:
    """The log-mel (1, M, F) of a clip (S,) at 16 kHz, padded to whole audio embeddings. `pad_to`
    pads to a multiple of so many samples instead; stock Whisper pads to 30 s."""
    padded, _ = pad_batch([waveform], pad_to or model.config.samples_per_embedding)
    return log_mel(padded.to(model.device), model.config.num_mel_bins)


def heads_of(layer, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys, values (heads, T, width of a head) of a layer that frames (T, D) enter."""
    attention, normed = layer.self_attn, layer.self_attn_layer_norm(frames)
    made = (project(normed) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
    return tuple(x.unflatten(1, (attention.num_heads, -1)).transpose(0, 1) for x in made)


@torch.no_grad()
def follow(model, waveform: Tensor) -> Heard:
    """Send a clip (S,) at 16 kHz through the encoder and keep what every layer does."""
    hidden, _ = model.encoder.embed(mel_of(model, waveform))
    layers, maps = [hidden], []
    for layer in model.encoder.whisper.layers:
        queries, keys, _ = heads_of(layer, hidden[0])
        fits = queries.float() @ keys.float().transpose(1, 2) / queries.shape[-1] ** 0.5
        maps.append(fits.softmax(dim=-1).cpu())
        hidden = layer(hidden, None)
        layers.append(hidden)
    layers.append(model.encoder.whisper.layer_norm(hidden))
    return Heard([layer[0].float().cpu() for layer in layers], maps)


@torch.no_grad()
def through(model, frames: Tensor) -> Tensor:
    """Send frames (1, T, D) through the layers and the last norm: (T, D)."""
    for layer in model.encoder.whisper.layers:
        frames = layer(frames, None)
    return model.encoder.whisper.layer_norm(frames)[0].float()


# Convolutions and positions ----------------------------------------------------------------------


@torch.no_grad()
def reached(model, frames: int = 12) -> tuple[Tensor, Tensor]:
    """Which mel frames reach which frames of the two convolutions: measured, not derived. Each mel
    frame of noise is disturbed in turn. Returns booleans (frames, frames) after the first
    convolution and (frames, frames / 2) after the second."""
    whisper = model.encoder.whisper
    noise = torch.randn(1, whisper.num_mel_bins, frames, generator=torch.Generator().manual_seed(0))
    disturbed = noise + 3 * torch.eye(frames)[:, None]  # one of the frames in each row
    both = torch.cat([noise, disturbed]).to(model.device, model.encoder.dtype)
    first = F.gelu(whisper.conv1(both))
    return tuple(
        (x[1:] - x[:1]).abs().amax(dim=1).cpu() > 0 for x in (first, F.gelu(whisper.conv2(first)))
    )


@drawn
def cone(model, frame: int = 3) -> Picture:
    """Twelve mel frames, the two convolutions over them, and all that reaches one encoder frame."""
    one, two = reached(model)
    into, near = torch.where(two[:, frame])[0], torch.where(two.any(dim=0))[0]
    figure, axes = page(2.6)
    seen = {2: set(into.tolist()), 1: set(), 0: {frame}}
    for mel, middle in torch.nonzero(one).tolist():
        # The second kernel is as wide as the first: it reads the frames around 2 x its own number.
        if abs(middle - 2 * frame) <= 1:
            seen[1].add(middle)
            axes.plot([middle, mel], [1.13, 1.87], color=MEL, linewidth=1)
    for middle in seen[1]:
        axes.plot([2 * frame, middle], [0.13, 0.87], color=ENCODER, linewidth=1)
    rows = {2: (range(len(one)), MEL), 1: (range(len(one)), PROMPT), 0: (2 * near, ENCODER)}
    for height, (places, color) in rows.items():
        for number, place in enumerate(map(int, places)):
            full = number in seen[height]
            look = {"facecolor": color if full else "white", "edgecolor": "black", "pad": 3.5}
            axes.text(place, height, f"{number:>2}", ha="center", va="center", bbox=look, size=8)
    names = {2: "mel frames\n(10 ms)", 1: "after conv 1\n(10 ms)", 0: "after conv 2\n(20 ms)"}
    axes.set_yticks(list(names), labels=list(names.values()))
    axes.set(xlim=(-0.7, len(one) - 0.3), ylim=(-0.35, 2.35), xticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.alt = (
        f"Three rows of numbered boxes: {len(one)} mel frames, {one.shape[1]} frames after the "
        f"first convolution, {two.shape[1]} after the second. Lines lead from frame {frame} of the "
        f"lowest row to frames {min(seen[1])} to {max(seen[1])} of the middle one, and from these "
        f"to mel frames {into.min()} to {into.max()}."
    )
    return figure


def telling(answers: Tensor, count: int = 4) -> list[int]:
    """The rows of (D, F) that vary most, each of them unlike those chosen before it."""
    centred = F.normalize(answers - answers.mean(dim=1, keepdim=True), dim=1)
    worth, chosen = answers.std(dim=1), []
    for _ in range(count):
        chosen.append(int(worth.argmax()))
        worth = worth * (1 - (centred @ centred[chosen[-1]]).abs()) ** 2
        worth[chosen[-1]] = -1
    return chosen


@drawn
def kernels(model, waveform: Tensor, words: Words = ()) -> Picture:
    """Four of the first convolution's kernels, and what each answers along a clip (S,)."""
    mel = mel_of(model, waveform)
    conv = model.encoder.whisper.conv1
    with torch.no_grad():
        answers = F.gelu(conv(mel.to(conv.weight.dtype)))[0].float().cpu()
    chosen, weights = telling(answers), conv.weight.detach().float().cpu()
    figure, grid = page(4.6, 5, 2, width_ratios=[1, 9], height_ratios=[1.7, 1, 1, 1, 1])
    duration = mel.shape[2] / 100
    over_time(grid[0, 1], mel[0].cpu(), duration)
    grid[0, 1].set(ylabel="mel bin")
    say(grid[0, 1], words)
    grid[0, 0].axis("off")
    peaks = []
    for number, (left, right) in zip(chosen, grid[1:], strict=True):
        limit = weights[number].abs().max()
        over_time(left, weights[number], 3, cmap="RdBu_r", vmin=-limit, vmax=limit)
        left.set(xticks=[], yticks=[])
        left.set_ylabel(f"no. {number}", rotation=0, ha="right", va="center")
        right.plot((np.arange(mel.shape[2]) + 0.5) / 100, answers[number], color=ENCODER)
        right.set(xlim=(0, duration), ylabel="answer")
        peaks.append(f"no. {number} at {int(answers[number].argmax()) / 100:.2f} s")
    for axes in grid[:-1, 1]:
        axes.tick_params(labelbottom=False)
    grid[1, 0].set_title("kernel", loc="center")
    grid[-1, 1].set(xlabel="time in s")
    figure.alt = (
        f"The log-mel picture of {duration:.2f} s, and below it four of the {len(weights)} kernels "
        f"of the first convolution, each {mel.shape[1]} bins by 3 frames, with its answer over "
        f"time. They answer most strongly at different moments: {', '.join(peaks)}."
    )
    return figure


@drawn
def positions_view(table: Tensor, frame: int = 50) -> Picture:
    """A position table (T, D) as a picture, and how alike one position is to all others."""
    table = table.detach().float().cpu()
    figure, (left, right) = page(3, 1, 2, width_ratios=[1.5, 1])
    image = left.imshow(table.T, aspect="auto", cmap="RdBu_r", interpolation="nearest")
    left.set(xlabel="encoder frame", ylabel="dimension")
    left.set_title(f"{table.shape[0]} positions of {table.shape[1]} numbers")
    left.axvline(frame, color="black", linewidth=0.8, linestyle="--")
    figure.colorbar(image, ax=left, pad=0.01)
    alike = F.cosine_similarity(table[frame : frame + 1], table, dim=1)
    right.plot(alike, color=ENCODER)
    right.set(xlabel="encoder frame", ylabel="cosine", ylim=(min(0, alike.min()) - 0.05, 1.05))
    right.set_title(f"how alike to position {frame}")
    figure.alt = (
        f"Left: sines above, cosines below, as stripes that are narrow in the first dimensions of "
        f"each half and ever wider after them. Right: the cosine of position {frame} to itself is "
        f"1, to its neighbour {alike[frame + 1]:.2f}, 10 frames on {alike[frame + 10]:.2f}, 50 "
        f"frames on {alike[min(frame + 50, len(alike) - 1)]:.2f}."
    )
    return figure


# Layers ------------------------------------------------------------------------------------------


def distances(heard: Heard) -> Tensor:
    """How far each head looks on average: (layers, heads), seconds."""
    frames = torch.arange(len(heard.layers[0]))
    apart = (frames[:, None] - frames).abs() * FRAME
    return torch.stack([(weights * apart).sum(dim=2).mean(dim=1) for weights in heard.maps])


@drawn
def layer_view(heard: Heard, words: Words, layer: int) -> Picture:
    """What leaves a layer (0: what enters the first): frames, their likeness, its heads' maps."""
    frames = heard.layers[layer]
    duration = len(frames) * FRAME
    maps = heard.maps[layer - 1][:MOST_MAPS] if 0 < layer <= len(heard.maps) else []
    figure = Picture(figsize=(WIDTH, 4.5 if len(maps) else 2.5), layout="constrained")
    ratios = [1.25, 1][: 1 + bool(len(maps))]
    rows = figure.subfigures(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
    left, right = rows[0].subplots(1, 2, width_ratios=[1.9, 1])
    # Some dimensions are always far from 0; what matters is how each changes along the clip.
    changes = (frames - frames.mean(dim=0)) / frames.std(dim=0).clamp(min=1e-6)
    few = changes[:, :SHOWN].T
    over_time(left, few, duration, cmap=BOTH_WAYS, vmin=-2.5, vmax=2.5)
    left.set(xlabel="time in s")
    left.set_ylabel(f"{len(few)} of {frames.shape[1]} dimensions")
    say(left, words)
    square = {"extent": (0, duration, duration, 0), "interpolation": "nearest"}
    right.imshow(likeness(frames), cmap=BOTH_WAYS, vmin=-1, vmax=1, **square)
    right.set(title=f"{_name(heard, layer)}: cosines", xlabel="time in s")
    for head, weights in enumerate(maps):
        axes = rows[1].add_subplot(1, len(maps), head + 1)
        most = float(np.percentile(weights.numpy(), 99.5))
        axes.imshow(weights, cmap=GREENS, vmin=0, vmax=most, **square)
        axes.set(title=f"head {head + 1}", xlabel="looked at, s")
    below = f", below them the attention maps of {len(maps)} heads" if len(maps) else ""
    figure.alt = f"{layer_words(heard, layer)} On the left their picture, on the right a square of "
    figure.alt += f"their likeness{below}."
    return figure


def likeness(frames: Tensor) -> Tensor:
    """Cosines between a clip's frames (T, D), its mean frame taken off first: (T, T)."""
    directions = F.normalize(frames - frames.mean(dim=0), dim=1)
    return directions @ directions.T


def _name(heard: Heard, layer: int) -> str:
    names = ["before layer 1", *(f"after layer {n + 1}" for n in range(len(heard.maps))), "output"]
    return names[layer]


def layer_words(heard: Heard, layer: int) -> str:
    """What `layer_view` shows of a layer, in words and numbers."""
    alike = likeness(heard.layers[layer])
    near, far = (alike.diagonal(n).mean() for n in (1, 25))
    words = f"{_name(heard, layer)}: {len(alike)} frames of {heard.layers[layer].shape[1]} numbers."
    words += f" Cosine of neighbours {near:.2f}, of frames 0.5 s apart {far:.2f} on average."
    if 0 < layer <= len(heard.maps):
        each = distances(heard)[layer - 1][:MOST_MAPS].tolist()
        words += f" The heads look {', '.join(f'{far:.2f}' for far in each)} s away."
    return words[0].upper() + words[1:]


def explore_layers(heard: Heard, words: Words = ()) -> Explorer:
    """A slider over the layers of a clip: its frames, their likeness, the heads' maps."""
    options = {"description": "layer", "continuous_update": False}
    slider = IntSlider(value=1, min=0, max=len(heard.layers) - 1, **options)
    draw, explain = partial(layer_view, heard, words), partial(layer_words, heard)
    return Explorer("explore_layers", slider, draw=draw, explain=explain)
