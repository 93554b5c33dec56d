"""What the two training programs share: the learning rate of a step, and weights in float16."""

import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def set_learning_rate(optimizer, highest: float, step: int, warmup: int, done: float) -> None:
    """Rise linearly over `warmup` steps, fall linearly to 0 as `done` goes from 0 to 1."""
    for group in optimizer.param_groups:
        group["lr"] = highest * min((step + 1) / warmup, max(0.0, 1 - done))


def share_done(step: int, steps: int, began: float, minutes: float) -> float:
    """How much of a run is over after `step`, by steps or by time, whichever is further."""
    return max((step + 1) / steps, (time.time() - began) / (60 * minutes))


def save_half(weights: dict[str, Tensor], out: Path) -> None:
    """Write `out`/model.safetensors: every tensor in float16."""
    half = {name: w.detach().to(torch.float16).cpu().contiguous() for name, w in weights.items()}
    save_file(half, out / "model.safetensors", metadata={"format": "pt"})
