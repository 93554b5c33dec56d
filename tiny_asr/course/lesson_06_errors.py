"""What notebook 06 needs to judge a recogniser beside `evaluation.score`: pictures of errors, luck,
noise, silence, and small experiments. All randomness is seeded; rates are in per cent.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from html import escape

import numpy as np
import torch
from ipywidgets import SelectionSlider
from matplotlib.patches import Rectangle

from tiny_asr.course.drawing import page
from tiny_asr.course.explorers import Explorer
from tiny_asr.evaluation.score import Result, Row, align
from tiny_asr.figures.style import AUDIO, MARK, PROMPT, SOUND, TEXT, Picture, drawn, many
from tiny_asr.shapes import SAMPLE_RATE

MOST_PAIRS = 11  # of words in one line of an alignment
RESAMPLES = 2000
SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000)  # clips in a test set
INKS = {"S": "#8A5A00", "D": "#B3261E", "I": "#005A9C"}  # 4.5 : 1 on white, at least
OPS = {"substitute": "S", "delete": "D", "insert": "I", "equal": "="}


# Errors ------------------------------------------------------------------------------------------


def edit_table(said: Sequence[str], heard: Sequence[str]) -> np.ndarray:
    """(N + 1, M + 1): the fewest edits that turn the first i words said into the first j heard.
    Wagner and Fischer 1974, "The string-to-string correction problem". Letters work as well."""
    table = np.add.outer(np.arange(len(said) + 1), np.arange(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        for j, other in enumerate(heard, start=1):
            diagonal = table[i - 1, j - 1] + (word != other)
            table[i, j] = min(diagonal, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table


def edit_pairs(said: Sequence[str], heard: Sequence[str]) -> list[tuple[str, str, str]]:
    """(op, said, heard) along one cheapest way through the table; op is =, S, D or I."""
    table, pairs = edit_table(said, heard), []
    i, j = len(said), len(heard)
    while i or j:
        both = i and j and said[i - 1] == heard[j - 1]
        if i and j and table[i, j] == table[i - 1, j - 1] + (not both):
            i, j = i - 1, j - 1
            pairs.append(("=" if both else "S", said[i], heard[j]))
        elif i and table[i, j] == table[i - 1, j] + 1:
            i -= 1
            pairs.append(("D", said[i], ""))
        else:
            j -= 1
            pairs.append(("I", "", heard[j]))
    return pairs[::-1]


class Alignment:
    """Said above heard, word by word, below a title; each error has its letter and its colour.
    Pairs are (op, said, heard), as `edit_pairs` or `tiny_asr.evaluation.score.align` gives them."""

    def __init__(self, pairs: Iterable[tuple[str, str, str]], title: str = ""):
        self.pairs = [(OPS.get(op, op), said, heard) for op, said, heard in pairs]
        self.title = title

    def _lines(self) -> Iterator[tuple[list, dict[str, Iterable[str]]]]:
        """So many pairs as fit side by side: their ops; name of the row -> its words."""
        for start in range(0, len(self.pairs), MOST_PAIRS):
            ops, said, heard = zip(*self.pairs[start : start + MOST_PAIRS], strict=True)
            yield ops, {"said": said, "heard": heard, "error": [op.strip("=") for op in ops]}

    def __repr__(self) -> str:
        lines = [self.title] if self.title else []
        for _, rows in self._lines():
            widths = [max(map(len, column)) for column in zip(*rows.values(), strict=True)]
            for name, words in rows.items():
                padded = (f"{word:<{width}}" for word, width in zip(words, widths, strict=True))
                lines.append(f"{name:<6}{' '.join(padded)}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        left = "style='text-align:left;padding:2px 6px"
        html = f"<p style='margin:0.6em 0 0 0'>{escape(self.title)}</p>" if self.title else ""
        for ops, rows in self._lines():
            html += "<table style='margin:0 0 0.6em 0'>"
            inks = [f";color:{INKS[op]};font-weight:bold" if op in INKS else "" for op in ops]
            for name, words in rows.items():
                cells = (
                    f"<td {left}{ink}'>{escape(word)}</td>"
                    for word, ink in zip(words, inks, strict=True)
                )
                # Said for each row: JupyterLab's dark theme darkens every other one.
                html += "<tr style='background:white;color:black'>"
                html += f"<th scope='row' {left}'>{name}</th>{''.join(cells)}</tr>"
            html += "</table>"
        return html


@drawn
def edit_picture(said: Sequence[str], heard: Sequence[str]) -> Picture:
    """The table of `edit_table` with its numbers, and a cheapest way through it, coloured."""
    table, pairs = edit_table(said, heard), edit_pairs(said, heard)
    figure, axes = page(0.6 + 0.36 * len(table))
    steps, place = {(0, 0): "="}, (0, 0)
    for op, *_ in pairs:
        place = (place[0] + (op != "I"), place[1] + (op != "D"))
        steps[place] = op
    for (i, j), edits in np.ndenumerate(table):
        op = steps.get((i, j))
        color = "white" if op is None else INKS.get(op, PROMPT)
        axes.add_patch(Rectangle((j, i), 1, 1, facecolor=color, edgecolor=PROMPT))
        ink = "white" if op in INKS else "black" if op else "#767676"
        text = f"{edits} {op}" if op in INKS else str(edits)
        axes.text(j + 0.5, i + 0.5, text, color=ink, ha="center", va="center")
    axes.set(xlim=(0, len(heard) + 1), ylim=(len(said) + 1, 0))
    axes.set_xticks(np.arange(len(heard) + 1) + 0.5, ["(nothing)", *heard])
    axes.set_yticks(np.arange(len(said) + 1) + 0.5, ["(nothing)", *said])
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="heard, up to this word", ylabel="said, up to this word")
    way = ", ".join(f"{op} {a or b}" for op, a, b in pairs if op != "=")
    figure.alt = (
        f"A table of {len(table)} rows (said) by {len(table[0])} columns (heard) of edit counts, "
        f"from 0 at the top left to {table[-1, -1]} at the bottom right. The cheapest way: {way}."
    )
    return figure


def word_recall(rows: Iterable[Row], group: Callable[[str], str]) -> dict[str, tuple[int, int]]:
    """Group of a said word -> (how many were heard right, how many were said)."""
    right, said = Counter(), Counter()
    for row in rows:
        for op, word, _ in align(row.reference, row.hypothesis):
            if word:
                said[group(word)] += 1
                right[group(word)] += op == "equal"
    return {name: (right[name], count) for name, count in said.items()}


@drawn
def shares_picture(shares: dict[str, tuple[int, int]], label: str) -> Picture:
    """Bars of counts in totals, name -> (count, total), in per cent."""
    figure, axes = page(max(2.1, 0.7 + 0.3 * len(shares)))
    values = [100 * count / total for count, total in shares.values()]
    bars = axes.barh(range(len(shares)), values, color=TEXT, edgecolor="black", linewidth=0.6)
    words = [f"{v:.0f} % of {n}" for v, (_, n) in zip(values, shares.values(), strict=True)]
    axes.bar_label(bars, words, padding=4)
    axes.set_yticks(range(len(shares)), list(shares))
    axes.set(xlim=(0, 115), xlabel=label, ylim=(len(shares) - 0.5, -0.5))
    axes.set_xticks(range(0, 101, 20))
    parts = "; ".join(f"{name}: {word}" for name, word in zip(shares, words, strict=True))
    figure.alt = f"Bars, {label}: {parts}."
    return figure


# Luck --------------------------------------------------------------------------------------------


def resampled(
    result: Result, clips: int | None = None, seed: int = 0, against: Result | None = None
) -> np.ndarray:
    """WERs (RESAMPLES,) of test sets of so many clips (its own number), drawn from a result's. With
    `against`, the difference to that result on the very same draws."""
    words = np.array([row.words for row in result.rows])
    errors = np.array([row.errors for row in result.rows])
    if against is not None:
        errors = errors - np.array([row.errors for row in against.rows])
    draws = np.random.default_rng(seed).integers(len(words), size=(RESAMPLES, clips or len(words)))
    return 100 * errors[draws].sum(axis=1) / words[draws].sum(axis=1)


def interval(rates: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of some rates."""
    return tuple(np.percentile(rates, [2.5, 97.5]).tolist())


