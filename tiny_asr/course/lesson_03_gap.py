"""Notebook 03: is there a gap between sound and words, and does the projector bridge it?"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiny_asr.audio import load_audio
from tiny_asr.course.drawing import page, say, waves
from tiny_asr.course.lesson_02_layers import Words
from tiny_asr.course.story import read_out
from tiny_asr.decoder import token_loss
from tiny_asr.figures.plots import MOST_TOKENS, principal
from tiny_asr.figures.style import AUDIO, MEL, MONOSPACE, TEXT, Picture, drawn, seen
from tiny_asr.figures.tables import Table
from tiny_asr.projector import AudioProjector, stack_frames
from tiny_asr.shapes import SAMPLE_RATE

FRESH = "#7A7A7A"
NEIGHBOURS = 10
MOST_COLUMNS = 32  # audio embeddings that a page can hold as text


# Before and after --------------------------------------------------------------------------------


def fresh_projector(model) -> AudioProjector:
    """A projector that nobody has trained, with the weights that training begins with. The model
    stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        projector = AudioProjector(model.config)
    projector.set_output_scale(model.decoder.some_embeddings())
    return projector.to(model.device)


def cosines(vectors: Tensor, others: Tensor) -> Tensor:
    """Cosine of the angle between each two vectors: (N, D) and (M, D) -> (N, M), -1 to 1."""
    vectors, others = (F.normalize(each.float(), dim=1) for each in (vectors, others))
    return vectors @ others.T


def best_cosines(tokens: Tensor, clouds: dict[str, Tensor]) -> dict[str, Tensor]:
    """The cosine of each vector to its nearest token: of random directions, clouds, tokens. Tokens
    are (V, D), for each of them the nearest other one; clouds name -> vectors (N, D)."""
    noise = torch.randn(len(tokens), tokens.shape[1], generator=torch.Generator().manual_seed(0))
    clouds = {"random directions": noise} | clouds
    found = {name: cosines(cloud, tokens) for name, cloud in clouds.items()}
    found["tokens"] = cosines(tokens, tokens).fill_diagonal_(-1)
    return {name: each.max(dim=1).values for name, each in found.items()}


def gap_table(tokens: Tensor, clouds: dict[str, Tensor]) -> Table:
    """How each cloud (N, D) lies to the tokens (V, D): loudness, angles, neighbours."""
    best, rows = best_cosines(tokens, clouds), []
    for name, cloud in ({"tokens": tokens} | clouds).items():
        among = cosines(cloud, cloud).fill_diagonal_(-2)  # nobody is a neighbour of itself
        near = among if name == "tokens" else torch.cat([among, cosines(cloud, tokens)], dim=1)
        others = near.topk(NEIGHBOURS, dim=1).indices >= (0 if name == "tokens" else len(cloud))
        alike = (among.sum() + 2 * len(cloud)) / (len(cloud) * (len(cloud) - 1))
        rows.append(
            {
                "cloud": name,
                "median loudness (RMS)": f"{cloud.square().mean(dim=1).sqrt().median():.3f}",
                "cosine among themselves": f"{alike:.2f}",
                "cosine to the nearest token": f"{best[name].mean():.2f}",
                f"tokens among the {NEIGHBOURS} nearest": f"{others.sum(dim=1).float().mean():.1f}",
            }
        )
    return Table(rows)


@drawn
def clouds_view(tokens: Tensor, fresh: Tensor, trained: Tensor) -> Picture:
    """Tokens (V, D) and a clip's embeddings (A, D) in one projection (PCA), and how near."""
    shown = tokens[:: -(-len(tokens) // MOST_TOKENS)]
    points, share = principal(torch.cat([shown, fresh, trained]))
    clouds = {"fresh projector": fresh, "trained projector": trained}
    figure, (left, right) = page(4, 1, 2, width_ratios=[1.25, 1])
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


def lineup(audio_embeddings: Tensor, table: Tensor, tokens: Sequence[int]) -> list[tuple]:
    """For each token, where among the embeddings (A, D) it is nearest: its place and rank there.
    Rank 1 is the nearest of all tokens of the table (V, D)."""
    found = cosines(audio_embeddings, table)
    ranks = [(found > found[:, [token]]).sum(dim=1) + 1 for token in tokens]
    return [(int(rank.argmin()), int(rank.min())) for rank in ranks]


def learn_by_heart(
    model, projector, encoder_output: Tensor, labels: Tensor, steps: int, every: int
) -> Iterator[tuple[int, float, str | None]]:
    """Train a projector on one clip: (step, loss, what is written), every so many steps. AdamW as
    in `training.trainer` (learning rate 1e-3, no warm-up). Only the projector changes."""
    weights = [*projector.linear1.parameters(), *projector.linear2.parameters()]
    optimizer = torch.optim.AdamW(weights, 1e-3, betas=(0.9, 0.95), weight_decay=0)
    for step in range(steps + 1):
        embeddings = projector(encoder_output)
        loss = loss_of(model, embeddings, labels)
        if step % every == 0:
            yield step, loss.item(), read_out(model, embeddings.detach())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()


def finish(projector: AudioProjector, stacks: Tensor, norm: bool = True) -> Tensor:
    """What a projector makes of stacks (A, rate x encoder_dim): layer, bend, layer, norm."""
    out = projector.linear2(F.gelu(projector.linear1(stacks)))
    return projector.output_norm(out) if norm else out


def broken(projector: AudioProjector, frames: Tensor, rate: int) -> dict[str, Tensor]:
    """Audio embeddings (A, llm_dim) of frames (T, D) by three faulty projectors (03-broken)."""
    groups = frames.reshape(-1, rate, frames.shape[1])
    far = frames.reshape(rate, -1, frames.shape[1]).transpose(0, 1)
    return {
        "the first": finish(projector, groups.flip(1).flatten(1)),
        "the second": finish(projector, groups.flatten(1), norm=False),
        "the third": finish(projector, far.flatten(1)),
    }


@drawn
def nearest_along(model, audio, groups: dict[str, Tensor], words: Words = ()) -> Picture:
    """The three nearest tokens of each audio embedding, under the sound that it was made from.

    Args:
        audio: anything `load_audio` takes, at 16 kHz.
        groups: title -> audio embeddings (A, llm_dim) of this clip, of which 32 fit on a page.
    """
    size, table = model.config.samples_per_embedding, model.decoder.token_embeddings.detach()
    decode = model.processor.tokenizer.decode
    groups = {name: vectors[:MOST_COLUMNS] for name, vectors in groups.items()}
    columns = len(next(iter(groups.values())))
    edges = np.arange(columns + 1) * size / SAMPLE_RATE
    heights, facts = [0.4, *[1] * len(groups)], []
    look = {"sharex": True, "height_ratios": heights}
    figure, (wave, *panels) = page(1.2 + 2.2 * len(groups), len(heights), 1, **look)
    samples = load_audio(audio, SAMPLE_RATE)[: columns * size]
    waves(wave, samples)
    wave.set(yticks=[], xlim=(edges[0], edges[-1]))
    say(wave, words)
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
    figure, panels = page(3.4, 1, 2, width_ratios=[1.6, 1])
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


# The teacher's question --------------------------------------------------------------------------


def loss_of(model, audio_embeddings: Tensor, labels: Tensor) -> Tensor:
    """The training loss of one clip's audio embeddings (1, A, llm_dim) and targets (1, L)."""
    lengths = torch.tensor([audio_embeddings.shape[1]], device=model.device)
    return token_loss(model.decoder.text_logits(audio_embeddings, lengths, labels), labels)
