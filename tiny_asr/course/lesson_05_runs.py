"""Notebook 05: what has a gradient, a run that is killed, and what the full pair costs."""

import os
import re
import subprocess
import sys
from itertools import chain, count
from pathlib import Path

import torch

from tiny_asr.bench.flops import training_bytes  # noqa: F401 (notebook 05 shows it)
from tiny_asr.figures.tables import Table
from tiny_asr.model import ASRModel
from tiny_asr.training.log import read_log
from tiny_asr.training.settings import TrainingSettings

FLOAT32 = 4  # bytes


def gradient_table(model: ASRModel) -> Table:
    """Each part after a backward pass: what has a gradient, and what training keeps for it."""
    rows = []
    parts = {"encoder": model.encoder, "projector": model.audio_projector, "decoder": model.decoder}
    for name, part in parts.items():
        weights = sum(w.numel() for w in part.parameters())
        learnt = sum(w.grad.numel() for w in part.parameters() if w.grad is not None)
        row = {"part": name, "weights": f"{weights:,}", "with a gradient": f"{learnt:,}"}
        # AdamW keeps two moments of each gradient.
        numbers = {"weights": weights, "gradients": learnt, "AdamW": 2 * learnt}
        rows.append(row | {f"MB of {k}": f"{n * FLOAT32 / 1e6:.1f}" for k, n in numbers.items()})
    return Table(rows)


def unused(folder: Path) -> Path:
    """The folder, or with a number behind its name where a run lies in it already."""
    taken = (Path(f"{folder}-{number}") for number in count(2))
    return next(place for place in chain([folder], taken) if not place.exists())


# A run that is killed ----------------------------------------------------------------------------


def kill_at(step: int, settings: TrainingSettings) -> str:
    """Train in another process and kill it, without warning, when it says that it did `step`.

    Returns the last line that it said.
    """
    recipe = Path(settings.out).with_suffix(".yaml")
    settings.save(recipe)
    command = [sys.executable, "-m", "tiny_asr.cli", "train", "--config", str(recipe)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=os.environ | threads, **pipe)
    said = ""
    for line in process.stdout:
        said += line
        found = re.match(r"step +(\d+) ", line)
        if found and int(found[1]) >= step:
            process.kill()  # SIGKILL: no handler runs, nothing can be saved any more
            break
    process.communicate()
    if process.returncode == 0 or not said:
        raise RuntimeError(f"the run was not killed at step {step}; it said: {said}")
    return said.splitlines()[-1]


def losses_of(settings: TrainingSettings) -> dict[int, float]:
    """Step -> loss, as a run logged them."""
    return {int(row["step"]): row["loss"] for row in read_log(Path(settings.out) / "log.csv")}
