"""Tables: rows of text that a notebook shows as HTML, and the shape contract as such rows."""

from dataclasses import dataclass
from html import escape

from tiny_asr.shapes import AXES, CONTRACT


@dataclass(frozen=True)
class Table:
    """Rows with the same keys, shown as a table in a notebook and as text elsewhere."""

    rows: list[dict[str, str]]

    def __str__(self) -> str:
        widths = {k: max(len(k), *(len(row[k]) for row in self.rows)) for k in self.rows[0]}
        lines = [dict(zip(widths, widths, strict=True)), *self.rows]
        return "\n".join(
            "  ".join(f"{row[key]:<{width}}" for key, width in widths.items()).rstrip()
            for row in lines
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th scope='col' style='text-align:left'>{escape(key)}</th>" for key in self.rows[0]
        )
        cells = (
            "".join(f"<td style='text-align:left'>{escape(value)}</td>" for value in row.values())
            for row in self.rows
        )
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def contract_table(*names: str) -> Table:
    """The contract as a table: all stages, or the named ones (what flows into and out of a lesson).
    `names`: of stages in `CONTRACT`."""
    return Table(
        [
            {"stage": line.name, "shape": line.shape, "kind": line.kind, "meaning": line.meaning}
            for line in (CONTRACT[name] for name in names or CONTRACT)
        ]
    )


def axes_table() -> Table:
    """The symbols of the axes and what they count."""
    return Table([{"axis": symbol, "counts": meaning} for symbol, meaning in AXES.items()])
