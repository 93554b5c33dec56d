"""The loop of the three training programs, and weights in float16."""

import csv
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def learning_rate_at(step: int, steps: int, highest: float, warmup: int) -> float:
    """Rise linearly over `warmup` steps, fall linearly to 0 at the last of `steps`."""
    return highest * min((step + 1) / warmup, 1 - step / steps)


def fit(
    step: Callable[[int], tuple[Tensor, dict[str, Tensor]]],
    measure: Callable[[], dict[str, float]],
    save: Callable[[], None],
    *,
    optimizer: torch.optim.Optimizer,
    steps: int,
    learning_rate: float,
    warmup: int,
    log: Path,
    columns: tuple[str, ...],
    log_every: int,
    save_every: int = 4,
) -> None:
    """Train, and write a line of the log now and then.

    Args:
        step: the loss to learn from in a step, and the losses to log by their columns.
        measure: what else stands in a line of the log.
        save: keeps what was learnt; called with every `save_every`-th line, and at the end.
        log: a CSV file with `columns`; "step" and "seconds" are filled in here.
        log_every: steps from one line to the next.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    began, recent = time.time(), defaultdict(list)
    with open(log, "w", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        for number in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(number, steps, learning_rate, warmup)
            loss, parts = step(number)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            for name, value in parts.items():
                recent[name].append(value.detach())
            last = number + 1 == steps
            if (number + 1) % log_every and not last:
                continue
            row = {"step": number + 1, "seconds": round(time.time() - began, 1)}
            row |= {n: round(torch.stack(v).mean().item(), 4) for n, v in recent.items()}
            row |= measure()
            table.writerow(row)
            file.flush()
            print("  ".join(f"{name} {row[name]}" for name in columns if name in row), flush=True)
            recent.clear()
            if last or (number + 1) % (save_every * log_every) == 0:
                save()


def save_half(weights: dict[str, Tensor], out: Path) -> None:
    """Write `out`/model.safetensors: every tensor in float16."""
    half = {name: w.detach().to(torch.float16).cpu().contiguous() for name, w in weights.items()}
    save_file(half, out / "model.safetensors", metadata={"format": "pt"})
