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
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

KEPT = 2
PARTIAL = ".partial"


@dataclass
class TrainingState:
    """Where a run stands.

    step: optimiser steps done, skipped ones included.
    utterances: clips seen, over all processes.
    epoch, batch: where in the data the next step begins.
    seconds: time spent training, over all sessions.
    skipped: steps left out because a loss or gradient was not finite.
    best: the lowest error so far (WER, or the training loss without evaluation data).
    losses: mean loss of each logged interval, for the early warning.
    """

    step: int = 0
    utterances: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    skipped: int = 0
    best: float | None = None
    losses: list[float] = field(default_factory=list)


class DiskError(OSError):
    """Something could not be written; what was there before is untouched."""


def write_whole(directory: Path, write: Callable[[Path], None], keep: str) -> None:
    """Let `write` fill a temporary folder, flush it, and rename it to `directory`.

    Args:
        keep: what is still good when this fails, for the error message.
    """
    partial = directory.with_name(directory.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write(partial)
        for file in partial.iterdir():
            _flush(file)
        if directory.exists():
            shutil.rmtree(directory)
        os.replace(partial, directory)
        _flush(directory.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DiskError(f"cannot write {directory}: {error}; is the disk full? {keep}") from error


def write_files(folder: Path, target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill the temporary `folder`, then move its files into `target` one by one."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        write(folder)
        for file in folder.iterdir():
            os.replace(file, target / file.name)
    except (OSError, SafetensorError) as error:
        raise DiskError(
            f"cannot write the model to {target}: {error}; is the disk full? Each file that was "
            "there is either old or new, and whole"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def save_checkpoint(
    out: Path, projector: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState
) -> Path:
    """Write `out/checkpoints/step-N`, point `latest` at it, delete all but the last two."""
    root = out / "checkpoints"
    directory = root / f"step-{state.step}"
    latest = root / "latest"
    last_good = (
        f"the last good checkpoint is {latest.read_text()}" if latest.exists() else "none yet"
    )

    def write(folder: Path) -> None:
        save_file(_plain(projector.state_dict()), folder / "model.safetensors")
        save_file(_optimizer_tensors(optimizer), folder / "optimizer.safetensors")
        save_file({"cpu": torch.get_rng_state()}, folder / "random.safetensors")
        (folder / "state.json").write_text(json.dumps(asdict(state), indent=1))

    write_whole(directory, write, last_good)
    pointer = root / f"latest{PARTIAL}"
    try:
        pointer.write_text(directory.name)
        os.replace(pointer, latest)
    except OSError as error:
        raise DiskError(f"cannot write {latest}: {error}; {last_good}") from error
    for old in _steps(root)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return directory


def load_checkpoint(
    out: Path, projector: nn.Module, optimizer: torch.optim.Optimizer, say=print
) -> TrainingState:
    """Restore the newest checkpoint that is whole; ValueError if there is none."""
    root = out / "checkpoints"
    latest = root / "latest"
    names = [latest.read_text().strip()] if latest.is_file() else []
    names += [path.name for path in reversed(_steps(root)) if path.name not in names]
    for name in names:
        folder = root / name
        try:
            weights = load_file(folder / "model.safetensors")
            moments = load_file(folder / "optimizer.safetensors")
            random = load_file(folder / "random.safetensors")
            state = TrainingState(**json.loads((folder / "state.json").read_text()))
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            say(f"resume: {folder} is damaged ({error}); trying the one before")
            continue
        projector.load_state_dict(weights)
        _restore_optimizer(optimizer, moments)
        torch.set_rng_state(random["cpu"])
        return state
    raise ValueError(
        f"no usable checkpoint under {root}; expected step-N folders there: start the run "
        "without --resume"
    )


def has_checkpoint(out: Path) -> bool:
    """Whether a run in `out` left anything to resume from."""
    return bool(_steps(out / "checkpoints"))


def _steps(root: Path) -> list[Path]:
    """The checkpoint folders, oldest first."""
    folders = [path for path in root.glob("step-*") if path.name[5:].isdigit()]
    return sorted(folders, key=lambda path: int(path.name[5:]))


def _flush(path: Path) -> None:
    """Make sure that what was written to a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
