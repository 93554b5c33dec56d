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
        device: auto, cpu, cuda, cuda:N or mps (Apple's GPU; the CPU where there is none).
        dtype: auto, float32, bfloat16 or float16: the format of the frozen models (the projector
            always stays in float32, its gradients are too small for float16).
    """
    if device != "auto":
        name, reason = device, f"{device} was asked for"
    elif torch.cuda.is_available():
        name, reason = "cuda", "a CUDA GPU is here"
    elif torch.backends.mps.is_available():
        name, reason = "mps", "an Apple GPU is here"
    else:
        name, reason = "cpu", "no CUDA GPU here"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or not (index or "0").isdigit():
        raise ValueError(f"unknown device {device!r}; expected auto, cpu, cuda or cuda:N, or mps")
    if kind == "mps" and not torch.backends.mps.is_available():
        name, reason = "cpu", f"{reason}, but torch sees no Apple GPU"
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"{device!r} was asked for, but torch sees no CUDA GPU; use cpu")
        if int(index or "0") >= torch.cuda.device_count():
            raise ValueError(
                f"device {device!r} is not here; this machine has "
                f"{torch.cuda.device_count()} GPUs, numbered from cuda:0"
            )
    chosen, why = _choose_dtype(torch.device(name), dtype)
    return Choice(torch.device(name), chosen, f"{reason}; {why}")


def _choose_dtype(device: torch.device, dtype: str) -> tuple[torch.dtype, str]:
    if dtype not in ("auto", *DTYPES):
        raise ValueError(f"unknown dtype {dtype!r}; expected auto, {', '.join(DTYPES)}")
    if device.type == "mps" and dtype not in ("auto", "float32"):
        raise ValueError(f"dtype {dtype!r} came with device 'mps'; expected float32, or use cpu")
    if dtype != "auto":
        return DTYPES[dtype], f"{dtype} was asked for"
    if device.type == "mps":
        return torch.float32, "float32 is what every Apple GPU computes"
    if device.type == "cpu":
        return torch.float32, "float32 is exact and fast enough on a CPU"
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16, "this GPU computes bfloat16 natively"
    return torch.float16, "this GPU (before Ampere) has no native bfloat16"


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor on its way to a device. A CUDA GPU gets it from memory that is pinned, so that
    nobody has to wait until the work before it is done."""
    if device.type != "cuda":
        return tensor.to(device)
    pinned = tensor.pin_memory() if tensor.device.type == "cpu" else tensor
    return pinned.to(device, non_blocking=True)


def available_memory_bytes(device: torch.device) -> int:
    """Free memory, bytes: of a CUDA GPU, or of this machine's RAM, which an Apple GPU shares."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
