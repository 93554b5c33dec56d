"""What the figures of the lessons share: a page, pictures over time, words in a table's cells."""

import numpy as np

from tiny_asr.figures.style import SOUND, WIDTH, Picture
from tiny_asr.shapes import SAMPLE_RATE


def page(height: float, *shape: int, **grid):
    """A figure as wide as a notebook, `height` inches tall, and its `subplots(*shape, **grid)`."""
    figure = Picture(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(*shape, **grid)


def waves(axes, samples, start: float = 0.0, linewidth: float = 0.5) -> None:
    """Draw samples (S,) at 16 kHz against the time in s, the first of them at `start`."""
    seconds = start + np.arange(len(samples)) / SAMPLE_RATE
    axes.plot(seconds, np.asarray(samples), color=SOUND, linewidth=linewidth)


def over_time(axes, rows, seconds: float, cmap="magma", **look):
    """Draw numbers (rows, frames) that last so many seconds, the first row below; the image."""
    cells = {"aspect": "auto", "origin": "lower", "interpolation": "nearest", "cmap": cmap}
    return axes.imshow(np.asarray(rows), extent=(0, seconds, 0, len(rows)), **cells, **look)


def write_cells(axes, values, words, dark: float, **font) -> None:
    """A word in each cell of an image of `values` (N, M), white where a value is above `dark`.
    `words`: value -> its word; or the words themselves, (N, M)."""
    for (row, column), value in np.ndenumerate(np.asarray(values)):
        word = words(value) if callable(words) else words[row][column]
        color = "white" if value > dark else "black"
        axes.text(column, row, word, ha="center", va="center", color=color, **font)


def say(axes, words) -> None:
    """Write above the time axis of a plot what is said there: (word, begin, end) in s."""
    for word, begin, _ in words:
        place = {"transform": axes.get_xaxis_transform(), "ha": "left", "va": "bottom"}
        axes.text(begin, 1.01, word, rotation=35, size=7.5, **place)
