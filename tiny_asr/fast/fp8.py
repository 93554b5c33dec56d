"""The products with frozen matrices in 8 bits, to train on a GPU that makes them twice as fast.

Each row of a matrix, and of what it is multiplied with, becomes floating point numbers of 8 bits
(e4m3: 4 of the exponent, 3 of the fraction) and one scale, by which its largest number becomes the
largest that there is. A frozen matrix is rounded once; activations and gradients are each time, in
the kernel that computes them where layers are compiled. The gradient's product sums over the
matrix's other side, so it has a copy of its own, rounded along that side: two of them are as large
as one of 16 bits. What is trained is never rounded.
"""

import torch
from torch import Tensor, nn

EIGHT = torch.float8_e4m3fn
MOST = torch.finfo(EIGHT).max
LEAST = 1e-30  # of a row's largest number: gradients are small, and a scale must not be 0
WHOLE = 16  # a GPU multiplies matrices of whole ones of so many rows and columns
CAPABILITY = (8, 9)  # of a GPU, at least: Ada, Hopper


def in_8_bits(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(M, K) -> the same in 8 bits, and the scale of each row (M, 1)."""
    wide = rows.float()
    top = wide.abs().amax(dim=1, keepdim=True).clamp(min=LEAST)
    return (wide * (MOST / top)).to(EIGHT).contiguous(), top / MOST


def product(rows: Tensor, matrix: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Rows (M, K), rounded here, times a matrix (N, K) in 8 bits with scales (1, N): (M, N), in the
    dtype that came. Without a GPU, the same rounded numbers are multiplied in float32."""
    small, own = in_8_bits(rows)
    if rows.is_cuda:
        bias, kind = None if bias is None else bias.bfloat16(), torch.bfloat16
        y = torch._scaled_mm(small, matrix.t(), own, scale, bias, None, kind, True)
    else:
        y = (small.float() * own) @ (matrix.float().t() * scale)
        y = y if bias is None else y + bias.float()
    return y.to(rows.dtype)


@torch.compiler.allow_in_graph  # traced by itself, Dynamo fails in torch 2.11
class _Product(torch.autograd.Function):
    """`product`, whose gradient for the rows is one as well."""

    @staticmethod
    def forward(ctx, rows, matrix, scale, bias, back, back_scale):
        ctx.save_for_backward(back, back_scale)
        return product(rows, matrix, scale, bias)

    @staticmethod
    def backward(ctx, gradient):
        return product(gradient, *ctx.saved_tensors), None, None, None, None, None


class Fp8Linear(nn.Module):
    """`nn.Linear` with a frozen weight (out, in), kept in 8 bits; with `gradient` also what the
    gradient of its input needs."""

    def __init__(self, linear: nn.Linear, gradient: bool):
        super().__init__()
        weight, scale = in_8_bits(linear.weight.detach())
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), linear.bias
        back, back_scale = in_8_bits(linear.weight.detach().t()) if gradient else (None, None)
        self.register_buffer("scale", scale.t())
        self.register_buffer("back", back)
        self.register_buffer("back_scale", None if back_scale is None else back_scale.t())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the dtype that came."""
        rows, mine = x.reshape(-1, x.shape[-1]), (self.weight, self.scale, self.bias)
        return _Product.apply(rows, *mine, self.back, self.back_scale).view(*x.shape[:-1], -1)


def replace(layers: nn.ModuleList, gradient: bool) -> int:
    """Put the matrices of layers into 8 bits, but those of odd sizes; how many. Raises ValueError
    where something in the layers is trained."""
    if trained := [name for name, p in layers.named_parameters() if p.requires_grad]:
        raise ValueError(
            f"fp8 came with weights in the layers that are trained, such as {trained[0]}; expected "
            "frozen ones alone: leave out fp8, or the adapter"
        )
    count = 0
    for layer in layers:  # one by one, so that what is replaced is freed
        for module in list(layer.modules()):
            for name, child in module.named_children():
                if type(child) is nn.Linear and not any(n % WHOLE for n in child.weight.shape):
                    setattr(module, name, Fp8Linear(child, gradient))
                    count += 1
    return count


def check_device(device: torch.device) -> None:
    """Raise ValueError for a device that can't multiply 8-bit numbers."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device
        raise ValueError(
            f"fp8 came on {name}; expected a GPU that multiplies 8-bit numbers, such as an H100 "
            f"(compute capability {'.'.join(map(str, CAPABILITY))} or more): leave out fp8"
        )


def use_fp8(model) -> str:
    """Put the layers of an `ASRModel` into 8 bits, in place, before they are compiled; a line that
    says how many. Raises ValueError as `check_device` does."""
    check_device(model.device)
    counts = replace(model.encoder.whisper.layers, False), replace(model.decoder.layers, True)
    return "fp8: {} matrices of the encoder in 8 bits, {} of the decoder".format(*counts)
