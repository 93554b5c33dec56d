"""The decoder's sequence, drawn by hand in inches: a cell's place follows from the trace's
numbers and nothing else.
"""

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from tiny_asr.figures.style import MARK, MONOSPACE, WIDTH, Picture, decoder_parts, drawn, seen
from tiny_asr.figures.trace import Trace


def sheet() -> tuple[Picture, Axes]:
    """An empty sheet; `finish` gives it its height."""
    figure = Picture(figsize=(WIDTH, 1))
    return figure, figure.add_axes((0, 0, 1, 1))


def finish(axes: Axes, height: float) -> None:
    """Make the sheet so high that one unit on it is one inch, counted from the top left."""
    axes.figure.set_figheight(height)
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")


def cell(axes: Axes, x: float, y: float, width: float, text: str, face: str, ink="black") -> None:
    """A box of 0.25 inches' height with a piece of text in it."""
    axes.add_patch(Rectangle((x, y), width, 0.25, facecolor=face, edgecolor="black"))
    options = {"ha": "center", "va": "center_baseline", "family": MONOSPACE, "color": ink}
    axes.text(x + width / 2, y + 0.125, text, **options)


@drawn
def decoder_input(trace: Trace, model) -> Picture:
    """The sequence that the decoder reads and goes on writing, a cell a position, numbered. Long
    runs are cut, and the cut says how much is left out. `model`: the `ASRModel` of the trace, for
    the prompt's tokens."""
    decode, decoder = model.processor.tokenizer.decode, model.decoder
    before, after = decoder.prompt_before[0], decoder.prompt_after[0]
    audio = [f"audio[{index}]" for index in range(trace.sizes["A"])]
    runs = [map(decode, before), audio, map(decode, after), trace.tokens]
    parts, cells, first = decoder_parts(trace), [], 0
    for texts, (count, color) in zip(runs, parts.values(), strict=True):
        most = 7 if texts is audio else 30
        run = [(text, str(position), color) for position, text in enumerate(texts, start=first)]
        if count > most:
            run[most - 3 : -2] = [(f"... {count - most + 1} more ...", "", "white")]
        cells += run
        first += count
    figure, axes = sheet()
    x, y = 0.12, 0.45
    for text, number, color in cells:
        text = text if color == "white" else seen(text)
        width = 0.076 * max(len(text), len(number)) + 0.1  # as wide as a character of 9 points
        if x + width > WIDTH - 0.12:
            x, y = 0.12, y + 0.55
        cell(axes, x, y, width, text, color)
        axes.text(x + width / 2, y + 0.37, number, ha="center", va="center_baseline")
        x += width + 0.04
    counts = [f"{count} {name}" for name, (count, _) in parts.items()]
    handles = [Patch(facecolor=color, edgecolor="black") for _, color in parts.values()]
    axes.legend(handles, counts, loc="upper left", ncols=4)
    axes.text(0.12, y + 0.7, trace.warning, color=MARK, weight="bold")
    finish(axes, y + (0.8 if trace.warning else 0.55))
    figure.alt = (
        f"The decoder's sequence of {first} positions as numbered cells, in this order: "
        f"{', '.join(counts)}. The prompt begins {decode(before)!r} and ends {decode(after)!r}; "
        f"the written tokens begin {''.join(trace.tokens[:10])!r}. {trace.warning}"
    )
    return figure
