"""Notebook 03: is there a gap between sound and words, and does the projector bridge it?

The notebook sends one clip through a fresh projector and through the trained one. This module
compares what comes out with the decoder's token embeddings, measures what loudness does to loss and
gradient, and counts what another `audio_downsample_rate` would cost.
"""

import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from ipywidgets import IntSlider
from torch import Tensor, nn
from torch.nn import functional as F

from tiny_asr.audio import load_audio
from tiny_asr.course.explorers import RATES, Explorer
from tiny_asr.decoder import token_loss
from tiny_asr.figures.plots import MOST_TOKENS, principal
from tiny_asr.figures.style import (
    AUDIO,
    ENCODER,
    MARK,
    MEL,
    MONOSPACE,
    PROMPT,
    SOUND,
    TEXT,
    WIDTH,
    Picture,
    drawn,
    many,
    seen,
)
from tiny_asr.figures.tables import Table
from tiny_asr.projector import AudioProjector, stack_frames
from tiny_asr.shapes import SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME

FRESH = "#7A7A7A"
NEIGHBOURS = 10
MOST_COLUMNS = 32  # audio embeddings that a page can hold as text


# Before and after --------------------------------------------------------------------------------


def fresh_projector(model, output_norm: bool = True) -> AudioProjector:
    """A projector that nobody has trained, with the weights that training begins with.

    Args:
        model: an `ASRModel`; it stays as it is.
        output_norm: False leaves out the RMS norm at its end ("raw").
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        projector = AudioProjector(model.config)
    projector.set_output_scale(model.decoder.some_embeddings())
    if not output_norm:
        projector.output_norm = nn.Identity()
    return projector.to(model.device)


def write(model, audio_embeddings: Tensor) -> str:
    """What the decoder writes (greedily) for the audio embeddings (1, A, llm_dim) of one clip."""
    lengths = torch.tensor([audio_embeddings.shape[1]], device=model.device)
    tokens = model.decoder.write(audio_embeddings.to(model.device), lengths)
    return model.processor.decode([int(token) for token in tokens])


def cosines(vectors: Tensor, others: Tensor) -> Tensor:
    """Cosine of the angle between each two vectors: (N, D) and (M, D) -> (N, M), -1 to 1."""
    vectors, others = (F.normalize(each.float(), dim=1) for each in (vectors, others))
    return vectors @ others.T


def best_cosines(tokens: Tensor, clouds: dict[str, Tensor]) -> dict[str, Tensor]:
    """The cosine of each vector to its nearest token: of random directions, clouds, tokens.

    Args:
        tokens: embeddings (V, D); for each of them, the nearest other one.
        clouds: name -> vectors (N, D).
    """
    noise = torch.randn(len(tokens), tokens.shape[1], generator=torch.Generator().manual_seed(0))
    clouds = {"random directions": noise} | clouds
    found = {name: cosines(cloud, tokens) for name, cloud in clouds.items()}
    found["tokens"] = cosines(tokens, tokens).fill_diagonal_(-1)
    return {name: each.max(dim=1).values for name, each in found.items()}


def gap_table(tokens: Tensor, clouds: dict[str, Tensor]) -> Table:
    """How each cloud lies to the token embeddings: loudness, distance, angles, neighbours.

    Args:
        tokens: embeddings (V, D). clouds: name -> vectors (N, D).
    """
    best, rows = best_cosines(tokens, clouds), []
    for name, cloud in ({"tokens": tokens} | clouds).items():
        apart = (cloud.mean(dim=0) - tokens.mean(dim=0)).norm()
        among = cosines(cloud, cloud).fill_diagonal_(-2)  # nobody is a neighbour of itself
        near = among if name == "tokens" else torch.cat([among, cosines(cloud, tokens)], dim=1)
        others = near.topk(NEIGHBOURS, dim=1).indices >= (0 if name == "tokens" else len(cloud))
        alike = (among.sum() + 2 * len(cloud)) / (len(cloud) * (len(cloud) - 1))
        rows.append(
            {
                "cloud": name,
                "median loudness (RMS)": f"{cloud.square().mean(dim=1).sqrt().median():.3f}",
                "distance of centres": f"{apart:.2f}",
                "cosine among themselves": f"{alike:.2f}",
                "cosine to the nearest token": f"{best[name].mean():.2f}",
                f"tokens among the {NEIGHBOURS} nearest": f"{others.sum(dim=1).float().mean():.1f}",
            }
        )
    return Table(rows)


@drawn
def clouds_view(tokens: Tensor, fresh: Tensor, trained: Tensor) -> Picture:
    """All vectors in one projection (PCA), and how near each is to its nearest token.

    Args:
        tokens: embeddings (V, D). fresh, trained: audio embeddings (A, D) of one clip.
    """
    shown = tokens[:: -(-len(tokens) // MOST_TOKENS)]
    points, share = principal(torch.cat([shown, fresh, trained]))
    clouds = {"fresh projector": fresh, "trained projector": trained}
    figure = Picture(figsize=(WIDTH, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    parts = points.split([len(shown), len(fresh), len(trained)])
    looks = ((14, TEXT, "o"), (24, FRESH, "s"), (28, AUDIO, "^"))
    for part, name, (size, color, marker) in zip(parts, ("tokens", *clouds), looks, strict=True):
        edge = {"edgecolor": "black", "linewidth": 0.3, "label": name}
        left.scatter(*part.T.numpy(), size, color, marker=marker, **edge)
    left.set_aspect("equal", "datalim")
    left.set(xlabel=f"1st principal axis ({share[0]:.0%} of the variance)")
    left.set(ylabel=f"2nd principal axis ({share[1]:.0%})")
    left.set_title(f"{tokens.shape[1]} dimensions, seen in 2")
    left.legend(loc="best", borderpad=0)
    best = best_cosines(tokens, clouds)
    for place, (name, color) in enumerate(zip(best, (MEL, FRESH, AUDIO, TEXT), strict=True)):
        height = np.linspace(place - 0.3, place + 0.3, len(best[name]))
        right.scatter(best[name].numpy(), height, 7, color)
        mean = best[name].mean().item()
        right.plot([mean, mean], [place - 0.4, place + 0.4], color="black", linewidth=1)
    right.set_yticks(range(4), labels=[name.replace(" ", "\n") for name in best])
    right.set(ylim=(3.6, -0.6), xlabel="cosine to the nearest (other) token; line: mean")
    right.set_title("do they point at a token?")
    centre = tokens.mean(dim=0)
    facts = ", ".join(f"{name} {each.mean():.2f}" for name, each in best.items())
    figure.alt = (
        f"Left: {len(shown)} tokens and {len(fresh)} audio embeddings of one clip, before and "
        f"after training, on two principal axes ({share[0]:.0%} and {share[1]:.0%} of the "
        f"variance). From the tokens' centre it is {(fresh.mean(0) - centre).norm():.2f} to that "
        f"of the fresh cloud and {(trained.mean(0) - centre).norm():.2f} to that of the trained "
        f"one. Right: the mean cosine to the nearest token: {facts}."
    )
    return figure


@drawn
def nearest_along(model, audio, groups: dict[str, Tensor], start: float = 0.0) -> Picture:
    """The three nearest tokens of each audio embedding, under the sound that it was made from.

    Args:
        audio: anything `load_audio` takes, at 16 kHz.
        groups: title -> audio embeddings (A, llm_dim) of this clip.
        start: seconds; a page holds the 32 embeddings from there.
    """
    size, table = model.config.samples_per_embedding, model.decoder.token_embeddings.detach()
    decode = model.processor.tokenizer.decode
    first = int(start * SAMPLE_RATE) // size
    groups = {name: vectors[first : first + MOST_COLUMNS] for name, vectors in groups.items()}
    columns = len(next(iter(groups.values())))
    edges = (first + np.arange(columns + 1)) * size / SAMPLE_RATE
    figure = Picture(figsize=(WIDTH, 0.9 + 1.75 * len(groups)), layout="constrained")
    heights, facts = [0.4, *[1] * len(groups)], []
    wave, *panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    part = load_audio(audio, SAMPLE_RATE)[first * size : (first + columns) * size].numpy()
    wave.plot(edges[0] + np.arange(len(part)) / SAMPLE_RATE, part, color=SOUND, linewidth=0.5)
    wave.set(yticks=[], xlim=(edges[0], edges[-1]))
    for axes, (name, vectors) in zip(panels, groups.items(), strict=True):
        values, ids = cosines(vectors, table.float().cpu()).topk(3, dim=1)
        look = {"cmap": "YlOrBr", "vmin": 0, "vmax": 0.7, "aspect": "auto"}
        image = axes.imshow(values.T.numpy(), extent=(edges[0], edges[-1], 3, 0), **look)
        words = [[seen(decode(token), longest=7) for token in row] for row in ids]
        look = {"rotation": 90, "size": 7.5, "family": MONOSPACE, "ha": "center", "va": "center"}
        for column, rank in np.ndindex(columns, 3):
            color = "white" if values[column, rank] > 0.5 else "black"
            place = edges[column : column + 2].mean(), rank + 0.5
            axes.text(*place, words[column][rank], color=color, **look)
        axes.set_yticks([0.5, 1.5, 2.5], labels=["1st", "2nd", "3rd"])
        axes.tick_params(length=0)
        axes.set_title(f"{name}: nearest tokens")
        listed = " ".join(row[0] for row in words)
        facts.append(f"{name}: mean cosine {values[:, 0].mean():.2f}, nearest tokens {listed}")
    panels[-1].set(xlabel="time in s")
    figure.colorbar(image, ax=panels, label="cosine", pad=0.01)
    figure.alt = (
        f"{columns} audio embeddings from {edges[0]:.1f} to {edges[-1]:.1f} s under their "
        f"waveform, each with its three nearest tokens. {'. '.join(facts)}."
    )
    return figure


@drawn
def stacking(encoder_output: Tensor, rate: int) -> Picture:
    """The first two stacks of an encoder output (1, T, D), beside the frames that they hold."""
    frames = encoder_output[0, : 2 * rate].detach().float().cpu()
    stacks, dim = stack_frames(frames[None], rate)[0], frames.shape[1]
    limit = 3 * frames.std().item()
    figure = Picture(figsize=(WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=[1.6, 1])
    for axes, values in zip(panels, (frames, stacks), strict=True):
        count, height = values.shape
        look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "aspect": "auto"}
        axes.imshow(values.T.numpy(), extent=(0, count, height, 0), interpolation="nearest", **look)
        axes.axvline(count / 2, color="black", linewidth=2)
        axes.set(xticks=np.arange(count) + 0.5, yticks=range(0, height + 1, dim))
        axes.set(xticklabels=range(count), ylabel="number in the column")
    panels[0].set(xlabel="encoder frame", title=f"{2 * rate} frames of {dim}, 20 ms each")
    panels[1].set(xlabel="stack", title=f"2 stacks of {rate * dim}, {20 * rate} ms each")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    for stack, part in np.ndindex(2, rate):
        panels[1].axhline(part * dim, color="black", linewidth=0.8)
        place, words = (stack + 0.5, (part + 0.5) * dim), f"frame {stack * rate + part}"
        panels[1].text(*place, words, ha="center", va="center", bbox=box)
    figure.alt = (
        f"Left: {2 * rate} columns, the first encoder frames, of {dim} numbers each. Right: the "
        f"same numbers as 2 columns of {rate * dim}: stack 0 holds frames 0 to {rate - 1} one "
        f"below the other, stack 1 frames {rate} to {2 * rate - 1}."
    )
    return figure


# Loudness ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """What one forward and backward pass gave.

    loudness: RMS of the audio embeddings. loss: mean over the target tokens.
    at_embeddings, at_weights: length of the gradient at the audio embeddings, and at the weights of
    the projector's two linear layers.
    """

    loudness: float
    loss: float
    at_embeddings: float
    at_weights: float


def loss_of(model, audio_embeddings: Tensor, labels: Tensor) -> Tensor:
    """The training loss of one clip's audio embeddings (1, A, llm_dim) and targets (1, L)."""
    lengths = torch.tensor([audio_embeddings.shape[1]], device=model.device)
    return token_loss(model.decoder.text_logits(audio_embeddings, lengths, labels), labels)


