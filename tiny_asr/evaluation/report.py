"""The evaluation as one HTML file that can be mailed, opened offline and listened to.

Numbers say how many words went wrong; only hearing the worst clips says why (noise, an accent, a
decoder in a loop, a wrong reference). So each of those has a player and its aligned words.
Everything is inside the file and nothing is fetched. There is no script: text of the data set or
the model can't become markup, and a content policy forbids the rest. What the page says and how it
looks is in `report.html.jinja`; here are its charts and its sound.
"""

import io
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure

from tiny_asr.evaluation.score import (
    Group,
    Rate,
    Result,
    Row,
    align,
    normaliser_of,
    paired_bootstrap,
    percent,
)
from tiny_asr.files.writing import write_text
from tiny_asr.shapes import SAMPLE_RATE

AUDIO_BYTES = 3_300_000  # of MP3 in all: base64 adds a third, and the whole file stays under 5 MB
MAX_GROUPS = 20  # of one field in a chart or table, the worst first
MAX_WORDS = 80  # of one clip: a decoder in a loop fills pages
WIDEST_RATE = 1.5  # one loop would else flatten all other bars; the table has its number

# Okabe and Ito's colours, and hatches: bars stay apart for colour-blind readers and in print
FILLS = (("#0072B2", ""), ("#D55E00", "///"), ("#E69F00", "..."))
INKS = {"light": "#1c1d20", "dark": "#e8e8ea"}
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")


def write_report(
    result: Result,
    path: str | Path,
    *,
    audio: Callable[[str], torch.Tensor] | None = None,
    title: str = "Evaluation",
    baseline: Result | None = None,
    untrained: Sequence[str] = (),
    max_clips: int = 30,
) -> Path:
    """Write `result` as one HTML file of less than 5 MB.

    Args:
        audio: gives the waveform (S,) at 16 kHz of a row's id, for the players; a ValueError from
            it is shown in that clip's place. Without it the report has no sound.
        baseline: a result on identical rows, to compare with.
        untrained: parts of the model that nobody has trained, for a warning.
        max_clips: clips with errors to show, worst first (highest WER, then most errors).

    Raises:
        ValueError: the baseline has other rows, or the file can't be written.
    """
    wrong = [row for row in result.rows if row.errors]
    worst = sorted(wrong, key=lambda row: (-row.rate, -row.errors, row.id))[:max_clips]
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    pages.filters |= {"percent": percent, "interval": _interval}
    page = pages.get_template("report.html.jinja").render(
        title=title,
        result=result,
        untrained=untrained,
        baseline=baseline,
        gap=paired_bootstrap(result, baseline) if baseline else None,
        kinds=_kinds_of_errors(result),
        spread_of_clips=_spread(result),
        groups=[_group(name, values) for name, values in result.groups.items()],
        clips=list(_with_sound(worst, audio)),
        wrong=len(wrong),
        align=partial(align, normaliser=normaliser_of(result)),
        max_words=MAX_WORDS,
    )
    try:  # half of a surrogate pair, which a broken decoder can emit, has no UTF-8
        write_text(Path(path), page, "xmlcharrefreplace")
    except OSError as error:
        raise ValueError(f"cannot write the report {path}: {error}; choose another path") from error
    return Path(path)


def _interval(rate: Rate) -> str:
    return "n/a" if rate.low is None else f"{100 * rate.low:.1f} to {100 * rate.high:.1f} %"


def _kinds_of_errors(result: Result) -> dict[str, str]:
    kinds = ("substitutions", "deletions", "insertions")
    shares = {kind: [vars(result)[kind] / max(result.words, 1)] for kind in kinds}
    alt = ", ".join(f"{vars(result)[k]} {k} ({percent(share)})" for k, (share,) in shares.items())
    return _chart(alt, "errors per 100 reference words", [""], shares)


def _spread(result: Result) -> dict[str, str]:
    edges = [0, np.nextafter(0, 1), 0.2, 0.4, 0.6, 0.8, 1, np.inf]
    names = ["0", "up to 20", "20 to 40", "40 to 60", "60 to 80", "80 to 100", "100 and over"]
    counts = np.histogram([min(row.rate, 9) for row in result.rows], edges)[0]
    shares = (counts / len(result.rows)).tolist()
    parts = [f"{name}: {percent(share)}" for name, share in zip(names, shares, strict=True)]
    alt = f"Share of the clips by their own WER in per cent: {', '.join(parts)}"
    return _chart(alt, "% of the clips", names, {"": shares})


