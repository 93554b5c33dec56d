"""Draw the log of each trained model as a picture beside it, for its card.

python -m recipes.curves
"""

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter

from recipes.text import CHECKOUT

MODELS = CHECKOUT / "data" / "models"


def heard(training: str, test: str = "") -> tuple[str, str, dict[str, str], str]:
    """A pair's losses against clips heard: the columns of training, and of the tests."""
    columns = {
        training: "augmented training speech",
        f"{test}dev": "LibriSpeech dev, speakers never heard",
        f"{test}accents-test": "accents, speakers never heard",
    }
    return "clips", "clips heard", columns, "loss, nats a token"


# log: (column across, its label, {column up: its label}, label up)
CURVES = {
    "tiny-decoder/log.csv": (
        "positions",
        "positions read",
        {"val_plain": "plain text", "val_dictation": "dictation"},
        "loss, nats a token",
    ),
    "tiny-encoder/log.csv": heard("loss"),
    "small-asr/log.csv": heard("small", "small_"),
    "medium-asr/log.csv": heard("medium", "medium_"),
}


def of_few_steps(rows: list[dict], place: int) -> bool:
    """Whether the line is the end of a run: its loss is a mean of fewer steps than others."""
    last, before, first = (int(rows[max(0, place - back)]["step"]) for back in (0, 1, 2))
    return place > 1 and last - before < (before - first) / 2


def draw(log: Path, across: str, x_label: str, columns: dict[str, str], y_label: str) -> None:
    """One picture of one log, beside it."""
    with open(log, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for place, row in enumerate(rows):
        if of_few_steps(rows, place):
            row[next(iter(columns))] = ""
    # A line may lack it: how many clips were heard is logged now and then.
    known = [(float(row["step"]), float(row[across])) for row in rows if row[across]]
    places = np.interp([float(row["step"]) for row in rows], *zip((0, 0), *known, strict=True))
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for column, label in columns.items():
        lines = zip(places, rows, strict=True)
        points = [(place, float(row[column])) for place, row in lines if row[column]]
        label = f"{label}: {points[-1][1]:.2f} at the end"
        axes.plot(*zip(*points, strict=True), label=label, linewidth=2)
    axes.set(xlabel=x_label, ylabel=y_label, ylim=(0, None))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if len(columns) > 1:
        axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(log.with_suffix(".png"), dpi=110, metadata={"Software": None})
    plt.close(figure)
    print(f"wrote {log.with_suffix('.png').relative_to(CHECKOUT)}")


def main() -> None:
    for name, curve in CURVES.items():
        log = MODELS / name
        if log.is_file():
            draw(log, *curve)


if __name__ == "__main__":
    main()