def one_pass(model, projector, encoder_output: Tensor, labels: Tensor, scale: float = 1.0) -> Pass:
    """One clip forward and backward, its audio embeddings made `scale` times as loud.

    Nothing is learnt: the gradients are only measured.
    """
    embeddings = scale * projector(encoder_output)
    loss = loss_of(model, embeddings, labels)
    weights = [*projector.linear1.parameters(), *projector.linear2.parameters()]
    gradient, *gradients = torch.autograd.grad(loss, [embeddings, *weights])
    at_weights = torch.cat([each.flatten() for each in gradients]).norm().item()
    loudness = embeddings.detach().square().mean().sqrt().item()
    return Pass(loudness, loss.item(), gradient.norm().item(), at_weights)


def few_steps(
    model, projector, encoder_output: Tensor, labels: Tensor, scale: float, steps: int = 20
) -> list[float]:
    """The losses of some training steps on one clip, its audio embeddings `scale` times as loud.

    AdamW as in `training.trainer` (learning rate 1e-3, no warm-up), on a copy of the projector.
    """
    projector, losses = copy.deepcopy(projector), []
    weights = [*projector.linear1.parameters(), *projector.linear2.parameters()]
    optimizer = torch.optim.AdamW(weights, 1e-3, betas=(0.9, 0.95), weight_decay=0)
    for _ in range(steps):
        loss = loss_of(model, scale * projector(encoder_output), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@drawn
def loudness_view(model, passes: dict[str, list[Pass]]) -> Picture:
    """Loss and gradient against the loudness of the audio embeddings.

    Args:
        passes: of the fresh and of the trained projector, the quietest first.
    """
    tokens = model.decoder.some_embeddings().float().square().mean().sqrt().item()
    floor = model.decoder.language_model.config.rms_norm_eps**0.5
    blind = float(np.log(model.config.vocab_size))
    figure, facts = Picture(figsize=(WIDTH, 3.7), layout="constrained"), []
    left, right = figure.subplots(1, 2)
    for (name, row), color in zip(passes.items(), (FRESH, AUDIO), strict=True):
        loudness = [each.loudness for each in row]
        left.plot(loudness, [p.loss for p in row], "o-", color=color, label=name, markersize=4)
        right.plot(loudness, [p.at_weights for p in row], "o-", color=color, markersize=4)
        facts += [f"{name} at {p.loudness:.2g}: {p.loss:.2f}, {p.at_weights:.2g}" for p in row[::3]]
    left.axhline(blind, color="black", linewidth=0.8, linestyle=":", label="a blind guess, ln V")
    left.set(title="loss on the sentence", ylim=(0, None))
    right.set(title="gradient at the projector's weights", yscale="log")
    for axes in (left, right):
        axes.axvline(tokens, color=TEXT, linewidth=2, label="as loud as the tokens")
        axes.axvline(floor, color=MARK, linestyle="--", label="the decoder's norm: sqrt(eps)")
        axes.set(xscale="log", xlabel="loudness (RMS) of the audio embeddings")
    for axis in (left.xaxis, right.xaxis, right.yaxis):
        axis.set_major_formatter("{x:g}")
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5, fontsize=8)
    figure.alt = (
        f"Loss and gradient against the loudness of audio embeddings. Tokens have {tokens:.3g}, "
        f"the root of the decoder norm's eps is {floor:.3g}, a blind guess costs {blind:.2f}. Loss "
        f"and gradient: {'; '.join(facts)}."
    )
    return figure


