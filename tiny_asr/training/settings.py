"""The settings of a training run, and the learning rate that follows from them.

One flat dataclass: what the command line takes, what `run.yaml` holds, and what a notebook passes
are the same names.
"""

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType

import yaml

from tiny_asr.data.augment import AugmentConfig
from tiny_asr.data.mixing import parts_of
from tiny_asr.files.writing import write_text
from tiny_asr.training.checkpoint import explain_failure


def _setting(default, lowest: float | None = None, weights: bool = True):
    """A field, the lowest number it takes, and whether another value makes other weights."""
    return field(default=default, metadata={"lowest": lowest, "weights": weights})


@dataclass
class TrainingSettings:
    """Everything that makes a run; `run.yaml` in its folder repeats it.

    model: tiny, small, medium, full, a directory or a hub id.
    encoder, decoder: override its frozen parts.
    projector: another kind of projector than the model's (see `PROJECTORS`), which begins fresh.
    fresh: begin with a fresh projector even where the model has a trained one.
    data, split, audio_column, text_column: what to train on: see `load_data`; several: `Part`.
    text: `plain` or `written`, what the model learns to write (see `ASRConfig`); None: as it does.
    limit: the first so many clips only.
    eval_data, eval_split, eval_limit: what to choose the best model by.
    noise_data, noise_fraction: clips in which nobody speaks, and their share of an epoch (0.04).
    out: the run's folder.
    max_utterances: clips seen in all; the learning rate falls to 0 by then.
    batch_seconds: padded seconds of audio in one forward pass, over all processes.
    accumulation: forward passes per optimiser step.
    learning_rate, warmup_utterances, weight_decay, max_grad_norm: of AdamW (beta2 0.95).
    adapter_rank: of a low-rank adapter on the decoder (see `adapters.lora`); None: no new one.
    adapter_learning_rate: its highest, which warms up and falls as the projector's does.
    freeze_projector: train the adapter alone.
    log_every, eval_every, save_every: in utterances.
    patience: stop after so many evaluations in a row without a new best; None: go on to the end.
    cache: folder for encoder outputs; excludes augmentation of waveform and log-mel, but for
    cache_versions: so many augmented versions of each clip are cached, and epochs take turns.
    augment: see `AugmentConfig`.
    trackers: where the log goes besides `log.csv`, such as tensorboard: see `TRACKERS`.
    workers: threads that decode audio.
    seed: of a fresh projector's weights, the order of clips and the augmentation.
    device, dtype: see `choose_device`.
    compile: compile the frozen layers first: faster on a GPU, see `compile_layers`.
    fp8: multiply with the frozen matrices in 8 bits: faster on a Hopper GPU, see `use_fp8`.
    """

    data: str | list
    out: str = field(metadata={"weights": False})
    model: str = "tiny"
    encoder: str | None = None
    decoder: str | None = None
    projector: str | None = None
    fresh: bool = False
    split: str | None = None
    audio_column: str = "audio"
    text_column: str = "text"
    text: str | None = None
    limit: int | None = _setting(None, 1)
    eval_data: str | list | None = None
    eval_split: str | None = None
    eval_limit: int | None = _setting(200, 1)
    noise_data: str | list | None = None
    noise_fraction: float = _setting(0.04, 0)
    max_utterances: int = _setting(40_000, 1)
    batch_seconds: float = _setting(120.0, 0)
    accumulation: int = _setting(1, 1)
    learning_rate: float = _setting(1e-3, 0)
    warmup_utterances: int = _setting(1000, 0)
    adapter_rank: int | None = _setting(None, 1)
    adapter_learning_rate: float = _setting(1e-4, 0)
    freeze_projector: bool = False
    weight_decay: float = _setting(0.0, 0)
    max_grad_norm: float = _setting(1.0, 0)
    log_every: int = _setting(500, 1, weights=False)
    eval_every: int = _setting(5000, 1)
    save_every: int = _setting(2000, 1, weights=False)
    patience: int | None = _setting(None, 1)
    cache: str | None = None
    cache_versions: int = _setting(0, 0)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    trackers: list = field(default_factory=list, metadata={"weights": False})
    workers: int = _setting(2, 1, weights=False)
    seed: int = _setting(0, 0)
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False
    fp8: bool = False

    def __post_init__(self):
        for f in fields(self):
            value = _of_type(f.name, f.type, getattr(self, f.name))
            lowest = f.metadata.get("lowest")
            if None not in (value, lowest) and not lowest <= value < math.inf:  # NaN is not
                raise ValueError(f"{f.name}={value} came; expected a number from {lowest} up")
            setattr(self, f.name, value)
        for source in (self.data, self.eval_data, self.noise_data):
            parts_of(source or ())  # wrong names and weights are refused now
        if self.patience is not None and self.eval_data is None:
            raise ValueError(
                f"patience={self.patience} came without eval_data; expected clips to see by that "
                "it gets no better: set eval_data"
            )
        if self.cache is None and self.cache_versions:
            raise ValueError(
                f"cache_versions={self.cache_versions} came without a cache; expected its folder "
                "too: set cache"
            )
        augmented = self.augment.changes_encoder_input
        if self.cache is not None and augmented and not self.cache_versions:
            raise ValueError(
                "a cache of encoder outputs and augmentation of waveform or log-mel came together; "
                "they exclude each other, since augmented sound is new each time: give up one, or "
                "set cache_versions to the number of augmented versions of each clip to cache"
            )

    def save(self, path: str | Path) -> None:
        """Write the settings as YAML, whole or not at all."""
        with explain_failure(Path(path), "Nothing that was there has changed"):
            write_text(Path(path), yaml.safe_dump(asdict(self), sort_keys=False))

    @classmethod
    def load(cls, path: str | Path, **overrides) -> "TrainingSettings":
        """Read `run.yaml`, with some settings replaced."""
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ValueError(f"cannot read the settings {path}: {error}") from error
        known = {f.name for f in fields(cls)}
        if not isinstance(content, dict) or (unknown := sorted(map(str, content.keys() - known))):
            raise ValueError(
                f"{path} holds {content if not isinstance(content, dict) else unknown}; expected a "
                f"mapping of these settings: {', '.join(sorted(known))}"
            )
        merged = content | overrides
        if missing := sorted({"data", "out"} - merged.keys()):
            raise ValueError(f"{path} lacks {', '.join(missing)}; add it there or as an option")
        return cls(**merged)

    def changed_since(self, path: Path) -> list[str]:
        """What makes other weights than what `run.yaml` says, as `name: old -> new`."""
        pairs = zip(self.load(path)._of_weights().items(), self._of_weights().values(), strict=True)
        return [f"{name}: {old} -> {new}" for (name, old), new in pairs if old != new]

    def _of_weights(self) -> dict:
        """What the weights depend on: on whether there is a cache, for one, not on its place."""
        chosen = [f.name for f in fields(self) if f.metadata.get("weights", True)]
        return {name: vars(self)[name] for name in chosen} | {"cache": self.cache is not None}


def _of_type(name: str, kind, value):
    """A setting as its declared type: YAML reads 1e-3 as text, and a notebook passes paths."""
    if isinstance(value, Path):
        value = str(value)
    elif isinstance(value, list | tuple):
        value = [_plain(item) if isinstance(item, dict) else str(item) for item in value]
    try:
        if kind is float:
            value = float(value)
        elif kind is AugmentConfig and isinstance(value, dict):
            value = AugmentConfig(**value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"expected {kind if isinstance(kind, UnionType) else kind.__name__}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r} came; {error}") from error
    return value


def _plain(item: dict) -> dict:
    """An item of data as YAML can hold it."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in item.items()}


def learning_rate_at(utterances: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then half a cosine down to 0 at `max_utterances`. Utterances, not steps."""
    s = settings
    if utterances < s.warmup_utterances:
        return s.learning_rate * (utterances + 1) / (s.warmup_utterances + 1)
    span = max(1, s.max_utterances - s.warmup_utterances)
    done = min(1.0, (utterances - s.warmup_utterances) / span)
    return s.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