@drawn
def luck_picture(result: Result, clips: int | None = None) -> Picture:
    """How the WER of test sets of so many clips would scatter, by luck alone."""
    rates, count = resampled(result, clips), clips or len(result.rows)
    low, high = interval(rates)
    figure, axes = page(2.7)
    edges = np.linspace(rates.min(), rates.max(), 25)
    widest = resampled(result, SIZES[0]).max()  # one scale, so that the sizes can be compared
    axes.hist(rates, edges, color=TEXT, edgecolor="white")
    span = {"alpha": 0.25, "zorder": 0, "label": f"95 %: {low:.1f} to {high:.1f}"}
    axes.axvspan(low, high, color=AUDIO, **span)
    measured = 100 * result.wer.value
    axes.axvline(measured, color=MARK, label=f"measured: {measured:.1f}")
    axes.set(xlabel="WER in per cent", ylabel=f"of {many(RESAMPLES)} test sets")
    axes.set(title=f"test sets of {many(count)} clips", xlim=(0, np.ceil(widest)))
    axes.legend(loc="upper right")
    figure.alt = (
        f"Histogram of {RESAMPLES} WERs, each of {count} clips drawn anew: a bell around "
        f"{rates.mean():.1f} per cent, 95 of 100 between {low:.1f} and {high:.1f}."
    )
    return figure


def explore_luck(result: Result) -> Explorer:
    """A slider over the number of clips: how far can luck move the WER?"""

    def explain(clips: int) -> str:
        low, high = interval(resampled(result, clips))
        return f"{clips} clips: 95 % lie between {low:.1f} and {high:.1f}, {high - low:.1f} points"

    slider = SelectionSlider(options=SIZES, value=SIZES[3], description="clips")
    draw = partial(luck_picture, result)
    return Explorer("explore_luck", slider, draw=draw, explain=explain)


