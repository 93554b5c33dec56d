"""The figures of notebook 05: the loss, what is written as it falls, the mask, the buckets.

They are drawn from a run's own log, and from what `lesson_05_runs.Watch` saw along the way.
"""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from tiny_asr.course.drawing import page
from tiny_asr.course.lesson_03_gap import cosines
from tiny_asr.course.lesson_05_runs import Watch, shortened
from tiny_asr.data.batches import make_batches
from tiny_asr.data.dataset import SpeechData
from tiny_asr.figures.diagrams import cell, finish, sheet
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
    legible,
    many,
    seen,
)
from tiny_asr.model import ASRModel
from tiny_asr.shapes import SAMPLE_RATE
from tiny_asr.training.settings import TrainingSettings, learning_rate_at

SAME_SPOT = 0.95  # cosine of two tokens
HIGHEST_LOSS = 9.0  # that a picture shows: guessing among 2048 tokens is 7.6
# Eight runs that stay apart in colour and, printed in grey, mostly in kind of line.
COLORS = (SOUND, MARK, ENCODER, MEL, AUDIO, TEXT, "#7A7A7A", "black")
LINES = ("-", "--", "-.", ":", "-", "--", "-.", ":")


@drawn
def loss_curves(runs: dict[str, list[dict]], title: str, log_x: bool = False) -> Picture:
    """The training loss against the utterances heard: name -> rows of `read_log`."""
    figure, axes = page(3.2)
    facts = []
    for (name, rows), color, line in zip(runs.items(), cycle(COLORS), cycle(LINES)):
        heard, loss = _curve(rows)
        axes.plot(heard, loss, color=color, linestyle=line, label=name, linewidth=1.4)
        if len(heard):
            ends = (f"{loss[i]:.2f} at {many(heard[i])}" for i in (0, -1))
            facts.append(f"{name}: {', '.join(ends)}")
    axes.set(xlabel="utterances heard", ylabel="loss a token", title=title)
    axes.set(ylim=(0, min(HIGHEST_LOSS, axes.get_ylim()[1])))
    if log_x:
        axes.set(xscale="log")
    axes.xaxis.set_major_formatter(lambda value, _: many(value))
    if len(runs) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.alt = f"{title}. Loss against utterances heard. {'; '.join(facts)}."
    return figure


