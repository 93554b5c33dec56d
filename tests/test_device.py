"""Which device and number format are chosen, also on machines that are not here."""

import pytest
import torch

from tiny_asr.device import choose_device, send


@pytest.fixture
def machine(monkeypatch):
    """Pretend to have, or not to have, each kind of GPU."""

    def pretend(cuda: bool = False, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("here", "device", "dtype", "reason"),
    [
        ({}, "cpu", torch.float32, "no CUDA GPU here; float32 is exact"),
        ({"mps": True}, "mps", torch.float32, "an Apple GPU is here; float32"),
        ({"cuda": True}, "cuda", torch.bfloat16, "a CUDA GPU is here; this GPU computes bfloat16"),
        ({"cuda": True, "mps": True}, "cuda", torch.bfloat16, "a CUDA GPU is here"),
    ],
)
def test_auto_takes_the_best_that_is_here(machine, here, device, dtype, reason):
    machine(**here)
    choice = choose_device()
    assert (str(choice.device), choice.dtype) == (device, dtype)
    assert choice.reason.startswith(reason)


def test_an_apple_gpu_that_is_not_here_becomes_the_cpu_and_says_so(machine):
    machine()
    choice = choose_device("mps")
    assert (choice.device.type, choice.dtype) == ("cpu", torch.float32)
    assert choice.reason.startswith("mps was asked for, but torch sees no Apple GPU; float32")
    assert choose_device("mps", "bfloat16").dtype is torch.bfloat16  # which a CPU can do


def test_an_apple_gpu_computes_in_float32_only(machine):
    machine(mps=True)
    assert choose_device("mps", "float32").dtype is torch.float32
    assert choose_device("mps:0").device == torch.device("mps:0")  # what a model on it calls it
    with pytest.raises(
        ValueError, match="dtype 'float16' came with device 'mps'; expected float32"
    ):
        choose_device("mps", "float16")


def test_a_mac_is_still_told_that_it_has_no_cuda(machine):
    machine(mps=True)
    with pytest.raises(ValueError, match="'cuda' was asked for, but torch sees no CUDA GPU"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="expected auto, cpu, cuda or cuda:N, or mps"):
        choose_device("metal")


def test_only_a_cuda_gpu_is_sent_to_from_pinned_memory():
    tensor = torch.zeros(3)
    assert send(tensor, torch.device("cpu")) is tensor
    assert send(tensor, torch.device("meta")).device.type == "meta"  # stands for any other device
