"""Notebook 04: how the decoder writes, watched from within: each function answers one question of
the lesson with a measurement on the real model, and the figures draw it.
"""

import json
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from matplotlib.colors import to_rgb
from torch import Tensor

from tiny_asr.audio import pad_batch
from tiny_asr.course.drawing import over_time, page, write_cells
from tiny_asr.course.lesson_02_layers import mel_of
from tiny_asr.figures.style import AUDIO, MARK, MONOSPACE, PROMPT, SOUND, TEXT, Picture, drawn, seen
from tiny_asr.shapes import HOP_LENGTH, SAMPLE_RATE

MOST_STEPS = 16  # columns that a page can hold
IN_ORDER = 0.9  # above it, a layer is said to move along the audio with the text
MAPS = {"aspect": "auto", "interpolation": "nearest"}


# Tokens ------------------------------------------------------------------------------------------


def merge_steps(tokenizer, word: str) -> list[str]:
    """How byte-pair encoding builds the pieces of a word: its bytes, then one merge a line. A space
    before the word belongs to it. The tokenizer is a byte-level one of `transformers`."""
    backend = tokenizer.backend_tokenizer
    pairs = json.loads(backend.to_str())["model"]["merges"]
    rank = {tuple(pair): place for place, pair in enumerate(pairs)}
    ((word, _),) = backend.pre_tokenizer.pre_tokenize_str(word)
    symbols, lines = list(word), []
    while True:
        lines.append("  ".join(symbols).replace("\u0120", "\u2423"))  # how it writes a space
        ranks = [rank.get(pair, len(rank)) for pair in pairwise(symbols)]
        if min(ranks, default=len(rank)) == len(rank):
            return lines
        place = ranks.index(min(ranks))
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]


def pieces_of(tokenizer, text: str) -> list[tuple[str, int]]:
    """(piece, id) of each token; a token that is only a part of a character as its bytes, `<C3>`. A
    byte-level tokenizer writes each byte as one symbol, so a token's length says how many it
    has."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    raw = (normalizer.normalize_str(text) if normalizer else text).encode()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    result, start = [], 0
    for token, number in zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True):
        part = raw[start : start + len(token)]
        start += len(token)
        try:
            result.append((seen(part.decode()), number))
        except UnicodeDecodeError:
            result.append(("".join(f"<{byte:02X}>" for byte in part), number))
    return result


def name_of(model, token: int) -> str:
    """A token as the figures show it: the end token as (end), a part of a character as a box."""
    end = token == model.decoder.end_id
    return "(end)" if end else seen(model.processor.tokenizer.decode(token))


# What is read ------------------------------------------------------------------------------------


@torch.no_grad()
def heard(model, clips: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Clips (S,) at 16 kHz -> audio embeddings (B, A, llm_dim), and each clip's own number (B,)."""
    padded, lengths = pad_batch(clips, model.config.samples_per_embedding)
    encoder_output, lengths = model.encode_batch(padded, lengths)
    return model.audio_projector(encoder_output, lengths), model.config.embeddings(lengths)


@torch.no_grad()
def nudges(model, embeddings: Tensor) -> Tensor:
    """How much each output of the decoder changes when one input is replaced by a strange vector.
    Inputs (1, N, llm_dim) -> (N, N) on the CPU: [i, j] is the change of output i, relative to its
    length, when input j is replaced."""
    length, width = embeddings.shape[1:]
    strange = torch.randn(width, generator=torch.Generator().manual_seed(0)).to(embeddings)
    strange *= embeddings[0].norm(dim=1).mean() / strange.norm()
    rows = embeddings.repeat(length + 1, 1, 1)  # the last row stays as it is
    rows[torch.arange(length), torch.arange(length)] = strange
    backbone = model.decoder.language_model.base_model
    outputs = backbone(inputs_embeds=rows, use_cache=False).last_hidden_state.float()
    change = (outputs[:-1] - outputs[-1:]).norm(dim=2) / outputs[-1].norm(dim=1)
    return change.T.cpu()