def _curve(rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Utterances and losses of a log, those that are finite."""
    pairs = [(r["utterances"], r["loss"]) for r in rows if r["loss"] is not None]
    pairs = np.array([p for p in pairs if np.isfinite(p[1])]).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


@drawn
def from_gibberish_to_text(rows: list[dict], watch: Watch, count: int = 8) -> Picture:
    """A run's loss, and below it what the watched clip's transcript was at numbered moments."""
    chosen = [shot for shot in watch.some(count + 1) if shot.utterances > 0][:count]
    figure, (axes, words) = page(
        2.9 + 0.2 * len(chosen), 2, 1, height_ratios=[2.8, 0.2 * len(chosen)]
    )
    axes.plot(*_curve(rows), color=SOUND)
    words.axis("off")
    words.set(ylim=(len(chosen), 0), xlim=(0, 1))
    options = {"ha": "center", "va": "center", "color": "white", "size": 8, "weight": "bold"}
    for number, shot in enumerate(chosen, start=1):
        axes.plot(shot.utterances, shot.loss, "o", color=MARK, markersize=11)
        axes.annotate(str(number), (shot.utterances, shot.loss), **options)
        line = f"{number}  {many(shot.utterances):>6}  {legible(shortened(shot.text))}"
        words.text(0.02, number - 0.5, line, family=MONOSPACE, va="center")
    axes.set(xlabel="utterances heard", ylabel="loss a token", ylim=(0, None))
    axes.set_title("the loss, and what the clip's transcript was at the numbered moments")
    said = "; ".join(f'{many(s.utterances)}: {s.loss:.2f}, "{shortened(s.text)}"' for s in chosen)
    figure.alt = f"Loss against utterances heard, with the transcript of one clip. At {said}."
    return figure


def _tokens(model: ASRModel) -> Tensor:
    """Some token embeddings (N, llm_dim), without those that lie in one spot: they never occur."""
    table = model.decoder.some_embeddings(MOST_TOKENS).float().cpu()
    return table[cosines(table, table).fill_diagonal_(-1).amax(dim=1) < SAME_SPOT]


@drawn
def moving(watch: Watch, model: ASRModel) -> Picture:
    """How near each of the clip's embeddings is to a token, and both clouds, before and after.

    Nearness is the cosine with the nearest token.
    """
    shots, table = watch.snapshots, model.decoder.token_embeddings.detach().cpu()
    near = torch.stack([cosines(shot.embeddings, table).amax(dim=1) for shot in shots])
    heard = [shot.utterances for shot in shots]
    tokens, count = _tokens(model), near.shape[1]
    points, _ = principal(torch.cat([tokens, shots[0].embeddings, shots[-1].embeddings]))
    clouds = points.split([len(tokens), count, count])
    figure, (left, right) = page(3.4, 1, 2, width_ratios=[1.2, 1])
    edges = [*heard, 2 * heard[-1] - heard[-2]]
    seconds = np.arange(count + 1) * model.config.samples_per_embedding / SAMPLE_RATE
    image = left.pcolormesh(seconds, edges, near.numpy(), cmap="viridis", vmin=0, vmax=0.6)
    figure.colorbar(image, ax=left, label="cosine with the nearest token", pad=0.01)
    left.set(xlabel="time in the clip in s", ylabel="utterances heard")
    left.set_title("does it point at a token?")
    for points, name, color, marker, size in (
        (clouds[0], "tokens", TEXT, "o", 8),
        (clouds[1], "the clip, before", PROMPT, "s", 20),
        (clouds[2], "the clip, after", AUDIO, "^", 20),
    ):
        options = {"marker": marker, "edgecolor": "black", "linewidth": 0.3 * (size > 8)}
        right.scatter(*points.T, size, color, label=name, **options)
    right.set(xticks=[], yticks=[], xlabel="1st principal axis", ylabel="2nd")
    right.set_aspect("equal", "datalim")
    right.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, handletextpad=0)
    right.set_title("where do the clouds lie?")
    mean = ", ".join(f"{heard[i]}: {near[i].mean():.2f}" for i in range(0, len(shots), 4))
    own = (tokens - tokens.mean(dim=0)).norm(dim=1).mean()
    apart = [float((s.embeddings.mean(0) - tokens.mean(0)).norm() / own) for s in shots]
    figure.alt = (
        f"Left: the cosine of each of the clip's {count} audio embeddings with the token nearest "
        f"to it, utterances upwards. Its mean by utterances heard: {mean}. Right: tokens and the "
        "clip's embeddings before and after, on two principal axes. The centres of the clouds lie "
        f"{apart[0]:.1f} times a token's distance from its own centre apart before, "
        f"{apart[-1]:.1f} times after."
    )
    return figure


# Lecture -----------------------------------------------------------------------------------------


@drawn
def loss_mask(model: ASRModel, text: str, embeddings: int) -> Picture:
    """What the decoder reads, and below each position what it must predict there, if anything.

    Of the clip's audio embeddings, so many, only the ends are drawn.
    """
    tokenizer, decoder = model.processor.tokenizer, model.decoder

    def words(ids: Tensor) -> list[str]:
        return [seen(tokenizer.decode(i)) for i in ids]

    before, after = words(decoder.prompt_before[0]), words(decoder.prompt_after[0])
    audio = ["audio[0]", "audio[1]", f"... {embeddings - 3} more ...", f"audio[{embeddings - 1}]"]
    targets = words(model.processor.labels([text])[0])
    parts = ((before, PROMPT), (audio, AUDIO), (after, PROMPT), (targets[:-1], TEXT))
    cells = [(word, color) for part, color in parts for word in part]
    labels = [""] * (len(cells) - len(targets)) + targets
    figure, axes = sheet()
    x, y = 0.12, 0.45
    for (word, color), label in zip(cells, labels, strict=True):
        width = 0.073 * max(len(word), len(label or "-100")) + 0.1
        if x + width > WIDTH - 0.12:
            x, y = 0.12, y + 0.85
        cell(axes, x, y, width, word, color)
        counted = (label, MARK, "white") if label else ("-100", "white", "#7A7A7A")
        cell(axes, x, y + 0.36, width, *counted)
        x += width + 0.04
    about = "above: what the decoder reads \u00b7 below: what it must say next; white: not counted"
    axes.text(0.12, 0.25, about)
    finish(axes, y + 0.75)
    figure.alt = (
        f"{len(cells) - len(audio) + embeddings} positions in a row: {len(before)} prompt tokens, "
        f"{embeddings} audio embeddings, {len(after)} prompt tokens, {len(targets) - 1} text "
        f"tokens. Labels stand below the last {len(targets)}: {' '.join(targets)}; all others have "
        "the label -100."
    )
    return figure


@drawn
def schedule(settings: TrainingSettings) -> Picture:
    """The learning rate against utterances: a straight rise, then half a cosine."""
    s = settings
    figure, axes = page(2.6)
    heard = np.arange(0, s.max_utterances + 1, max(1, s.max_utterances // 400))
    axes.plot(heard, [learning_rate_at(int(u), s) for u in heard], color=SOUND)
    axes.axvline(s.warmup_utterances, color=MARK, linestyle="--", linewidth=1, label="warm-up ends")
    axes.set(xlabel="utterances heard", ylabel="learning rate", xlim=(0, None), ylim=(0, None))
    axes.legend(loc="upper right")
    half = learning_rate_at((s.warmup_utterances + s.max_utterances) // 2, s)
    figure.alt = (
        f"The learning rate rises in a straight line to {s.learning_rate:g} at "
        f"{s.warmup_utterances} utterances, then falls along half a cosine, through {half:.2g}, to "
        f"0 at {s.max_utterances}."
    )
    return figure


def random_batches(data: SpeechData, max_seconds: float, seed: int = 0) -> list[list[int]]:
    """Batches of clips in random order, filled up to `max_seconds` of padded audio: no buckets."""
    batches, batch, longest = [], [], 0.0
    for index in np.random.default_rng(seed).permutation(len(data)).tolist():
        longest = max(longest, data[index].seconds)
        if batch and (len(batch) + 1) * longest > max_seconds:
            batches.append(batch)
            batch, longest = [], data[index].seconds
        batch.append(index)
    return [*batches, batch]


def padded_share(data: SpeechData, batches: Sequence[Sequence[int]]) -> float:
    """Which share of the seconds that are computed is padding."""
    seconds = [[data[index].seconds for index in batch] for batch in batches]
    return 1 - sum(map(sum, seconds)) / sum(len(each) * max(each) for each in seconds)


@drawn
def buckets(data: SpeechData, max_seconds: float, shown: int = 4) -> Picture:
    """The first batches, a bar a clip, padding in grey: in random order, and in length buckets."""
    orders = {
        "random order": random_batches(data, max_seconds),
        "length buckets": make_batches(data, max_seconds=max_seconds, seed=0, epoch=0),
    }
    (figure, panels), facts = page(3.2, 1, 2, sharex=True), []
    for axes, (name, batches) in zip(panels, orders.items(), strict=True):
        y = 0
        for batch in batches[:shown]:
            own = np.array([data[index].seconds for index in batch])
            rows = y + np.arange(len(own))
            axes.barh(rows, own.max(), color=PROMPT, height=0.8)
            axes.barh(rows, own, color=SOUND, height=0.8)
            y += len(own) + 2
        share = padded_share(data, batches)
        facts.append(f"{name}: {share:.0%} padding in {len(batches)} batches")
        axes.set(yticks=[], ylim=(y, -1), xlabel="seconds", title=facts[-1])
    figure.alt = (
        f"The first {shown} batches, a bar a clip, each as long as the longest of its batch, "
        f"padding in grey. {'; '.join(facts)}, over all {len(data)} clips."
    )
    return figure