def _group(name: str, values: dict[str, Group]) -> dict:
    """A chart of WER by one field, and a table: lengths in their order, others worst first."""
    order = list(values)
    if name != "length":
        order.sort(key=lambda v: (-(values[v].wer.value or 0), values[v].empty.value, v))
    rows = [
        (value, percent(group.wer.value), _interval(group.wer), percent(group.empty.value),
         f"{group.utterances:,}", f"{group.words:,}")
        for value in order[:MAX_GROUPS] if (group := values[value])
    ]  # fmt: skip
    spoken = [value for value in order[:MAX_GROUPS] if values[value].wer.value is not None]
    alt = f"Bars of WER by {name}: " + ", ".join(f"{row[0]} {row[1]}" for row in rows)
    rates = [values[value].wer for value in spoken]
    label, bars = "WER, %, up to 150 (line: 95 % interval)", {"": [rate.value for rate in rates]}
    chart = _chart(alt, label, spoken, bars, rates) if spoken else None
    return {"name": name, "chart": chart, "rows": rows, "count": len(order)}


def _chart(
    alt: str,
    label: str,
    names: Sequence[str],
    series: dict[str, Sequence[float]],
    intervals: Sequence[Rate] = (),
) -> dict[str, str]:
    """Horizontal bars, stacked by series, in two inks: the browser takes the one for its scheme."""
    images = {"alt": alt}
    for scheme, ink in INKS.items():
        # names of voices are text, not formulas: "$" must not start one
        with matplotlib.rc_context(dict.fromkeys(INKED, ink) | {"text.parse_math": False}):
            figure = Figure(figsize=(5, 0.8 + 0.28 * len(names)), layout="constrained")
            axes = figure.subplots()
            left = np.zeros(len(names))
            for (part, values), (colour, hatch) in zip(series.items(), FILLS, strict=False):
                axes.barh(range(len(names)), values, 0.6, left, label=part, color=colour,
                          hatch=hatch, edgecolor=ink, linewidth=0.5)  # fmt: skip
                left += values
            for place, rate in enumerate(intervals):
                if rate.low is not None:
                    axes.plot([rate.low, rate.high], [place, place], color=ink, marker="|")
            if len(series) > 1:
                figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
            shown = ["".join(c if c.isprintable() else "?" for c in name[:24]) for name in names]
            axes.set_yticks(range(len(names)), shown)
            axes.tick_params(axis="y", length=0)
            axes.set(xlabel=label, xlim=(0, min(axes.get_xlim()[1], WIDEST_RATE)),
                     ylim=(len(names) - 0.5, -0.5), facecolor="none")  # fmt: skip
            axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:g}")
            axes.spines[["top", "right"]].set_visible(False)
            out = io.BytesIO()
            figure.savefig(out, format="png", dpi=150, transparent=True)
        images[scheme] = _embedded("image/png", out.getvalue())
    return images


def _with_sound(
    rows: Sequence[Row], audio: Callable[[str], torch.Tensor] | None
) -> Iterator[tuple[Row, str, str]]:
    """Each row with its sound, or else with the reason why it has none."""
    room = AUDIO_BYTES
    for row in rows:
        sound, silence = b"", ""
        try:
            sound = b"" if audio is None else _mp3(audio(row.id))
            if len(sound) > room:
                raise ValueError("left out, to keep this file small")
            room -= len(sound)
        except ValueError as error:
            sound, silence = b"", str(error)
        yield row, _embedded("audio/mpeg", sound) if sound else "", silence


def _embedded(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _mp3(waveform: torch.Tensor) -> bytes:
    """Waveform (S,) at 16 kHz -> a small mono MP3, which every browser plays."""
    out = io.BytesIO()
    soundfile.write(out, waveform.clamp(-1, 1).cpu().numpy(), SAMPLE_RATE, format="MP3")
    return out.getvalue()
