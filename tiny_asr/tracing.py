"""The shape contract, and a trace of one clip through every stage.

`CONTRACT` declares each tensor that flows from sound to text once: its axes, its dtype, what it
means. From this one declaration come the assertion at run time (`with record(model) as recorder`),
the line in the docstring of the function that makes the tensor (`@stage`), the table that a
notebook prints and the picture that it draws. Nothing else in the project types a shape twice.
"""

import math
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from html import escape

import torch
from torch import Tensor

AXES = {
    "B": "batch: clips side by side",
    "S": "samples of the waveform, 16 000 a second",
    "M": "mel bins: bands of pitch",
    "F": "mel frames, 100 a second",
    "T": "encoder frames, 50 a second",
    "A": "audio embeddings, 50 / audio_downsample_rate a second",
    "P": "prompt tokens: the text around the audio",
    "L": "text tokens of the transcript, its end token included",
    "V": "vocabulary: tokens the decoder can write",
    "encoder_dim": "width of an encoder frame",
    "llm_dim": "width of a decoder embedding",
    "audio_downsample_rate": "encoder frames stacked into one audio embedding",
}


@dataclass(frozen=True)
class Stage:
    """One line of the contract: a tensor's name, axes, kind of number, and meaning."""

    name: str
    axes: tuple[str, ...]
    kind: str
    meaning: str

    @property
    def shape(self) -> str:
        """The axes as text, such as `(B, T, encoder_dim)`."""
        return f"({', '.join(self.axes)})"


CONTRACT = {
    stage.name: stage
    for stage in (
        Stage("waveform", ("B", "S"), "float", "air pressure, -1 to 1"),
        Stage("log_mel", ("B", "M", "F"), "float", "loudness of each band of pitch"),
        Stage("conv1", ("B", "encoder_dim", "F"), "float", "short patterns over 3 mel frames"),
        Stage("conv2", ("B", "encoder_dim", "T"), "float", "stride 2: one frame every 20 ms"),
        Stage("encoder_output", ("B", "T", "encoder_dim"), "float", "the sounds, each in context"),
        Stage(
            "stacked_frames",
            ("B", "A", "audio_downsample_rate*encoder_dim"),
            "float",
            "neighbouring frames side by side",
        ),
        Stage("audio_embeddings", ("B", "A", "llm_dim"), "float", "sound, as the decoder reads it"),
        Stage("decoder_input", ("B", "P+A", "llm_dim"), "float", "the prompt with the audio in it"),
        Stage("next_token_logits", ("B", "V"), "float", "a score for every possible next token"),
        Stage("text_logits", ("B", "L", "V"), "float", "training: scores at text positions only"),
        Stage("token_ids", ("B", "L"), "int", "the transcript, as tokens"),
    )
}

