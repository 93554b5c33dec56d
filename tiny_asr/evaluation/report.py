"""The evaluation as one HTML file that can be mailed, opened offline and listened to.

Numbers say how many words went wrong; only hearing the worst clips says why (noise, an accent, a
decoder in a loop, a wrong reference). So each of those has a player and its aligned words.
Everything is inside the file and nothing is fetched. There is no script: text of the data set or
the model can't become markup, and a content policy forbids the rest.
"""

import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure

from tiny_asr.evaluation.score import Result, Row, align, paired_bootstrap
from tiny_asr.shapes import SAMPLE_RATE

AUDIO_BYTES = 3_300_000  # of MP3 in all: base64 adds a third, and the whole file stays under 5 MB
MAX_GROUPS = 20  # of one field in a chart or table, the worst first
MAX_WORDS = 80  # of one clip: a decoder in a loop fills pages
WIDEST_RATE = 1.5  # one loop would else flatten all other bars; the table has its number

# Okabe and Ito's colours, and hatches: bars stay apart for colour-blind readers and in print
FILLS = (("#0072B2", ""), ("#D55E00", "///"), ("#E69F00", "..."))
INKS = {"light": "#1c1d20", "dark": "#e8e8ea"}
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")

HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark; --ink: #1c1d20; --paper: #fff; --card: #f4f4f6; --line: #d5d6dc;
  --soft: #55575f; --sub: #8a5a00; --del: #b3261e; --ins: #005a9c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --paper: #17181b; --card: #222327;
  --line: #3b3d44; --soft: #a9abb4; --sub: #ffc14d; --del: #ff8a80; --ins: #7cc4ff; } }
