"""One clip's journey through every stage of the shape contract, kept to be printed and drawn."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tiny_asr.audio import leave_out_quiet, load_audio
from tiny_asr.shapes import SAMPLE_RATE, Recorded, keep, record


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

    def rows(self) -> list[dict[str, str]]:
        """Each stage with its shape in symbols and in numbers, and how many numbers a second."""
        seconds = self.sizes["S"] / SAMPLE_RATE
        return [
            {
                "stage": name,
                "axes": recorded.stage.shape,
                "shape": " x ".join(map(str, recorded.tensor.shape)),
                "numbers/s": _rate(recorded, seconds),
                "meaning": recorded.stage.meaning,
            }
            for name, recorded in self.stages.items()
        ]

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
        for row in self.rows():
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


@torch.no_grad()
def trace_clip(
    model, audio, sampling_rate: int | None = None, beams: int = 1, hints: Sequence[str] = ()
) -> Trace:
    """Send one clip of at most 30 s through every stage and keep each tensor, float32 on the CPU.

    Long quiet is left out first, as `transcribe` does; the rest goes through in one piece.

    Args:
        model: an `ASRModel`.
        audio: anything `load_audio` takes.
        sampling_rate: Hz, for an array without one.
        beams, hints: see `ASRModel.transcribe`.
    """
    clip = load_audio(audio, sampling_rate)
    waveform = torch.cat(leave_out_quiet(clip))
    with record(model) as recorder:
        ids = model.generate([waveform], beams=beams, hints=hints)[0]
        keep("token_ids", ids[None])
    tokenizer = model.processor.tokenizer
    return Trace(
        stages={
            name: replace(kept, tensor=_on_the_cpu(kept.tensor))
            for name, kept in recorder.stages.items()
        },
        sizes=recorder.sizes,
        seconds_of_audio=len(waveform) / SAMPLE_RATE,
        text=tokenizer.decode(ids, skip_special_tokens=True).strip(),
        tokens=[tokenizer.decode(token) for token in ids],
        untrained=model.untrained,
        names={"encoder": model.config.encoder, "decoder": model.config.decoder},
        quiet_seconds=(len(clip) - len(waveform)) / SAMPLE_RATE,
    )


def _on_the_cpu(tensor: Tensor) -> Tensor:
    return tensor.float().cpu() if tensor.is_floating_point() else tensor.cpu()