@drawn
def causal(parts: dict[str, int], changes: Tensor) -> Picture:
    """What the mask allows, and the changes (N, N) that were measured with `nudges`. The parts,
    name -> number of positions, are in order: prompt, audio, prompt, text."""
    length, edges = len(changes), np.cumsum([0, *parts.values()])
    figure, (left, right) = page(3.7, 1, 2)
    middles = edges[:-1] + np.diff(edges) / 2
    allowed, square = np.ones((length, length, 3)), (0, length, length, 0)
    for name, (start, stop) in zip(parts, pairwise(edges), strict=True):
        color = AUDIO if "audio" in name else TEXT if "text" in name else PROMPT
        allowed[:, start:stop] = to_rgb(color)
    allowed[np.triu_indices(length, 1)] = 1
    left.imshow(allowed, extent=square, interpolation="nearest")
    left.set(title="allowed: oneself, and what stands before", ylabel="the position that looks")
    change = changes.clamp(min=1e-4).log10().numpy()
    image = right.imshow(change, extent=square, interpolation="nearest", cmap="magma", vmax=0)
    bar = figure.colorbar(image, ax=[left, right], shrink=0.7, label="change of the output")
    bar.set_ticks([-4, -3, -2, -1, 0], labels=["none", "0.1 %", "1 %", "10 %", "100 %"])
    right.set(title="measured: one input replaced")
    for axes, what in ((left, "it looks at"), (right, "that was replaced")):
        axes.set(xlim=(0, length), ylim=(length, 0), aspect="equal")
        axes.set(xlabel=f"the position {what}")
        axes.set_xticks(middles, labels=parts, rotation=25, ha="right")
        axes.set_yticks(middles, labels=parts)
        axes.tick_params(length=0)
        for edge in edges[1:-1]:
            axes.axhline(edge, color="grey", linewidth=0.5)
            axes.axvline(edge, color="grey", linewidth=0.5)
    future = torch.ones_like(changes).triu(1).bool()
    counts = ", ".join(f"{count} {name}" for name, count in parts.items())
    figure.alt = (
        f"Two squares of {length} by {length} positions ({counts}). Left: the lower triangle is "
        f"filled, {int((~future).sum())} of {length**2} pairs: a position may look at itself and "
        "at what stands before it. Right, measured: replacing one input changes outputs before it "
        f"by {changes[future].max():.1%} at most, those from it on by "
        f"{changes[~future].median():.1%} in the median."
    )
    return figure


# The next token ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """What the decoder wrote for one clip, and what it might have written instead; on the CPU.

    tokens: (L,) ids, the end token included. names: the same, as the figures show them.
    probabilities: (L, V), of all tokens at each step.
    """

    tokens: Tensor
    names: list[str]
    probabilities: Tensor


@torch.no_grad()
def watch(model, clip: Tensor) -> Written:
    """Let the model write a clip (S,) at 16 kHz, greedily, and keep each step's probabilities."""
    tokens = model.generate([clip])[0]
    logits = model.decoder.text_logits(*heard(model, [clip]), tokens[None].to(model.device))
    names = [name_of(model, token) for token in tokens]
    return Written(tokens, names, logits[0].float().softmax(dim=-1).cpu())


