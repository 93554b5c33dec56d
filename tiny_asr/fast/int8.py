"""The decoder's matrices in 8 bits: less to read at each token on a CPU, less memory on a GPU.

Each row of a matrix becomes whole numbers from -127 to 127 and one scale; what it is multiplied
with stays as it is, in bfloat16. (Rounding that to 8 bits as well, PyTorch's dynamic quantisation,
made SmolLM2 write nonsense: a few of its activations are hundreds of times as large as the rest.)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 8  # rows: with more of them, reading the matrix is no longer what takes the time


class Int8Linear(nn.Module):
    """`nn.Linear` whose weight (out, in) is kept as int8, with a scale for each row."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(torch.bfloat16))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the dtype that came."""
        if x.ndim != 2:
            return self(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
        if len(x) <= FEW and not x.is_cuda:
            y = torch._weight_int8pack_mm(x.bfloat16(), self.weight, self.scale).to(x.dtype)
        else:
            wide, scale = self.weight.to(x.dtype), self.scale.to(x.dtype)
            half = x.dtype == torch.float16  # it ends at 65 504, and whole numbers sum up to more
            y = F.linear(x, wide * scale[:, None]) if half else F.linear(x, wide) * scale
        return y if self.bias is None else y + self.bias.to(x.dtype)


def quantise(model) -> None:
    """Put the matrices of an `ASRModel`'s decoder into 8 bits, in place, on a CPU; then it may move
    to a GPU. Embeddings, which are only looked up, encoder and projector stay. Raises ValueError
    where the model is elsewhere, or has an adapter that is not merged."""
    if model.device.type != "cpu":
        raise ValueError(f"int8 came on {model.device}; expected the CPU: quantise, then move it")
    if any(not getattr(module, "merged", True) for module in model.decoder.modules()):
        raise ValueError(
            "int8 came with an adapter beside the matrices; expected one that is merged"
        )
    for module in list(model.decoder.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child))
