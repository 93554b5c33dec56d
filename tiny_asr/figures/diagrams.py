"""The two figures that are drawn by hand: the shape contract to scale, and the decoder's sequence.

Neither has axes in matplotlib's sense. Both are sheets whose unit is the inch, so that a bar's
length and a cell's place follow from the trace's numbers and nothing else.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

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
    decoder_parts,
    drawn,
    duration_of,
    many,
    seen,
    sizes_of,
)
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
def shapes(trace: Trace) -> Picture:
    """The shape contract to scale: one bar a stage, as long as its time, as high as it is wide.

    Beside the whole clip stands the time of one audio embedding, where single steps can be seen.
    """
    n, duration, parts = trace.sizes, duration_of(trace), decoder_parts(trace)
    left, length, near, near_length = 0.15, 6.3, 6.75, 1.4
    figure, axes = sheet()
    axes.text(left, 0.2, f"the whole clip: {duration:.2f} s", color=MARK)
    axes.text(left + length, 0.2, "shape, numbers a second", color=MARK, ha="right")
    axes.text(near, 0.2, f"{duration / n['A'] * 1000:g} ms of it", color=MARK)
    scale = 0.9 / max(trace["stacked_frames"].shape[-1], n["llm_dim"])  # inches a number
    colors = {"waveform": SOUND, "log_mel": MEL, "audio_embeddings": AUDIO}
    y, facts = 0.5, []

    def row(name: str, note: str, *bars: tuple[float, float, int, str]) -> None:
        """A stage's sizes and its bars (x, length, steps, colour); the first is the whole of it."""
        nonlocal y
        axes.text(left, y, name, weight="bold")
        axes.text(left + 1.45, y, trace.stages[name].stage.shape)
        axes.text(left + length, y, f"{sizes_of(trace[name])}{note}", ha="right")
        numbers = trace[name].numel() / bars[0][2]
        height = min(max(numbers * scale, 0.05), 0.9)
        y += 0.07
        for x, width, steps, color in bars:
            axes.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor="black"))
            if width > 0.025 * steps:  # else the lines between the steps would be all there is
                edges = np.linspace(x, x + width, steps + 1)
                axes.vlines(edges, y, y + height, color="black", linewidth=0.5)
        y += height + 0.24

    for name, recorded in trace.stages.items():
        for axis in {"S", "F", "T", "A"}.intersection(recorded.stage.axes):
            steps = n[axis] // n["A"]
            axes.text(near + near_length, y, f"{many(steps)} step{'s' * (steps > 1)}", ha="right")
            note = f", {many(recorded.tensor.numel() / duration)}/s"
            facts.append(f"{name} {sizes_of(recorded.tensor)}{note}")
            color = colors.get(name, ENCODER)
            row(name, note, (left, length, n[axis], color), (near, near_length, steps, color))
    for second in range(0, int(duration) + 1, 1 if duration < 12 else 5):
        x = left + second / duration * length
        axes.vlines(x, y - 0.1, y - 0.04, color="black", linewidth=0.8)
        axes.text(x, y + 0.1, f"{second} s", ha="center")
    axes.hlines(y - 0.1, left, left + length, color="black", linewidth=0.8)
    x = left + n["A"] // 2 / n["A"] * length
    axes.hlines(y - 0.1, x, x + length / n["A"], color=MARK, linewidth=4)
    axes.text(left, y + 0.4, "the decoder's positions, no longer times", color=MARK)
    y += 0.7
    before, _, _, written = (count for count, _ in parts.values())
    read = n["P"] + n["A"]
    unit = length / (read + written)
    end = left + read * unit
    heard = (left + before * unit, n["A"] * unit, n["A"], AUDIO)
    row("decoder_input", "", (left, read * unit, read, PROMPT), heard)
    row("next_token_logits", "", (end - unit, unit, 1, TEXT))
    row("token_ids", "", (end, written * unit, written, TEXT))
    text = f"height: numbers in one step, to scale from {0.05 / scale:.0f} to {many(0.9 / scale)}"
    axes.text(left, y, text)
    finish(axes, y + 0.1)
    counts = ", ".join(f"{count} {name}" for name, (count, _) in parts.items())
    figure.alt = (
        f"The stages as bars over the same {duration:.2f} s, cut into ever fewer steps: "
        f"{'; '.join(facts)}. Then the decoder's positions: {counts}; V = {many(n['V'])} scores "
        "for each next token."
    )
    return figure


@drawn
def decoder_input(trace: Trace, model) -> Picture:
    """The sequence that the decoder reads and goes on writing, a cell a position, numbered.

    Long runs are cut, and the cut says how much is left out.

    Args:
        model: the `ASRModel` of the trace, for the prompt's tokens.
    """
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
