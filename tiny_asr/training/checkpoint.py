"""Checkpoints of a training run: whole or not there, and nothing in them can run code.

A run that is killed must lose no more than what came after its last checkpoint. So a checkpoint is
written under a temporary name, flushed to the disk, and renamed: a rename happens or does not.
Tensors (projector, optimiser moments, random state) are stored as safetensors, everything else as
JSON. The last two checkpoints are kept, and `latest` names the newer one.

    DIR/checkpoints/step-120/{model,optimizer,random}.safetensors, state.json
    DIR/checkpoints/latest
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tiny_asr.files.writing import PARTIAL, flush, write_text

KEPT = 2


@dataclass
class TrainingState:
    """Where a run stands.

    step: optimiser steps done, skipped ones included.
    utterances: clips seen, over all processes.
    epoch, batch: where in the data the next step begins.
    seconds: time spent training, over all sessions.
    skipped: steps left out because a loss or gradient was not finite.
    best: the lowest WER so far; None without evaluation data.
    worse: evaluations since then.
    beginning: the WER before a trained model was trained on.
    losses: mean loss of each logged interval, for the early warning.
    scaler: the gradient scaler's state, empty unless training in float16.
    """

    step: int = 0
    utterances: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    skipped: int = 0
    best: float | None = None
    worse: int = 0
    beginning: float | None = None
    losses: list[float] = field(default_factory=list)
    scaler: dict[str, float] = field(default_factory=dict)


class DiskError(ValueError):
    """Something could not be written; what was there before is untouched."""


@contextmanager
def explain_failure(what: Path, kept: str) -> Iterator[None]:
    """Turn a failure to write into a DiskError that also says what is still good."""
    try:
        yield
    except Exception as error:
        # On a full disk `tokenizers` raises a plain Exception; all else that has a name is a bug.
        if not isinstance(error, OSError | SafetensorError) and type(error) is not Exception:
            raise
        raise DiskError(f"cannot write {what}: {error}; is the disk full? {kept}") from error


@contextmanager
def temporary_folder(folder: Path, kept: str) -> Iterator[Path]:
    """An empty folder to write into; whatever of it was not moved away is gone afterwards."""
    try:
        with explain_failure(folder, kept):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold a run's folder, which is made where it is not there: two runs would mix their files.

    The system lets go of it however this process ends. Raises ValueError where another holds it.
    """
    with explain_failure(out, "Nothing that was there has changed"):
        out.mkdir(parents=True, exist_ok=True)
        lock = open(out / ".lock", "a")  # noqa: SIM115 - errors within the block are not its own
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another training writes into {out} now; expected a folder of this run's own: "
                "choose another, or wait for its end"
            ) from error
        except (ImportError, OSError):  # Windows and some network disks have no such locks
            pass
        yield


def save_model(out: Path, save_pretrained: Callable[[Path], None]) -> None:
    """Put a model's files into `out`, each of them whole."""
    kept = f"Each file of the model in {out} is the old or the new one, and whole"
    with temporary_folder(out / f"best{PARTIAL}", kept) as folder:
        save_pretrained(folder)
        _flush_all(folder)
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            target = out / file.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            os.replace(file, target)


def save_checkpoint(
    out: Path, trained: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Write `out/checkpoints/step-N`, point `latest` at it, delete all but the last two.

    Raises DiskError if that fails; the checkpoints before are then still there.
    """
    root = out / "checkpoints"
    directory = root / f"step-{state.step}"
    earlier = [path for path in _steps(root) if _step(path) < state.step]
    kept = f"The last good checkpoint is {earlier[-1]}" if earlier else "There is no checkpoint yet"
    with temporary_folder(directory.with_name(directory.name + PARTIAL), kept) as folder:
        save_file(_plain(trained.state_dict()), folder / "model.safetensors")
        save_file(_optimizer_tensors(optimizer), folder / "optimizer.safetensors")
        save_file({"cpu": torch.get_rng_state()}, folder / "random.safetensors")
        (folder / "state.json").write_text(json.dumps(asdict(state), indent=1))
        _flush_all(folder)
        if directory.exists():  # damaged: a resumed run comes by here again
            shutil.rmtree(directory)
        os.replace(folder, directory)
        write_text(root / "latest", directory.name)
        flush(root)
    for path in _steps(root):
        if path not in (directory, *earlier[-KEPT + 1 :]):
            shutil.rmtree(path, ignore_errors=True)


def load_checkpoint(
    out: Path, trained: nn.Module, optimizer: torch.optim.Optimizer, say=print
) -> TrainingState:
    """Restore the newest checkpoint that is whole.

    Args:
        say: told about each one that is damaged.
    Raises ValueError if there is none, or if it does not fit what is trained.
    """
    root = out / "checkpoints"
    for folder in reversed(_steps(root)):
        try:
            weights = load_file(folder / "model.safetensors")
            moments = load_file(folder / "optimizer.safetensors")
            random = load_file(folder / "random.safetensors")["cpu"]
            state = TrainingState(**json.loads((folder / "state.json").read_text()))
        except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
            say(f"resume: {folder} is damaged ({error}); trying the one before")
            continue
        try:
            trained.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                f"{folder} does not fit this model ({error}); expected the encoder, decoder and "
                f"projector that the run began with: see {out / 'run.yaml'}"
            ) from error
        _restore_optimizer(optimizer, moments)
        torch.set_rng_state(random)
        return state
    raise ValueError(
        f"no usable checkpoint under {root}; expected step-N folders there: choose another folder "
        "and start anew"
    )


def has_run(out: Path) -> bool:
    """Whether a run began in `out` and left something that another one would overwrite."""
    return any((out / name).exists() for name in ("checkpoints", "log.csv", "model.safetensors"))


def has_checkpoint(out: Path) -> bool:
    """Whether there is something to resume from in `out`."""
    return bool(_steps(out / "checkpoints"))


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _steps(root: Path) -> list[Path]:
    """The checkpoint folders, oldest first."""
    folders = [path for path in root.glob("step-*") if path.name[5:].isdigit()]
    return sorted(folders, key=_step)


def _flush_all(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        flush(path)


def _plain(tensors: dict) -> dict:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's state, one tensor a name: `3.exp_avg`, `3.exp_avg_sq`, `3.step`."""
    state = optimizer.state_dict()["state"]
    return _plain({f"{i}.{key}": value for i, slot in state.items() for key, value in slot.items()})


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
