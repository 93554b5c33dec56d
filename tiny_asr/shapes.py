"""The shapes and the clock that every part agrees on: the contract, its check, the two masks.

`CONTRACT` declares each tensor that flows from sound to text once: its axes, its dtype, what it
means. From this one declaration come the assertion at run time (`with record(model) as recorder`),
the line in the docstring of the function that makes the tensor (`@stage`), the table that a
notebook prints and the picture that it draws. Nothing else in the project types a shape twice.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps

import torch
from torch import Tensor

# The clock: how samples, mel frames and encoder frames follow from one another.
SAMPLE_RATE = 16_000  # samples a second; holds frequencies up to half of it, 8 kHz
HOP_LENGTH = 160  # 10 ms from one mel frame to the next
SAMPLES_PER_ENCODER_FRAME = 2 * HOP_LENGTH  # 20 ms: the encoder's second convolution has stride 2
ENCODER_FRAMES_PER_SECOND = SAMPLE_RATE // SAMPLES_PER_ENCODER_FRAME
MAX_SECONDS = 30  # the encoder has position embeddings for this much and no more
MAX_SAMPLES = MAX_SECONDS * SAMPLE_RATE  # 480 000

IGNORE = -100  # a label that the loss leaves out, as everywhere in PyTorch

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
    "F": ("S / 160", lambda n: n["S"] // HOP_LENGTH),
    "T": ("F / 2", lambda n: n["F"] // 2),
    "A": ("T / audio_downsample_rate", lambda n: -(-n["T"] // n["audio_downsample_rate"])),
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


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """(B, frames) bool: which frames belong to a clip of `lengths` (B,) frames."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def attention_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What attention adds to its scores (B, 1, 1, T): 0 where `seen` (B, T) is True, and the lowest
    number there is elsewhere."""
    zeros = torch.zeros_like(seen, dtype=dtype)
    return zeros.masked_fill(~seen, torch.finfo(dtype).min)[:, None, None]