# How many frames in one embedding? ---------------------------------------------------------------


def rate_cost(model, samples: int, text_tokens: int, rate: int) -> dict[str, int]:
    """What an audio_downsample_rate means for one clip: counted, nothing is trained.

    Args:
        samples: the clip's length at 16 kHz. text_tokens: L.
    Returns:
        `A`; `positions` (prompt, audio, text) that the decoder reads; its `flops`, 2 for each
        position and each parameter outside the token table; `parameters` of the projector.
    """
    lm, config = model.decoder.language_model, model.config
    layers = sum(p.numel() for p in lm.parameters()) - lm.get_input_embeddings().weight.numel()
    embeddings = -(-samples // (rate * SAMPLES_PER_ENCODER_FRAME))
    positions = model.decoder.prompt_length + embeddings + text_tokens
    hidden, out = config.projector_hidden_dim, config.llm_dim
    parameters = (rate * config.encoder_dim + 1) * hidden + (hidden + 1) * out
    return {
        "A": embeddings,
        "positions": positions,
        "flops": 2 * layers * positions,
        "parameters": parameters + (out if config.projector_output_norm else 0),
    }


@drawn
def rate_view(model, audio, text_tokens: int, rate: int) -> Picture:
    """The clip cut as a rate cuts it, and what each rate from 1 to 10 costs; one is picked out."""
    samples = load_audio(audio, SAMPLE_RATE).numpy()
    rows = [rate_cost(model, len(samples), text_tokens, each) for each in RATES]
    figure = Picture(figsize=(WIDTH, 4.2), layout="constrained")
    panels = figure.subplot_mosaic([["cut", "cut"], ["read", "size"]], height_ratios=[0.7, 1])
    cut, read, size = panels["cut"], panels["read"], panels["size"]
    cut.plot(np.arange(len(samples)) / SAMPLE_RATE, samples, color=SOUND, linewidth=0.5)
    step, count = rate * SAMPLES_PER_ENCODER_FRAME / SAMPLE_RATE, rows[rate - RATES[0]]["A"]
    for place in range(1, count, 2):
        cut.axvspan(place * step, (place + 1) * step, color=AUDIO, alpha=0.35, linewidth=0)
    cut.set(xlim=(0, count * step), yticks=[], xlabel="time in s")
    cut.set_title(f"rate {rate}: {count} audio embeddings of {1000 * step:.0f} ms")
    audio_positions, prompt = np.array([row["A"] for row in rows]), model.decoder.prompt_length
    below = {"prompt": 0, "audio": prompt, "text": prompt + audio_positions}
    heights = {"prompt": prompt, "audio": audio_positions, "text": text_tokens}
    for (name, height), color in zip(heights.items(), (PROMPT, AUDIO, TEXT), strict=True):
        bars = read.bar(RATES, height, bottom=below[name], color=color, label=name)
    positions = [str(row["positions"]) for row in rows]
    read.bar_label(bars, positions, fontsize=8)
    read.set(title="positions that the decoder reads")
    read.legend(loc="upper right", fontsize=8, frameon=True, framealpha=1, edgecolor="none")
    millions = [row["parameters"] / 1e6 for row in rows]
    labels = [f"{number:.1f}" for number in millions]
    size.bar_label(size.bar(RATES, millions, color=ENCODER), labels, fontsize=8)
    size.set(title="parameters of the projector, millions")
    for axes in (read, size):
        axes.set(xticks=RATES, yticks=[], xlabel="audio_downsample_rate")
        axes.spines["left"].set_visible(False)
        axes.axvspan(rate - 0.5, rate + 0.5, fill=False, edgecolor=MARK, linewidth=1.5)
    figure.alt = (
        f"Above, {len(samples) / SAMPLE_RATE:.2f} s of sound, cut into {count} pieces of "
        f"{1000 * step:.0f} ms, rate {rate}. Below, for rates 1 to 10: the decoder's positions, "
        f"{', '.join(positions)}; the projector's parameters in millions, {', '.join(labels)}."
    )
    return figure


def explore_rate(model, audio, text_tokens: int) -> Explorer:
    """A slider over audio_downsample_rate: the clip as it is cut, length and cost."""
    samples, own = len(load_audio(audio, SAMPLE_RATE)), model.config.audio_downsample_rate

    def explain(rate: int) -> str:
        cost = rate_cost(model, samples, text_tokens, rate)
        return (
            f"{rate} frames of 20 ms in each audio embedding: {cost['A']} embeddings for "
            f"{text_tokens} tokens of text, {cost['positions']} positions, "
            f"{cost['flops'] / 1e9:.2f} GFLOP in the decoder, a projector of "
            f"{many(cost['parameters'])} parameters. This model was made for {own}."
        )

    name = "audio_downsample_rate"
    slider = IntSlider(value=own, min=RATES[0], max=RATES[-1], description=name)
    draw = partial(rate_view, model, audio, text_tokens)
    return Explorer("explore_rate", slider, draw, explain)
