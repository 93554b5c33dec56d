"""The figures of notebook 05: the loss, what is written as it falls, the mask, the buckets."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from torch import Tensor

from tiny_asr.course.drawing import page
from tiny_asr.data.batches import make_batches
from tiny_asr.data.dataset import SpeechData
from tiny_asr.figures.diagrams import cell, finish, sheet
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
from tiny_asr.training.settings import TrainingSettings, learning_rate_at

# Runs that stay apart in colour and, printed in grey, mostly in kind of line.
COLORS = (SOUND, MARK, ENCODER, MEL, "black")
LINES = ("-", "--", "-.", ":", (0, (5, 1)))


def shortened(text: str, longest: int = 62) -> str:
    """A transcript in one line of at most so many characters."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def _smooth(losses: Sequence[tuple[int, float]], width: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Utterances and losses (N,), each loss a mean with its neighbours."""
    heard, loss = np.array(losses, dtype=float).reshape(-1, 2).T
    width = min(width, len(loss)) // 2
    spans = [loss[max(0, i - width) : i + width + 1].mean() for i in range(len(loss))]
    return heard, np.array(spans)


def _draw_losses(axes, losses: Sequence[tuple[int, float]], end: int) -> None:
    """The loss of each step in grey, its running mean over it."""
    if losses:
        axes.plot(*zip(*losses, strict=True), color=PROMPT, linewidth=0.8)
        axes.plot(*_smooth(losses), color=SOUND)
    axes.set(xlabel="utterances heard", ylabel="loss per token", xlim=(0, end))
    axes.set(ylim=(0, max([6.0, *(loss for _, loss in losses)])))
    axes.xaxis.set_major_formatter(lambda value, _: many(value))


@drawn
def live_picture(
    losses: Sequence[tuple[int, float]], texts: dict[str, str], end: int, title: str
) -> Picture:
    """The loss so far, (utterances, loss) a step, and what is written now: said -> written."""
    figure, (axes, words) = page(
        2.4 + 0.42 * len(texts), 2, 1, height_ratios=[2.4, 0.42 * len(texts)]
    )
    _draw_losses(axes, losses, end)
    axes.set_title(title)
    words.axis("off")
    words.set(ylim=(len(texts), 0), xlim=(0, 1))
    for row, (said, written) in enumerate(texts.items()):
        words.text(0, row + 0.25, said, color="#555555", size=8, va="center")
        line = legible(shortened(written, 86))
        words.text(0, row + 0.68, line, family=MONOSPACE, va="center")
    last = f"{losses[-1][1]:.2f}" if losses else "not measured yet"
    written = "; ".join(f'{said}: "{shortened(text)}"' for said, text in texts.items())
    figure.alt = f"{title}. Loss per token: {last}. Written now: {written}."
    return figure


@drawn
def from_gibberish_to_text(
    losses: Sequence[tuple[int, float]], looks: Sequence[tuple[int, list[str]]], count: int = 8
) -> Picture:
    """A run's loss, and below it what the first clip's transcript was at numbered moments."""
    last = len(looks) - 1
    places = sorted({round(last * i / (count - 1)) for i in range(count)})
    chosen = [(heard, texts[0]) for heard, texts in (looks[place] for place in places) if heard]
    figure, (axes, words) = page(
        2.9 + 0.2 * len(chosen), 2, 1, height_ratios=[2.8, 0.2 * len(chosen)]
    )
    _draw_losses(axes, losses, losses[-1][0])
    heard, smooth = _smooth(losses)
    words.axis("off")
    words.set(ylim=(len(chosen), 0), xlim=(0, 1))
    options = {"ha": "center", "va": "center", "color": "white", "size": 8, "weight": "bold"}
    facts = []
    for number, (place, text) in enumerate(chosen, start=1):
        loss = smooth[np.searchsorted(heard, place)]
        axes.plot(place, loss, "o", color=MARK, markersize=11, clip_on=False)
        axes.annotate(str(number), (place, loss), **options)
        line = f"{number}  {many(place):>6}  {legible(shortened(text))}"
        words.text(0.02, number - 0.5, line, family=MONOSPACE, va="center")
        facts.append(f'{many(place)}: {loss:.2f}, "{shortened(text)}"')
    axes.set_title("the loss, and what the sentence's transcript was at the numbered moments")
    figure.alt = (
        "Loss per token against utterances heard, with the transcript of one clip. At "
        f"{'; '.join(facts)}."
    )
    return figure


@drawn
def case_curves(cases: dict) -> Picture:
    """Runs on one batch: the loss of each step, name -> `lesson_05_loop.Case`."""
    figure, axes = page(3)
    looks = zip(cycle(COLORS), cycle(LINES))
    for (name, case), (color, line) in zip(cases.items(), looks, strict=False):
        axes.plot(case.losses, linestyle=line, color=color, label=name)
    axes.set(xlabel="steps on the same four clips", ylabel="loss per token", ylim=(0, None))
    axes.set_title("five runs on one batch")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    ends = "; ".join(f"{n}: {c.losses[0]:.2f} to {c.losses[-1]:.2f}" for n, c in cases.items())
    figure.alt = f"Loss per token in {len(case.losses)} steps on one batch, by run. {ends}."
    return figure


# Lecture -----------------------------------------------------------------------------------------


@drawn
def loss_mask(model: ASRModel, text: str, embeddings: int) -> Picture:
    """What the decoder reads, and below each position what it must predict there, if anything. Of
    the clip's audio embeddings, so many, only the ends are drawn."""
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
