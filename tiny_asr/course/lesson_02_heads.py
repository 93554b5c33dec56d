"""Notebook 02: where heads of attention look, what a faulty one looks like, and life without one.

A map of attention says where a head looks, not what for. So a guess about a head is made on one
clip and tested on another; and a head that matters is found by switching it off.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tiny_asr.audio import N_FFT
from tiny_asr.course.drawing import page, say, waves
from tiny_asr.course.lesson_02_layers import FRAME, GREENS, Heard, Words, distances
from tiny_asr.figures.style import MARK, SOUND, Picture, drawn
from tiny_asr.shapes import SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME


def hissing(waveform: Tensor, frames: int) -> Tensor:
    """Which of a clip's frames hiss, as an s does: (frames,) bool. More than half of such a frame's
    power lies above 3 kHz, and it is at most 40 dB softer than the clip's loudest."""
    reach = (N_FFT - SAMPLES_PER_ENCODER_FRAME) // 2
    size = frames * SAMPLES_PER_ENCODER_FRAME - len(waveform) + reach
    parts = F.pad(waveform, (reach, size)).unfold(0, N_FFT, SAMPLES_PER_ENCODER_FRAME)
    power = torch.fft.rfft(parts * torch.hann_window(N_FFT)).abs().square()
    high = torch.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE) > 3_000
    loud = power.sum(dim=1)
    return (power[:, high].sum(dim=1) > 0.5 * loud) & (loud > 1e-4 * loud.max())


def hiss_for_hiss(heard: Heard, hiss: Tensor) -> Tensor:
    """How much more than chance frames that hiss (T,) look at others that do: (layers, heads). Only
    frames more than 0.2 s apart count. 1 is what evenly spread weights give."""
    frames = torch.arange(len(hiss))
    far = (frames[:, None] - frames).abs() > 10
    asked = far[hiss].float()
    chance = asked[:, hiss].sum() / asked.sum()
    found = []
    for weights in heard.maps:
        there = weights[:, hiss] * asked
        found.append(there[:, :, hiss].sum(dim=(1, 2)) / there.sum(dim=(1, 2)) / chance)
    return torch.stack(found)


@drawn
def head_maps(heard: Heard, waveform: Tensor, chosen: dict[str, tuple[int, int]]) -> Picture:
    """Attention maps over a clip (S,), title -> (layer, head) from 0; hissing frames are marked."""
    frames = len(heard.layers[0])
    hiss, duration = hissing(waveform, frames), frames * FRAME
    figure, grid = page(3.9, 2, len(chosen), squeeze=False, height_ratios=[0.22, 1])
    facts = []
    for column, (title, (layer, head)) in zip(grid.T, chosen.items(), strict=True):
        wave, axes = column
        waves(wave, waveform, linewidth=0.3)
        wave.set(xlim=(0, duration), yticks=[], xticks=[])
        wave.set_title(f"{title}\nlayer {layer + 1}, head {head + 1}")
        weights = heard.maps[layer][head]
        top = float(np.percentile(weights.numpy(), 99.5))
        look = {"cmap": GREENS, "vmin": 0, "vmax": top, "extent": (0, duration, duration, 0)}
        axes.imshow(weights, interpolation="nearest", aspect="auto", **look)
        for frame in torch.where(hiss)[0].tolist():
            edge = [frame * FRAME, (frame + 1) * FRAME]
            axes.plot(edge, [0, 0], color=MARK, linewidth=5, solid_capstyle="butt")
            axes.plot([0, 0], edge, color=MARK, linewidth=5, solid_capstyle="butt")
            wave.axvspan(*edge, color=MARK, alpha=0.25, linewidth=0)
        axes.set(xlabel="looked at, s")
        far = distances(heard)[layer, head]
        more = hiss_for_hiss(heard, hiss)[layer, head] if hiss.any() else float("nan")
        facts.append(f"{title}: looks {far:.2f} s away on average, hiss at hiss {more:.1f} x")
    grid[1, 0].set(ylabel="frame that asks, s")
    figure.alt = (
        f"Attention maps of {frames} by {frames} frames under the waveform, {int(hiss.sum())} "
        f"hissing frames marked on their edges. {'. '.join(facts)} as much as chance."
    )
    return figure


@drawn
def hiss_curves(clips: dict[str, tuple[Heard, Tensor, Words]], layer: int, head: int) -> Picture:
    """Where a head's hissing frames look and where its others do, over the time of each clip. Layer
    and head count from 0; clips: title -> what was heard, the samples (S,), the words."""
    (figure, panels), facts = page(0.5 + 1.7 * len(clips), len(clips), 1, squeeze=False), []
    for axes, (title, (heard, waveform, words)) in zip(panels.flat, clips.items(), strict=True):
        weights = heard.maps[layer][head]
        hiss = hissing(waveform, len(weights))
        time = (np.arange(len(weights)) + 0.5) * FRAME
        look = {"color": MARK, "alpha": 0.2, "linewidth": 0}
        for frame in torch.where(hiss)[0].tolist():
            axes.axvspan(frame * FRAME, (frame + 1) * FRAME, **look)
        axes.plot(time, weights[hiss].mean(dim=0), color=MARK, label="hissing frames")
        axes.plot(time, weights[~hiss].mean(dim=0), color=SOUND, label="all other frames")
        axes.set(xlim=(0, len(weights) * FRAME), ylabel="weight", xlabel=f"{title}, time in s")
        say(axes, words)
        more = hiss_for_hiss(heard, hiss)[layer, head]
        facts.append(
            f"{title}: hissing frames put {weights[hiss][:, hiss].sum(1).mean():.0%} of their "
            f"weight on hissing frames, the others {weights[~hiss][:, hiss].sum(1).mean():.0%}; "
            f"beyond 0.2 s hiss gets {more:.1f} times what chance would give it"
        )
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.alt = (
        f"Layer {layer + 1}, head {head + 1}: two curves of attention weight over time, with the "
        f"hissing frames shaded. {'. '.join(facts)}."
    )
    return figure


@contextmanager
def without_heads(model, *heads: tuple[int, int]) -> Iterator[None]:
    """While the block runs, these heads, (layer, head) from 1, tell their frames nothing."""
    hooks = []
    for layer, head in heads:
        attention = model.encoder.whisper.layers[layer - 1].self_attn
        mine = slice((head - 1) * attention.head_dim, head * attention.head_dim)

        def silence(_, given, mine=mine):
            told = given[0].clone()
            told[..., mine] = 0
            return (told,)

        hooks.append(attention.out_proj.register_forward_pre_hook(silence))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# Three ways to get the weights of attention wrong (exercise 02-broken).
BROKEN = {
    "the first": lambda q, k: (q @ k.T).softmax(dim=1),
    "the second": lambda q, k: (q @ k.T / q.shape[1] ** 0.5).softmax(dim=0),
    "the third": lambda q, k: q @ k.T / q.shape[1] ** 0.5,
}
