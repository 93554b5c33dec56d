"""The figures of notebook 05: the loss, what is written as it falls, the mask, the buckets.

They are drawn from a run's own log, and from what `learning.Watch` saw along the way.
"""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import torch
from ipywidgets import IntSlider
from matplotlib.patches import Rectangle
from torch import Tensor

from tiny_asr.data import SpeechData, make_batches
from tiny_asr.lessons.learning import Snapshot, Watch, nearest_cosine, shortened
from tiny_asr.model import ASRModel
from tiny_asr.pictures import (
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
)
from tiny_asr.plots import MOST_TOKENS, principal
from tiny_asr.settings import TrainingSettings, learning_rate_at
from tiny_asr.widgets import Explorer

# Eight runs that stay apart in colour and, printed in grey, mostly in kind of line.
COLORS = (SOUND, MARK, ENCODER, MEL, AUDIO, TEXT, "#7A7A7A", "black")
LINES = ("-", "--", "-.", ":", "-", "--", "-.", ":")


@drawn
def loss_curves(runs: dict[str, list[dict]], title: str, log_x: bool = False) -> Picture:
    """The training loss against the utterances heard: name -> rows of `read_log`."""
    figure = Picture(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    facts = []
    for (name, rows), color, line in zip(runs.items(), cycle(COLORS), cycle(LINES)):
        heard, loss = _curve(rows)
        axes.plot(heard, loss, color=color, linestyle=line, label=name, linewidth=1.4)
        if len(heard):
            facts.append(
                f"{name}: {loss[0]:.2f} at {many(heard[0])}, {loss[-1]:.2f} at {many(heard[-1])}"
            )
    axes.set(xlabel="utterances heard", ylabel="loss a token", title=title, ylim=(0, None))
    if log_x:
        axes.set(xscale="log")
    axes.xaxis.set_major_formatter(lambda value, _: many(value))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.alt = f"{title}. Loss against utterances heard. {'; '.join(facts)}."
    return figure


def _curve(rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Utterances and losses of a log, those that are finite."""
    pairs = [(r["utterances"], r["loss"]) for r in rows if r["loss"] is not None]
    pairs = np.array([p for p in pairs if np.isfinite(p[1])]).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


@drawn
def loss_and_wer(rows: list[dict]) -> Picture:
    """A run's loss, and beside it its WER on clips that it was not trained on."""
    figure = Picture(figsize=(WIDTH, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    measured = [(row["utterances"], 100 * row["wer"]) for row in rows if row["wer"] is not None]
    heard, wer = np.array(measured).reshape(-1, 2).T
    left.plot(*_curve(rows), ".-", color=SOUND)
    right.plot(heard, wer, ".-", color=MARK)
    left.set(title="loss a token, in training", ylim=(0, None))
    right.set(title="WER in %, on clips not trained on", ylim=(0, None))
    for axes in (left, right):
        axes.set(xlabel="utterances heard")
        axes.xaxis.set_major_formatter(lambda value, _: many(value))
    said = ", ".join(f"{many(u)}: {w:.0f} %" for u, w in zip(heard, wer, strict=True))
    figure.alt = f"Two curves against utterances heard. Left the loss, right the WER: {said}."
    return figure


@drawn
def from_gibberish_to_text(rows: list[dict], watch: Watch, count: int = 8) -> Picture:
    """A run's loss, and below it what the watched clip's transcript was at numbered moments."""
    chosen = [shot for shot in watch.some(count + 1) if shot.utterances > 0][:count]
    figure = Picture(figsize=(WIDTH, 2.9 + 0.2 * len(chosen)), layout="constrained")
    axes, words = figure.subplots(2, 1, height_ratios=[2.8, 0.2 * len(chosen)])
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


@torch.no_grad()
def _clouds(watch: Watch, model: ASRModel, shots: Sequence[Snapshot]) -> tuple[Tensor, ...]:
    """Tokens (N, 2) and each snapshot's embeddings (A, 2), all on the same two axes."""
    table = model.decoder.token_embeddings.float().cpu()
    tokens = table[:: -(-len(table) // MOST_TOKENS)]
    everything = torch.cat([tokens, *(shot.embeddings for shot in shots)])
    points, _ = principal(everything)
    return points.split([len(tokens), *(len(shot.embeddings) for shot in shots)])


def _scatter(axes, tokens: Tensor, audio: Tensor, shot: Snapshot, table: Tensor) -> float:
    axes.scatter(*tokens.T, 8, TEXT, linewidth=0, label="tokens")
    axes.scatter(
        *audio.T, 18, AUDIO, marker="^", edgecolor="black", linewidth=0.3, label="the clip"
    )
    closeness = float(nearest_cosine(shot.embeddings, table).mean())
    axes.set_title(f"{many(shot.utterances)} utterances: {closeness:.2f}")
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", "datalim")
    return closeness


@drawn
def moving(watch: Watch, model: ASRModel, count: int = 4) -> Picture:
    """The clip's audio embeddings among the decoder's tokens, from a fresh projector to the last.

    The number is the mean cosine of each embedding with the token nearest to it.
    """
    shots, table = watch.some(count), model.decoder.token_embeddings.detach().cpu()
    tokens, *clouds = _clouds(watch, model, shots)
    figure = Picture(figsize=(WIDTH, 2.6), layout="constrained")
    panels = figure.subplots(1, len(shots), sharex=True, sharey=True)
    near = [
        _scatter(*each, table) for each in zip(panels, [tokens] * 9, clouds, shots, strict=False)
    ]
    panels[0].legend(loc="lower left", borderpad=0, handletextpad=0)
    said = ", ".join(f"{s.utterances}: {n:.2f}" for s, n in zip(shots, near, strict=True))
    figure.alt = (
        f"{len(tokens)} token embeddings and the clip's {len(clouds[0])} audio embeddings on two "
        "principal axes, the same in each panel. Mean cosine with the nearest token, by utterances "
        f"heard: {said}."
    )
    return figure


def explore_run(watch: Watch, model: ASRModel) -> Explorer:
    """A slider over the moments of a run: where the embeddings lie, and what is written."""
    shots, table = watch.snapshots, model.decoder.token_embeddings.detach().cpu()
    tokens, *clouds = _clouds(watch, model, shots)

    @drawn
    def draw(place: int) -> Picture:
        figure = Picture(figsize=(WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        near = _scatter(axes, tokens, clouds[place], shots[place], table)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        figure.alt = f"The clip's embeddings among the tokens; nearest cosine {near:.2f}."
        return figure

    def explain(place: int) -> str:
        shot = shots[place]
        return f"{shot.utterances} utterances, loss {shot.loss:.2f}: {shot.text}"

    slider = IntSlider(value=0, min=0, max=len(shots) - 1, description="moment")
    return Explorer("explore_run", slider, draw, explain)


# Lecture -----------------------------------------------------------------------------------------


@drawn
def loss_mask(model: ASRModel, text: str, embeddings: int) -> Picture:
    """What the decoder reads, and below each position what it must predict there, if anything.

    Args:
        text: the transcript.
        embeddings: A of the clip; of these only the ends are drawn.
    """
    tokenizer, decoder = model.processor.tokenizer, model.decoder

    def words(ids: Tensor) -> list[str]:
        seen = (tokenizer.decode(i).replace(" ", "\u2423").replace("\n", "\u21b5") for i in ids)
        return [legible(word) for word in seen]

    before, after = words(decoder.prompt_before[0]), words(decoder.prompt_after[0])
    audio = ["audio[0]", "audio[1]", f"... {embeddings - 3} more ...", f"audio[{embeddings - 1}]"]
    targets = words(model.processor.labels([text])[0])
    parts = ((before, PROMPT), (audio, AUDIO), (after, PROMPT), (targets[:-1], TEXT))
    cells = [(word, color) for part, color in parts for word in part]
    labels = [""] * (len(cells) - len(targets)) + targets
    figure = Picture(figsize=(WIDTH, 1))
    axes, x, y = figure.add_axes((0, 0, 1, 1)), 0.12, 0.45

    def cell(x: float, y: float, width: float, word: str, face: str, ink: str) -> None:
        box = Rectangle((x, y), width, 0.25, facecolor=face, edgecolor="black", linewidth=0.8)
        axes.add_patch(box)
        options = {"ha": "center", "va": "center_baseline", "family": MONOSPACE}
        axes.text(x + width / 2, y + 0.125, word, color=ink, **options)

    for (word, color), label in zip(cells, labels, strict=True):
        width = 0.076 * max(len(word), len(label or "-100")) + 0.1
        if x + width > WIDTH - 0.12:
            x, y = 0.12, y + 0.85
        cell(x, y, width, word, color, "black")
        counted = (label, MARK, "white") if label else ("-100", "white", "#7A7A7A")
        cell(x, y + 0.36, width, *counted)
        x += width + 0.04
    about = "above: what the decoder reads \u00b7 below: what it must say next; only red counts"
    axes.text(0.12, 0.25, about)
    figure.set_figheight(y + 0.75)
    axes.set(xlim=(0, WIDTH), ylim=(y + 0.75, 0))
    axes.axis("off")
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
    figure = Picture(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots()
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
    figure = Picture(figsize=(WIDTH, 3.2), layout="constrained")
    facts = []
    for axes, (name, batches) in zip(
        figure.subplots(1, 2, sharex=True), orders.items(), strict=True
    ):
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
