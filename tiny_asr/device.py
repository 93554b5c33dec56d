"""Which device and which number format, and why: one place that decides and can say its reason."""

from typing import NamedTuple

import psutil
import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Choice(NamedTuple):
    """A device, the dtype of the frozen models on it, and the reason in plain words."""

    device: torch.device
    dtype: torch.dtype
    reason: str


def choose_device(device: str = "auto", dtype: str = "auto") -> Choice:
    """Resolve `auto` and check what was asked for against what this machine has.

    Args:
        device: auto, cpu, cuda or cuda:N.
        dtype: auto, float32, bfloat16 or float16: the format of the frozen models (the projector
            always stays in float32, its gradients are too small for float16).
    """
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        reason = "a CUDA GPU is here" if name == "cuda" else "no CUDA GPU here"
    else:
        name, reason = device, f"{device} was asked for"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or not (index or "0").isdigit():
        raise ValueError(f"unknown device {device!r}; expected auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"{device!r} was asked for, but torch sees no CUDA GPU; use cpu")
        if int(index or "0") >= torch.cuda.device_count():
            raise ValueError(
                f"device {device!r} is not here; this machine has "
                f"{torch.cuda.device_count()} GPUs, numbered from cuda:0"
            )
    if dtype == "auto":
        if kind == "cpu":
            chosen, why = torch.float32, "float32 is exact and fast enough on a CPU"
        elif torch.cuda.get_device_capability(torch.device(name)) >= (8, 0):
            chosen, why = torch.bfloat16, "this GPU computes bfloat16 natively"
        else:
            chosen, why = torch.float16, "this GPU (before Ampere) has no native bfloat16"
    elif dtype in DTYPES:
        chosen, why = DTYPES[dtype], f"{dtype} was asked for"
    else:
        raise ValueError(f"unknown dtype {dtype!r}; expected auto, {', '.join(DTYPES)}")
    return Choice(torch.device(name), chosen, f"{reason}; {why}")


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor on its way to a device. A GPU gets it from memory that is pinned, so that
    nobody has to wait until the work before it is done."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def available_memory_bytes(device: torch.device) -> int:
    """Free memory, bytes: of the GPU, or of this machine's RAM."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
