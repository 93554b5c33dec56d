"""One clip's journey through every stage of the shape contract, kept to be printed and drawn."""

import textwrap
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor

from tiny_asr.audio import leave_out_quiet, load_audio
from tiny_asr.shapes import AXES, CONTRACT, SAMPLE_RATE, Recorded, keep, record


@dataclass
class Trace:
    """One clip's journey: every stage's tensor, the axis sizes, and the text at the end.

    Attributes:
        stages: stage name -> `Recorded`, in the order of the journey.
        sizes: axis symbol -> size.
        seconds_of_audio: length of what went through, seconds.
        text: what the decoder wrote; of an untrained model, meaningless.
        tokens: the written tokens as text pieces, the end token included if it came.
        untrained: the parts of the model with random weights ("encoder", "projector", "decoder").
        names: the model's parts: {"encoder": ..., "decoder": ...}.
        quiet_seconds: how much quiet of the clip was left out before; see `leave_out_quiet`.
    """

    stages: dict[str, Recorded]
    sizes: dict[str, int]
    seconds_of_audio: float
    text: str
    tokens: list[str]
    untrained: tuple[str, ...]
    names: dict[str, str]
    quiet_seconds: float = 0.0

    def __getitem__(self, name: str) -> Tensor:
        """A stage's tensor by its name in the contract."""
        return self.stages[name].tensor

    def table(self) -> "Table":
        """Each stage with its shape in symbols and in numbers, and how many numbers a second."""
        seconds = self.sizes["S"] / SAMPLE_RATE
        return Table(
            [
                {
                    "stage": name,
                    "axes": recorded.stage.shape,
                    "shape": " x ".join(map(str, recorded.tensor.shape)),
                    "numbers/s": _rate(recorded, seconds),
                    "meaning": recorded.stage.meaning,
                }
                for name, recorded in self.stages.items()
            ]
        )

    @property
    def warning(self) -> str:
        """What must stand beside any text of this trace: which parts are untrained, or nothing."""
        if not self.untrained:
            return ""
        return f"untrained: {', '.join(self.untrained)} (random weights: the text means nothing)"

    def __str__(self) -> str:
        """For a terminal of 80 columns, two lines a stage."""
        lines = []
        if self.quiet_seconds:
            whole = self.seconds_of_audio + self.quiet_seconds
            lines.append(f"{'quiet left out':<18} {self.quiet_seconds:.2f} s of {whole:.2f} s")
        for row in self.table().rows:
            lines.append(f"{row['stage']:<18} {row['shape']:<18} {row['axes']}")
            rate = row["numbers/s"]
            rate += "" if rate.endswith("a token") else " numbers/s"
            lines.append(f"{'':<18} {rate:<18} {row['meaning']}")
        notes = textwrap.wrap(repr(self.text), 60) + textwrap.wrap(self.warning, 60)
        lines += [f"{'' if i else 'text':<18} {note}" for i, note in enumerate(notes)]
        return "\n".join(lines)


def _rate(recorded: Recorded, seconds: float) -> str:
    """Numbers a second; of scores for the vocabulary, numbers a token."""
    a_token = "V" in recorded.stage.axes
    count = recorded.tensor.shape[-1] if a_token else recorded.tensor.numel() / seconds
    return f"{count:,.0f}".replace(",", " ") + (" a token" if a_token else "")


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

    Args:
        names: of stages in `CONTRACT`.
    """
    return Table(
        [
            {"stage": line.name, "shape": line.shape, "kind": line.kind, "meaning": line.meaning}
            for line in (CONTRACT[name] for name in names or CONTRACT)
        ]
    )


def axes_table() -> Table:
    """The symbols of the axes and what they count."""
    return Table([{"axis": symbol, "counts": meaning} for symbol, meaning in AXES.items()])


@torch.no_grad()
def trace_clip(model, audio, sampling_rate: int | None = None) -> Trace:
    """Send one clip of at most 30 s through every stage and keep each tensor, float32 on the CPU.

    Long quiet is left out first, as `transcribe` does; the rest goes through in one piece.

    Args:
        model: an `ASRModel`.
        audio: anything `load_audio` takes.
        sampling_rate: Hz, for an array without one.
    """
    clip = load_audio(audio, sampling_rate)
    waveform = torch.cat(leave_out_quiet(clip))
    with record(model) as recorder:
        ids = model.generate([waveform])[0]
        keep("token_ids", ids[None])
    stages = {
        name: Recorded(kept.stage, kept.tensor.cpu().float(), kept.seconds)
        if kept.tensor.is_floating_point()
        else Recorded(kept.stage, kept.tensor.cpu(), kept.seconds)
        for name, kept in recorder.stages.items()
    }
    tokenizer = model.processor.tokenizer
    return Trace(
        stages=stages,
        sizes=recorder.sizes,
        seconds_of_audio=len(waveform) / SAMPLE_RATE,
        text=tokenizer.decode(ids, skip_special_tokens=True).strip(),
        tokens=[tokenizer.decode(token) for token in ids],
        untrained=model.untrained,
        names={"encoder": model.config.encoder, "decoder": model.config.decoder},
        quiet_seconds=(len(clip) - len(waveform)) / SAMPLE_RATE,
    )