# How the time axes follow from one another (see "Time, exactly" in docs: no frame is ever dropped).
RELATIONS: dict[str, tuple[str, Callable[[dict[str, int]], int]]] = {
    "F": ("S / 160", lambda n: n["S"] // 160),
    "T": ("F / 2", lambda n: n["F"] // 2),
    "A": ("T / audio_downsample_rate", lambda n: n["T"] // n["audio_downsample_rate"]),
}


class ShapeError(ValueError):
    """A tensor does not have the shape or kind of number that the contract declares."""


@dataclass(frozen=True)
class Recorded:
    """A stage as it came: the contract's line, the tensor (detached), seconds since the start."""

    stage: Stage
    tensor: Tensor
    seconds: float


@dataclass
class Recorder:
    """Collects stages under `record`, and checks each against the contract.

    `sizes` binds each axis symbol to a number when it is first seen; later stages must agree.
    """

    sizes: dict[str, int]
    stages: dict[str, Recorded] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)

    def add(self, name: str, tensor: Tensor) -> None:
        """Check one tensor and keep it. Of a stage that comes again, the first one is kept."""
        stage = CONTRACT[name]
        if name in self.stages:
            return
        came = f"{name} came as {tuple(tensor.shape)} {tensor.dtype}; expected {stage.shape}"
        if tensor.ndim != len(stage.axes):
            raise ShapeError(f"{came}: {len(stage.axes)} axes, not {tensor.ndim}")
        if tensor.is_floating_point() != (stage.kind == "float"):
            raise ShapeError(f"{came} of kind {stage.kind}")
        for axis, size in zip(stage.axes, tensor.shape, strict=True):
            expected = self._expected(axis, size)
            if size != expected:
                raise ShapeError(f"{came} with {axis} = {expected}, not {size}")
        seconds = time.perf_counter() - self.start
        self.stages[name] = Recorded(stage, tensor.detach(), seconds)

    def _expected(self, axis: str, size: int) -> int:
        """The size that an axis must have; a symbol not seen before is bound to `size`."""
        if axis in AXES and axis not in self.sizes:
            _, derive = RELATIONS.get(axis, ("", None))
            try:
                self.sizes[axis] = size if derive is None else derive(self.sizes)
            except KeyError:  # an earlier time axis was not recorded: nothing to derive it from
                self.sizes[axis] = size
        terms = [[self.sizes[symbol] for symbol in term.split("*")] for term in axis.split("+")]
        return sum(math.prod(term) for term in terms)


_recorder: ContextVar[Recorder | None] = ContextVar("tiny_asr_recorder", default=None)


@contextmanager
def record(model) -> Iterator[Recorder]:
    """Within this block every stage that `model` computes is checked against the contract and kept.

    Args:
        model: an `ASRModel`; its config gives M, V, the widths and the downsample rate.
    """
    config = model.config
    recorder = Recorder(
        {
            "M": config.num_mel_bins,
            "V": config.vocab_size,
            "encoder_dim": config.encoder_dim,
            "llm_dim": config.llm_dim,
            "audio_downsample_rate": config.audio_downsample_rate,
            "P": model.decoder.prompt_length,
        }
    )
    token = _recorder.set(recorder)
    try:
        yield recorder
    finally:
        _recorder.reset(token)


def keep(name: str, tensor: Tensor) -> Tensor:
    """Hand a tensor to the recorder, if one is at work, and return it unchanged."""
    recorder = _recorder.get()
    if recorder is not None:
        recorder.add(name, tensor)
    return tensor


def stage(name: str):
    """Decorate a function that returns stage `name`: documents the shape, checks it under `record`.

    A function that returns a tuple has the stage as its first member.
    """
    line = CONTRACT[name]

    def decorate(function):
        @wraps(function)
        def wrapper(*args, **kwargs):
            result = function(*args, **kwargs)
            keep(name, result[0] if isinstance(result, tuple) else result)
            return result

        wrapper.__doc__ = (
            f"{(function.__doc__ or '').rstrip()}\n\n"
            f"    Stage `{name}` of the shape contract: {line.shape} {line.kind}, {line.meaning}.\n"
        )
        return wrapper

    return decorate


@dataclass
class Trace:
    """One clip's journey: every stage's tensor, the axis sizes, and the text at the end.

    Attributes:
        stages: stage name -> `Recorded`, in the order of the journey.
        sizes: axis symbol -> size.
        seconds_of_audio: length of the clip, seconds.
        text: what the decoder wrote; of an untrained model, meaningless.
        tokens: the written tokens as text pieces, the end token included if it came.
        untrained: the parts of the model with random weights ("encoder", "projector", "decoder").
        names: the model's parts: {"encoder": ..., "decoder": ...}.
    """

    stages: dict[str, Recorded]
    sizes: dict[str, int]
    seconds_of_audio: float
    text: str
    tokens: list[str]
    untrained: tuple[str, ...]
    names: dict[str, str]

    def __getitem__(self, name: str) -> Tensor:
        """A stage's tensor by its name in the contract."""
        return self.stages[name].tensor

    def table(self) -> "Table":
        """Each stage with its shape in symbols and in numbers, and how many numbers a second."""
        seconds = self.sizes["S"] / 16_000
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

    Args:
        model: an `ASRModel`.
        audio: anything `load_audio` takes.
        sampling_rate: Hz, for an array without one.
    """
    from tiny_asr.audio import SAMPLE_RATE, load_audio

    waveform = load_audio(audio, sampling_rate)
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
    )