@drawn
def every_step(model, written: Written) -> Picture:
    """All steps side by side (the first 16): ten candidates a column, the likeliest on top."""
    values, tokens = written.probabilities[:MOST_STEPS].topk(10)
    figure, axes = page(3.3)
    image = axes.imshow(values.T.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    longest = 100 // len(values)
    names = [[seen(name_of(model, token), longest) for token in rank] for rank in tokens.T]
    write_cells(axes, values.T, names, 0.6, family=MONOSPACE, size=7.5)
    axes.set(xlabel="step", ylabel="rank", xticks=range(len(values)))
    axes.set_yticks(range(10), labels=range(1, 11))
    figure.colorbar(image, ax=axes, label="probability", pad=0.01)
    best = (name_of(model, int(token)) for token in tokens[:, 0])
    facts = ", ".join(f"{n} {v:.0%}" for n, v in zip(best, values[:, 0], strict=True))
    figure.alt = f"Ten candidates at each of {len(values)} steps. The likeliest: {facts}."
    return figure


# Where it looks, and how surprised it is ---------------------------------------------------------


@torch.no_grad()
def gaze(model, audio_embeddings: Tensor, tokens: Tensor) -> Tensor:
    """How much attention each written token pays to each audio embedding, in each layer. Embeddings
    (1, A, llm_dim) and tokens (L,), the end included -> (layers, L, A) float32 on the CPU, the mean
    over the heads. Row l belongs to the position that predicts token l."""
    decoder, length = model.decoder, audio_embeddings.shape[1]
    text = tokens[None, :-1].to(model.device)
    lengths = torch.tensor([length], device=model.device)
    inputs = decoder.splice(audio_embeddings, lengths, text, torch.ones_like(text).bool())
    lm = decoder.language_model
    usual = lm.config._attn_implementation
    lm.set_attn_implementation("eager")  # the fast ones never hold the weights in one piece
    try:
        layers = lm(inputs_embeds=inputs.embeddings, output_attentions=True).attentions
    finally:
        lm.set_attn_implementation(usual)
    first, start = decoder.prompt_length + length - 1, decoder.prompt_before.shape[1]
    weights = torch.stack([layer[0].float().mean(dim=0).cpu() for layer in layers])
    return weights[:, first:, start : start + length]


def in_order(weights: Tensor) -> float:
    """Does the place most looked at, of weights (L, A), move on with the text? -1 to 1 (always).
    The correlation of place and token number without the end token; 0 where all look at one
    place."""
    places = weights[:-1].argmax(dim=1).double()
    if len(places) < 2 or places.std() == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack([places, torch.arange(len(places))]))[0, 1])


def following(weights: Tensor) -> list[int]:
    """The layers of weights (layers, L, A) that move along the audio; the best one if none does."""
    orders = [in_order(layer) for layer in weights]
    return [i for i, order in enumerate(orders) if order >= min(IN_ORDER, max(orders))]


@drawn
def alignment(model, clip: Tensor, written: Written, weights: Tensor) -> Picture:
    """The clip's (S,) spectrogram, the tokens where the decoder looks, and its weights (L, A)."""
    mel = mel_of(model, clip)[0].cpu()
    duration = mel.shape[1] * HOP_LENGTH / SAMPLE_RATE
    rows, columns = weights.shape
    places = ((weights.argmax(dim=1) + 0.5) * duration / columns).tolist()
    figure, (above, below) = page(5.2, 2, 1, sharex=True, height_ratios=[1, 1.6])
    over_time(above, mel, duration)
    below.imshow(weights.numpy(), extent=(0, duration, rows, 0), cmap="viridis", **MAPS)
    below.plot(places, np.arange(rows) + 0.5, "o", color=MARK, markersize=4)
    for row, (name, place) in enumerate(zip(written.names, places, strict=True)):
        height = len(mel) * (1.05 + 0.14 * (row % 3))  # neighbours would lie over each other
        above.text(place, height, name, ha="center", family=MONOSPACE, size=8)
    above.set(ylabel="mel bin", yticks=[0, len(mel)])
    below.set_yticks(np.arange(rows) + 0.5, labels=written.names, family=MONOSPACE)
    below.set(xlabel="time in s", ylabel="predicted token", xlim=(0, duration))
    facts = (f"{name} {place:.2f} s" for name, place in zip(written.names, places, strict=True))
    figure.alt = (
        f"Above the log-mel spectrogram of {duration:.2f} s, below how much each predicted token "
        f"looks at each {1000 * duration / columns:.0f} ms. Most of all at: {', '.join(facts)}."
    )
    return figure


@drawn
def surprises(names: list[str], rows: dict[str, Tensor]) -> Picture:
    """-ln of the probability of each true token, under several conditions: name -> (L,)."""
    figure, axes = page(2.8)
    looks = ((-0.2, PROMPT), (0.2, SOUND))
    for (label, values), (shift, color) in zip(rows.items(), looks, strict=True):
        edge = {"edgecolor": "black", "linewidth": 0.4, "label": label}
        axes.bar(np.arange(len(names)) + shift, values.numpy(), 0.4, color=color, **edge)
    axes.set_xticks(range(len(names)), labels=names, family=MONOSPACE, rotation=45, ha="right")
    axes.set(ylabel="surprise, -ln(probability)")
    axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    figure.alt = "The surprise at each token of the truth. " + "; ".join(
        f"{label}: " + ", ".join(f"{n} {v:.1f}" for n, v in zip(names, values, strict=True))
        for label, values in rows.items()
    )
    return figure
