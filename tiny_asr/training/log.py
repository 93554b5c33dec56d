"""What a training run says: a line of progress, a CSV that only grows, an early warning.

The CSV is written a whole line at a time and never rewritten. After a crash some steps are done
again and stand there twice; `read_log` takes the last.
"""

import csv
import math
import time
from pathlib import Path

from tiny_asr.training.checkpoint import TrainingState

LOG_FIELDS = ("step", "utterances", "epoch", "loss", "learning_rate", "grad_norm", "skipped")
LOG_FIELDS += ("utterances_per_second", "seconds", "wer")

NOT_LEARNING = """\
the loss has hardly fallen in the first {utterances} utterances. The usual causes:
  - patience: with both sides frozen there is a cliff, gibberish until some 20 to 90 thousand
    utterances and then text within a few thousand; count utterances, not steps
  - the learning rate: 1e-3 suits a normalised projector output, 1e-4 one without
  - projector_output_norm off: a quiet output gets hardly any gradient back
  - transcripts that do not belong to their clips: listen to a few
  - another prompt in training than the decoder knows"""


class Interval:
    """What happened since the last line of the log."""

    def __init__(self, state: TrainingState):
        self.state, self.begin, self.start = state, state.utterances, time.perf_counter()
        self.losses: list[float] = []
        self.norm = self.rate = math.nan

    def add(self, loss: float, norm: float, rate: float, finite: bool) -> None:
        """One step; the loss of a skipped one does not count."""
        if finite:
            self.losses.append(loss)
        self.norm, self.rate = norm, rate

    def row(self) -> dict:
        """The line of the log, by LOG_FIELDS; it ends the interval."""
        state, elapsed = self.state, time.perf_counter() - self.start
        state.seconds += elapsed
        return {
            "step": state.step,
            "utterances": state.utterances,
            "epoch": state.epoch,
            "loss": sum(self.losses) / len(self.losses) if self.losses else math.nan,
            "learning_rate": self.rate,
            "grad_norm": self.norm,
            "skipped": state.skipped,
            "utterances_per_second": (state.utterances - self.begin) / elapsed,
            "seconds": state.seconds,
            "wer": None,
        }


def append_log(path: Path, row: dict) -> None:
    """Add one line to a CSV file; a line that a killed run left torn is closed first."""
    before = path.read_bytes() if path.exists() else b""
    start = "\n" if before and not before.endswith(b"\n") else ""
    start += "" if before else ",".join(LOG_FIELDS) + "\n"
    with path.open("a") as file:
        file.write(start + ",".join(_cell(row[key]) for key in LOG_FIELDS) + "\n")


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read_log(path: str | Path) -> list[dict[str, float | None]]:
    """A run's log; of steps that were done again after a crash, the last line counts."""
    rows = {}
    with open(path, newline="") as file:
        for line in csv.reader(file):
            try:
                values = [float(value) if value else None for value in line]
                row = dict(zip(LOG_FIELDS, values, strict=True))
            except ValueError:  # the header, or a line torn by a kill
                continue
            rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]


def progress_line(row: dict, max_utterances: int) -> str:
    """One line of at most 80 columns: it reads the same in a terminal, a notebook and a log."""
    rate, wer = row["utterances_per_second"], row["wer"]
    seen = f"{_short(row['utterances'])}/{_short(max_utterances)}"
    loss = f"{row['loss']:.3f}" if row["loss"] < 100 else f"{row['loss']:.0f}"
    text = f"step {_short(row['step']):>5}  utterances {seen:>11}  loss {loss}  "
    if wer is not None:
        text += f"WER {wer:.1%}  " if wer < 1 else f"WER {wer:.0%}  "
    text += f"{rate:.1f}/s  " if rate < 10 else f"{rate:.0f}/s  "
    minutes = (max_utterances - row["utterances"]) / max(0.01, rate) / 60
    if minutes <= 0:
        return text + "done"
    left = f"{_short(round(minutes / 60))} h" if minutes > 99 else f"{max(1, minutes):.0f} min"
    return text + left + " left"


def _short(count: int) -> str:
    """A number in at most 5 characters."""
    if count < 100_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 9_999_500 else f"{count / 1e6:.3g}M"


def hardly_falling(losses: list[float], intervals: int = 6, factor: float = 0.9) -> bool:
    """Whether after exactly `intervals` logged intervals no loss is below 0.9 of the first."""
    return len(losses) == intervals and min(losses[1:]) > factor * losses[0]
