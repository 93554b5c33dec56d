"""Make map.png: the package as it stands, drawn from its modules' docstrings, lines and imports.

Run from the checkout: `.venv/bin/python docs/images/map.py`. Nothing on the picture is typed here
but the reading order and where the boxes stand.
"""

import ast
import textwrap
from collections import Counter
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

PACKAGE = Path(__file__).resolve().parents[2] / "tiny_asr"
ORDER = ("shapes", "device", "audio", "hub", "config", "encoder", "projector", "prompt", "decoder")
ORDER += ("kv_cache", "model", "processor")
ROWS = (
    ("demo", "course", "cli"),
    ("evaluation", "training", "bench", "serve"),
    ("figures", "data", "fast", "listen"),
    ("adapters", "files", "search", "projectors"),
)
TOPS = (10.4, 7.5, 4.5, 1.9)  # of the rows: whoever uses stands above what is used
WIDE = 2.75  # a box
SOUND, WING, LINE = "#2b6cb0", "#f2f2ef", "#8a8a85"


def modules() -> dict[str, Path]:
    """`training.trainer` -> its file, for every module that is more than a docstring."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.stem not in ("__init__", "__main__"):
            name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            found[name.replace("exercises.", "")] = path
    return found


def about(path: Path) -> str:
    """The first line of a file's docstring, as far as its first colon or full stop."""
    line = ast.get_docstring(ast.parse(path.read_text("utf-8"))).splitlines()[0]
    return line.rstrip(".")


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def wing(name: str) -> str:
    """The folder that a module lies in; empty for the path of the sound."""
    return name.split(".")[0] if "." in name else ""


def imports() -> Counter:
    """(wing, wing that it takes from) -> how many of its files do."""
    found = Counter()
    for name, path in modules().items():
        taken = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tiny_asr."):
                taken.add(node.module.split(".")[1])
        folders = {folder for folder in taken if (PACKAGE / folder).is_dir()}
        found.update((wing(name), folder) for folder in folders - {wing(name)})
    return found


def box(axes, x: float, y: float, width: float, height: float, color: str) -> None:
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.08", fc=color, ec="none"
    )
    axes.add_patch(shape)


def path_of_the_sound(axes, found: dict[str, Path]) -> None:
    """The left column: each file with its lines and what it says of itself."""
    total = sum(lines(path) for name, path in found.items() if not wing(name))
    axes.text(0, 10.6, f"the path of the sound: tiny_asr/*.py, {total} lines", weight="bold")
    unread = [name for name in found if not wing(name) and name not in ORDER]
    order = [name for name in (*ORDER, *unread) if name in found]
    step = 10.2 / len(order)
    axes.annotate(
        "", (-0.2, 0.2), (-0.2, 10.3), arrowprops={"arrowstyle": "-|>", "color": SOUND, "lw": 2}
    )
    for number, name in enumerate(order):
        y = 10.2 - (number + 1) * step
        box(axes, 0, y + 0.06, 6.0, step - 0.12, "#dbe9f6")
        axes.text(0.12, y + step / 2, name, color=SOUND, weight="bold", va="center")
        axes.text(1.82, y + step / 2, str(lines(found[name])), color=LINE, va="center", ha="right")
        words = "\n".join(textwrap.wrap(about(found[name]).replace("`", ""), 48))
        axes.text(1.95, y + step / 2, words, va="center", fontsize=7)


def wings(axes, found: dict[str, Path]) -> dict[str, tuple[float, float, float, float]]:
    """The boxes on the right; where each lies: left, bottom, width, height."""
    where = {}
    axes.text(6.9, 10.6, "its wings: who uses stands above what is used", weight="bold")
    for top, names in zip(TOPS, ROWS, strict=True):
        for column, name in enumerate(names):
            files = {key.split(".", 1)[1]: path for key, path in found.items() if wing(key) == name}
            listed = ", ".join(key for key in files if not key.startswith("lesson_"))
            lessons = sorted({key[:9] for key in files if key.startswith("lesson_")})
            listed += f", {lessons[0]} ... {lessons[-1]}" if lessons else ""
            says = textwrap.wrap(about(PACKAGE / name / "__init__.py").replace("`", ""), 31)
            rows = [*says, *textwrap.wrap(listed, 31)]
            x, height = 6.9 + 3.1 * column, 0.52 + 0.2 * len(rows)
            y = top - height
            box(axes, x, y, WIDE, height, WING)
            axes.text(x + 0.1, top - 0.22, f"{name}/", weight="bold", va="center")
            total = str(sum(map(lines, files.values())))
            axes.text(x + WIDE - 0.1, top - 0.22, total, color=LINE, va="center", ha="right")
            for number, row in enumerate(rows):
                color = "black" if number < len(says) else SOUND
                below = top - 0.5 - 0.2 * number
                axes.text(x + 0.1, below, row, color=color, va="center", fontsize=7)
            where[name] = (x, y, WIDE, height)
    return where


def arrows(axes, where: dict, found: Counter) -> None:
    """From each wing to those that it takes from."""
    for user, used in sorted(pair for pair in found if pair[0] in where):
        (x, y, width, height), (to_x, to_y, _, to_height) = where[user], where[used]
        if y > to_y + to_height:  # downwards, from one edge to the other
            aside = 0.18 * (to_x - x) / WIDE
            begin, end = (x + width / 2 + aside, y), (to_x + width / 2 - aside, to_y + to_height)
        else:
            right = to_x > x
            begin = (x + width if right else x, y + height / 2)
            end = (to_x if right else to_x + width, to_y + to_height / 2)
        axes.add_patch(
            FancyArrowPatch(
                begin, end, arrowstyle="-|>", mutation_scale=8, color=LINE, lw=0.8,
                shrinkA=0, shrinkB=1, zorder=0.5,
            )
        )  # fmt: skip


def draw() -> tuple[Figure, str]:
    """The figure, and what it shows in words."""
    found, taken = modules(), imports()
    figure = Figure(figsize=(13.6, 7.6), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set(xlim=(-0.4, 19.2), ylim=(-0.1, 11.1))
    axes.axis("off")
    path_of_the_sound(axes, found)
    where = wings(axes, found)
    arrows(axes, where, taken)
    top = [name for name in found if not wing(name)]
    words = "; ".join(
        f"{name}/ takes from {', '.join(sorted(b for a, b in taken if a == name)) or 'no wing'}"
        for name in sorted(where)
    )
    return figure, (
        f"The package: on the left the path of the sound, {len(top)} files of "
        f"{sum(lines(found[name]) for name in top)} lines, in reading order; on the right its "
        f"wings, each with its files. All take from the path of the sound; besides, {words}."
    )


if __name__ == "__main__":
    figure, words = draw()
    figure.savefig(
        Path(__file__).with_name("map.png"), metadata={"Description": words, "Software": None}
    )
    print(words)
