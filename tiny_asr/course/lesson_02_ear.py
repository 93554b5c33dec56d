"""Notebook 02: does the ear hear in one clip what it hears in another that says the same?

Their frames are first laid beside each other by dynamic time warping: of all ways through the table
of cosines that only go forward, the one along which they are most alike (Sakoe and Chiba 1978).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tiny_asr.course.drawing import page
from tiny_asr.course.lesson_02_layers import BOTH_WAYS, FRAME, Words
from tiny_asr.figures.style import ENCODER, MARK, PROMPT, Picture, drawn


@dataclass(frozen=True)
class Compared:
    """Frames of one clip (T) beside those of another (U).

    cosines: (T, U), the mean frame of each clip taken off first. path: (frame, frame of the other)
    from the first two to the last two. along: the likeness of each frame (T,) on the path.
    """

    cosines: Tensor
    path: list[tuple[int, int]]
    along: Tensor


def best_path(cosines: Tensor) -> list[tuple[int, int]]:
    """The way through (T, U) that goes one step down, right or both, for the highest mean cosine. A
    step both ways counts twice, as the two that it replaces."""
    table = cosines.double().numpy()
    rows, columns = table.shape
    best = np.full((rows + 1, columns + 1), -np.inf)
    best[0, 0] = 0
    came_from = np.zeros((rows, columns), dtype=int)
    for i, j in np.ndindex(rows, columns):
        one, above, left = table[i, j], best[i, j + 1], best[i + 1, j]
        ways = best[i, j] + 2 * one, above + one, left + one
        came_from[i, j] = int(np.argmax(ways))
        best[i + 1, j + 1] = ways[came_from[i, j]]
    place, path = (rows - 1, columns - 1), []
    while True:
        path.append(place)
        if place == (0, 0):
            return path[::-1]
        down, right = ((1, 1), (1, 0), (0, 1))[came_from[place]]
        place = place[0] - down, place[1] - right


def compare(frames: Tensor, others: Tensor) -> Compared:
    """Lay the frames (T, D) of one clip beside those of another (U, D)."""
    own, theirs = (F.normalize(x - x.mean(dim=0), dim=1) for x in (frames, others))
    cosines = own @ theirs.T
    path = best_path(cosines)
    along = torch.full((len(frames),), -1.0)
    for i, j in path:
        along[i] = max(along[i], cosines[i, j])
    return Compared(cosines, path, along)


def by_word(compared: Compared, words: Words) -> dict[str, float]:
    """The mean likeness along each word: (word, begin, end) in s."""
    parts = [(w, compared.along[round(a / FRAME) : round(b / FRAME)]) for w, a, b in words]
    return {word: float(part.mean()) for word, part in parts}


@drawn
def ear_view(compared: Compared, floor: float, words: Words, wrong: range) -> Picture:
    """The table of cosines with its path, and the likeness along the clip, word by word.

    floor: the likeness that the path finds in a clip that says something else.
    """
    height, width = (size * FRAME for size in compared.cosines.shape)
    figure, (left, right) = page(3.5, 1, 2, width_ratios=[1, 1.7])
    square = {"extent": (0, width, height, 0), "aspect": "auto", "interpolation": "nearest"}
    left.imshow(compared.cosines, cmap=BOTH_WAYS, vmin=-1, vmax=1, **square)
    path = (np.array(compared.path) + 0.5) * FRAME
    left.plot(path[:, 1], path[:, 0], color="black", linewidth=1)
    left.set(xlabel="sample clip, time in s", ylabel="puzzle clip, time in s")
    left.set_title("cosine of each two frames")
    time = (np.arange(len(compared.along)) + 0.5) * FRAME
    right.plot(time, compared.along, color=ENCODER)
    right.axhline(floor, color="black", linestyle="--", linewidth=1)
    right.text(0.02, floor + 0.02, "another sentence, on average", size=8)
    for number, (word, begin, end) in enumerate(words):
        color = MARK if number in wrong else PROMPT
        right.axvspan(begin, end, color=color, alpha=0.55 if number % 2 else 0.3, linewidth=0)
        right.text((begin + end) / 2, 1.04, word, rotation=60, ha="left", va="bottom", size=8)
    right.set(ylim=(min(0, float(compared.along.min())), 1.02), xlim=(0, height))
    right.set(xlabel="puzzle clip, time in s", ylabel="likeness on the path")
    facts = by_word(compared, words)
    figure.alt = (
        f"Left: the cosines of {compared.cosines.shape[0]} frames of the puzzle with "
        f"{compared.cosines.shape[1]} of the sample, and the best way through them. Right: the "
        f"likeness on that way; another sentence has {floor:.2f} on average. By word: "
        f"{', '.join(f'{word} {value:.2f}' for word, value in facts.items())}. Marked as written "
        f"wrongly: {' '.join(words[n][0] for n in wrong)}."
    )
    return figure