@drawn
def pairing_picture(ours: Result, theirs: Result, names: tuple[str, str]) -> Picture:
    """The difference of two WERs on the same clips: resampled each for itself, and together."""
    apart = resampled(ours, seed=1) - resampled(theirs, seed=2)
    together = resampled(ours, against=theirs)
    figure, axes = page(2.7)
    edges = np.arange(np.floor(apart.min()), np.ceil(apart.max()) + 0.6, 0.5)
    facts = []
    for label, rates, color in (("apart", apart, PROMPT), ("together", together, TEXT)):
        low, high = interval(rates)
        facts.append(f"drawn {label}: {low:+.1f} to {high:+.1f} points")
        axes.hist(rates, edges, color=color, alpha=0.8, label=facts[-1])
    axes.axvline(0, color="black", linewidth=1)
    axes.set(xlabel=f"WER of {names[0]} minus WER of {names[1]}, points")
    axes.set(ylabel=f"of {many(RESAMPLES)} draws")
    axes.legend(loc="best")
    figure.alt = f"Two histograms of the difference, 95 of 100 draws each: {'; '.join(facts)}."
    return figure


# Noise and silence -------------------------------------------------------------------------------


def coloured(slope: float, seconds: float, seed: int = 0) -> torch.Tensor:
    """Noise (S,) whose power falls with frequency to the `slope`: 0 white, 1 pink. RMS 0.05."""
    count = round(seconds * SAMPLE_RATE)
    lines = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE).clip(min=30)  # below, nobody hears it
    samples = torch.from_numpy(np.fft.irfft(lines * hertz ** (-slope / 2), count)).float()
    return samples * 0.05 / samples.square().mean().sqrt()


def nobody_speaks(seconds: Sequence[float] = (1, 2, 4, 8)) -> list[torch.Tensor]:
    """Clips (S,) without a word: silence, hiss, rumble, hum and a chord of each length."""
    clips = []
    for seed, length in enumerate(seconds):
        time = torch.arange(round(length * SAMPLE_RATE)) / SAMPLE_RATE
        turns = 2 * torch.pi * time
        hum = sum(torch.sin(50 * k * turns) / k for k in (1, 2, 3))
        chord = sum(torch.sin(220 * ratio * turns) for ratio in (1, 1.25, 1.5))
        clips += [0 * time, coloured(0, length, seed) / 50, coloured(0, length, seed)]
        clips += [coloured(1, length, seed), (0.1 * hum).float(), (0.1 * chord).float()]
    return clips


def quiet_beside(waveform: torch.Tensor, seconds: float = 2.0) -> dict[str, torch.Tensor]:
    """A clip (S,) as it is, and with faint hiss before it, after it, and in its middle."""
    hiss, half = coloured(0, seconds) / 50, len(waveform) // 2
    return {
        "as it is": waveform,
        "quiet before": torch.cat([hiss, waveform]),
        "quiet after": torch.cat([waveform, hiss]),
        "quiet in the middle": torch.cat([waveform[:half], hiss, waveform[half:]]),
    }


def raw(model, clips: Sequence[torch.Tensor]) -> list[str]:
    """What a model writes of clips (S,) as they are: `transcribe` would leave long quiet out."""
    return [model.processor.decode(model.generate([clip])[0]) for clip in clips]


@drawn
def noise_picture(curves: dict[str, dict[float, Result]], clean: Result) -> Picture:
    """WER against signal-to-noise ratio: name of the noise -> {dB: result}, and without noise."""
    figure, axes = page(3)
    facts = [f"without noise {100 * clean.wer.value:.0f}"]
    looks = ((SOUND, "o", -0.25), (MARK, "^", 0.25))  # shifted: no bar shall hide another one
    for (name, results), (color, dot, shift) in zip(curves.items(), looks, strict=False):
        levels = sorted(results, reverse=True)
        rates = [100 * results[level].wer.value for level in levels]
        ends = np.array([(results[n].wer.low, results[n].wer.high) for n in levels]).T * 100
        look = {"color": color, "marker": dot, "capsize": 3, "label": name}
        axes.errorbar(np.array(levels) + shift, rates, abs(ends - rates), **look)
        parts = (f"{r:.0f} at {n:g} dB" for n, r in zip(levels, rates, strict=True))
        facts.append(f"{name} {', '.join(parts)}")
    look = {"linestyle": "--", "linewidth": 1, "label": "no noise added"}
    axes.axhline(100 * clean.wer.value, color="black", **look)
    axes.set(xlabel="signal-to-noise ratio in dB: more noise to the right")
    axes.set(ylabel="WER in per cent")
    axes.set(xticks=levels, ylim=(0, None))
    axes.invert_xaxis()
    axes.legend(loc="upper left")
    figure.alt = f"WER in per cent against signal-to-noise ratio: {'; '.join(facts)}."
    return figure