body { margin: 0 auto; padding: 1rem; max-width: 56rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.headline { font-size: 2.2rem; font-weight: 650; margin: 0; }
.soft, caption { color: var(--soft); font-size: .9rem; text-align: left; }
.note { border-left: 4px solid var(--sub); padding: .3rem .8rem; background: var(--card); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th, td { padding: .25rem 1rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { font-weight: 550; } thead th, td { overflow-wrap: normal; }
@media (max-width: 30rem) { table { font-size: .9rem; } th, td { padding-right: .5rem; } }
figure { margin: .5rem 0; } img { max-width: 100%; width: 38rem; height: auto; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .9rem; margin: .9rem 0; } h3 { margin: 0; font-size: 1rem; }
article p { margin: .35rem 0; } audio { width: 100%; max-width: 26rem; height: 2.4rem; }
.words { line-height: 1.9; } del { color: var(--del); } ins { color: var(--ins); }
.sub del, .sub ins { color: var(--sub); } .sub ins { text-decoration: underline wavy 1px; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
</style>
"""


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
    body = [
        f"<title>{escape(title)}</title>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>",
        _summary(result, untrained),
        _comparison(result, baseline) if baseline else "",
        _kinds_of_errors(result) + _spread(result) if result.words else "",
        *(_groups(name, values) for name, values in result.groups.items()),
        f"<h2>Worst clips</h2>\n<p>{len(worst)} of the {len(wrong)} clips with errors. "
        '<span class="sub"><del>said</del> <ins>heard</ins></span>: a word heard as another; '
        "<del>said</del>: left out; <ins>heard</ins>: added. Words are compared after the "
        f"normaliser ({escape(result.normalizer)}), so case and punctuation are gone.</p>",
        *_clips(worst, audio),
        "</main>\n</body>\n</html>\n",
    ]
    try:  # half of a surrogate pair, which a broken decoder can emit, has no UTF-8
        Path(path).write_text(HEAD + "\n".join(body), "utf-8", errors="xmlcharrefreplace")
    except OSError as error:
        raise ValueError(f"cannot write the report {path}: {error}; choose another path") from error
    return Path(path)


def _percent(rate: float | None) -> str:
    return "n/a" if rate is None else f"{100 * rate:.1f} %"


def _range(low: float | None, high: float | None) -> str:
    return "n/a" if low is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def _table(caption: str, rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table whose first column names the row; all cells are text and are escaped here."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = [f"<caption>{escape(caption)}</caption>", f"<thead><tr>{top}</tr></thead>" * bool(head)]
    for name, *cells in rows:
        line = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{line}</tr>')
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _summary(result: Result, untrained: Sequence[str]) -> str:
    shuffled = (
        '<p class="note"><strong>Shuffled-audio control.</strong> The model heard another clip in '
        "each one's place, on purpose: near 100 % shows that it listens.</p>\n"
    )
    notes = shuffled if result.shuffled_audio else ""
    if untrained:
        parts = f"<strong>Untrained: {escape(', '.join(untrained))}.</strong>"
        notes += f'<p class="note">{parts} The text means nothing.</p>\n'
    if result.noise_snr_db is not None:
        snr = f"{result.noise_snr_db:g} dB SNR"
        notes += f'<p class="note">Noise in every clip, at {snr}; the players are without it.</p>\n'
    if result.dropped:
        reasons = ", ".join(f"{count} ({reason})" for reason, count in result.dropped.items())
        notes += f'<p class="note">Clips left out of all numbers: {escape(reasons)}.</p>\n'
    batch = f", at most {result.batch_seconds:g} s of audio a batch" if result.batch_seconds else ""
    facts = [
        ("Word error rate (WER)", _percent(result.wer)),
        ("95 % interval (bootstrap over clips)", _range(result.wer_low, result.wer_high)),
        ("Shuffled-audio control (WER)", _percent(result.wer_shuffled)),
        ("Character error rate (CER)", _percent(result.cer)),
        ("Clips at or above 100 %", _percent(result.rows_at_100)),
        ("Empty transcripts", _percent(result.empty)),
        ("95 % interval (Wilson)", _range(result.empty_low, result.empty_high)),
        ("Clips, words in the references", f"{result.utterances:,}, {result.words:,}"),
        ("Normaliser", result.normalizer),
        ("Speed (RTFx)", f"{result.rtfx:.1f} x real time" if result.rtfx else "not timed"),
        ("Measured on", f"{result.device}, {result.dtype}{batch}, reading of files not counted"),
    ]
    headline, interval = f"{_percent(result.wer)} WER", _range(result.wer_low, result.wer_high)
    if not result.words:  # nobody speaks
        headline = f"{_percent(result.empty)} empty transcripts"
        interval = _range(result.empty_low, result.empty_high)
    return (
        f'<p class="headline">{headline}</p>\n'
        f"<p>95 % interval {interval}; {escape(result.normalizer)} "
        f"normaliser; {result.utterances:,} clips, {result.words:,} words.</p>\n{notes}"
        + _table("The numbers", facts)
    )


def _comparison(result: Result, baseline: Result) -> str:
    gap = paired_bootstrap(result, baseline)
    verdict = "The interval holds zero: this data can't tell the two apart."
    if gap.high < 0 or gap.low > 0:
        verdict = f"This run is {'better' if gap.high < 0 else 'worse'}, by more than luck."
    facts = [
        ("WER, this run", _percent(result.wer)),
        ("WER, baseline", _percent(baseline.wer)),
        ("Difference", f"{100 * gap.difference:+.1f} points"),
        ("95 % interval", f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f} points"),
        ("Probability that this run is better", _percent(gap.probability_better)),
    ]
    caption = "Paired bootstrap: the same clips, resampled together"
    return f"<h2>Against the baseline</h2>\n<p>{verdict}</p>\n{_table(caption, facts)}"


def _kinds_of_errors(result: Result) -> str:
    counts = {name: getattr(result, name) for name in ("substitutions", "deletions", "insertions")}
    shares = {name: [count / max(result.words, 1)] for name, count in counts.items()}
    alt = ", ".join(f"{count} {k} ({_percent(shares[k][0])})" for k, count in counts.items())
    chart = _chart(alt, "errors per 100 reference words", [""], shares)
    return f"<h2>Kinds of errors</h2>\n<p>{alt}, of the words in the references.</p>\n{chart}"


def _spread(result: Result) -> str:
    edges = [0, np.nextafter(0, 1), 0.2, 0.4, 0.6, 0.8, 1, np.inf]
    names = ["0", "up to 20", "20 to 40", "40 to 60", "60 to 80", "80 to 100", "100 and over"]
    counts = np.histogram([min(row.rate, 9) for row in result.rows], edges)[0]
    shares = (counts / len(result.rows)).tolist()
    parts = [f"{name}: {_percent(share)}" for name, share in zip(names, shares, strict=True)]
    alt = f"Share of the clips by their own WER in per cent: {', '.join(parts)}"
    return "<h2>Clips by their own WER</h2>\n" + _chart(alt, "% of the clips", names, {"": shares})


def _groups(name: str, values: dict) -> str:
    """A chart of WER by one field, and a table: lengths in their order, others worst first."""
    order = list(values)
    if name != "length":
        order.sort(key=lambda value: (-(values[value]["wer"] or 0), values[value]["empty"], value))
    shown = {value: values[value] for value in order[:MAX_GROUPS]}
    table = [
        (value, _percent(v["wer"]), _range(v["wer_low"], v["wer_high"]), _percent(v["empty"]),
         f"{v['utterances']:,}", f"{v['words']:,}") for value, v in shown.items()
    ]  # fmt: skip
    note = f" (the {MAX_GROUPS} worst of {len(order)})" if len(order) > MAX_GROUPS else ""
    spoken = {value: v for value, v in shown.items() if v["wer"] is not None}
    alt = f"Bars of WER by {name}: " + ", ".join(f"{row[0]} {row[1]}" for row in table)
    rates = {"": [v["wer"] for v in spoken.values()]}
    ends = [(v["wer_low"], v["wer_high"]) for v in spoken.values()]
    label = "WER, %, up to 150 (line: 95 % interval)"
    chart = _chart(alt, label, list(spoken), rates, ends) if spoken else ""
    head = (name, "WER", "95 % interval", "empty", "clips", "words")
    title = f"<h2>{escape(f'WER by {name}{note}')}</h2>"
    return f"{title}\n{chart}\n{_table('Intervals: bootstrap over clips', table, head)}"


def _chart(
    alt: str,
    label: str,
    names: Sequence[str],
    series: dict[str, Sequence[float]],
    intervals: Sequence[tuple[float | None, float | None]] = (),
) -> str:
    """Horizontal bars, stacked by series, in two inks: the browser takes the one for its scheme."""
    images = {}
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
            for place, ends in enumerate(intervals):
                if None not in ends:
                    axes.plot(ends, [place, place], color=ink, marker="|")
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
        images[scheme] = f"data:image/png;base64,{b64encode(out.getvalue()).decode()}"
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{images["dark"]}">'
    image = f'<img src="{images["light"]}" alt="{escape(alt)}">'
    return f"<figure><picture>{dark}{image}</picture></figure>"


def _clips(rows: Sequence[Row], audio: Callable[[str], torch.Tensor] | None) -> list[str]:
    room, articles = AUDIO_BYTES, []  # what is left for sound
    for row in rows:
        player = ""
        if audio is not None:
            try:
                sound = _mp3(audio(row.id))
                if len(sound) > room:
                    raise ValueError("left out, to keep this file small")
                room -= len(sound)
                source = f"data:audio/mpeg;base64,{b64encode(sound).decode()}"
                about = f'controls preload="metadata" aria-label="clip {escape(row.id)}"'
                player = f'<audio {about} src="{source}"></audio>'
            except ValueError as error:
                player = f'<p class="soft">No sound: {escape(str(error))}</p>'
        rate = f"{_percent(row.rate)} WER" if row.words else "nobody speaks"
        about = [f"{row.errors} errors in {row.words} words", f"{row.seconds:.1f} s"]
        about += [f"{name}: {value}" for name, value in row.groups.items()]
        articles.append(
            f"<article>\n<h3>{rate} · {escape(row.id)}</h3>\n"
            f'<p class="soft">{escape(", ".join(about))}</p>\n{player}\n'
            f'<p class="words">{_aligned(row)}</p>\n'
            f'<p><span class="soft">Reference:</span> {_text(row.reference)}</p>\n'
            f'<p><span class="soft">Heard:</span> {_text(row.hypothesis)}</p>\n</article>'
        )
    return articles


def _text(text: str) -> str:
    shown = text[: 8 * MAX_WORDS]
    return escape(shown) + "…" * (shown != text) if text.strip() else "<em>(nothing)</em>"


def _aligned(row: Row) -> str:
    pairs, words = align(row.reference, row.hypothesis), []
    for op, *pair in pairs[:MAX_WORDS]:
        said, heard = (escape(word[:99]) for word in pair)
        left = f'<del><span class="hidden">not </span>{said}</del>'
        right = f'<ins><span class="hidden">but </span>{heard}</ins>'
        forms = {"equal": said, "delete": left, "insert": right}
        words.append(forms.get(op, f'<span class="sub">{left} {right}</span>'))
    return " ".join(words) + " …" * (len(pairs) > MAX_WORDS)


def _mp3(waveform: torch.Tensor) -> bytes:
    """Waveform (S,) at 16 kHz -> a small mono MP3, which every browser plays."""
    out = io.BytesIO()
    soundfile.write(out, waveform.clamp(-1, 1).cpu().numpy(), SAMPLE_RATE, format="MP3")
    return out.getvalue()
