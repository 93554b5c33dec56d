"""The blocks that Kokoro's prosody and its vocoder are made of.

Sound runs along the last of four axes, (B, C, 1, T): on a GPU, cuDNN has fast kernels in the
channels-last layout for two dimensions, not for one.

B is the batch, C are channels, T is time; a style is (B, S).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inside: int, outside: int, width: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution over time whose output is as long as its input, or 1 / stride of it."""
    padding = (0, (width - stride + 1) // 2 * dilation)
    steps = {"stride": (1, stride), "dilation": (1, dilation)}
    return nn.Conv2d(inside, outside, (1, width), padding=padding, **steps)


def upsample(channels: int, outside: int, width: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution over time, `factor` times as long."""
    padding = (0, (width - factor) // 2)
    return nn.ConvTranspose2d(channels, outside, (1, width), stride=(1, factor), padding=padding)


class StyleNorm(nn.Module):
    """Adaptive instance norm: each channel to mean 0, deviation 1, then as the style has it."""

    def __init__(self, channels: int, style: int):
        super().__init__()
        self.fc = nn.Linear(style, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, 1, T), (B, S) to (B, C, 1, T)."""
        gain, bias = self.fc(style).float()[:, :, None, None].chunk(2, 1)
        if x.dtype == torch.float32:
            variance, mean = torch.var_mean(x, dim=3, unbiased=False, keepdim=True)
        else:  # sums in float32, without a copy of x in it
            mean = torch.mean(x, dim=3, keepdim=True, dtype=torch.float32)
            norm = torch.linalg.vector_norm(x, dim=3, keepdim=True, dtype=torch.float32)
            variance = (norm.square() / x.shape[3] - mean * mean).clamp(min=0)
        scale = (1 + gain) * torch.rsqrt(variance + 1e-5)
        return torch.addcmul((bias - mean * scale).to(x.dtype), x, scale.to(x.dtype))


class StyleBlock(nn.Module):
    """A residual block with two convolutions, each behind a style norm; doubles the time if told.

    `AdainResBlk1d` of StyleTTS 2.
    """

    def __init__(self, inside: int, outside: int, style: int, doubles: bool = False):
        super().__init__()
        self.norm1, self.norm2 = StyleNorm(inside, style), StyleNorm(outside, style)
        self.conv1, self.conv2 = conv(inside, outside, 3), conv(outside, outside, 3)
        self.conv1x1, self.pool = None, None
        if inside != outside:
            self.conv1x1 = nn.Conv2d(inside, outside, 1, bias=False)
        if doubles:
            self.pool = nn.ConvTranspose2d(
                inside,
                inside,
                (1, 3),
                stride=(1, 2),
                padding=(0, 1),
                output_padding=(0, 1),
                groups=inside,
            )

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, inside, 1, T), (B, S) to (B, outside, 1, T or 2T)."""
        branch = F.leaky_relu(self.norm1(x, style), 0.2)
        if self.pool is not None:
            branch, x = self.pool(branch), F.interpolate(x, scale_factor=(1.0, 2.0), mode="nearest")
        branch = self.conv1(branch)
        branch = self.conv2(F.leaky_relu(self.norm2(branch, style), 0.2))
        if self.conv1x1 is not None:
            x = self.conv1x1(x)
        return (branch + x) * math.sqrt(0.5)


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """x + sin²(alpha x) / alpha: an activation that can hum (Ziyin et al. 2020)."""
    return torch.addcmul(x, torch.sin(x * alpha).square_(), 1 / alpha)


class SnakeBlock(nn.Module):
    """Three residual pairs of convolutions, ever wider, behind style norms and snakes.

    `AdaINResBlock1` of StyleTTS 2's iSTFTNet.
    """

    def __init__(self, channels: int, width: int, style: int):
        super().__init__()
        steps = (1, 3, 5)
        self.convs1 = nn.ModuleList(conv(channels, channels, width, dilation=d) for d in steps)
        self.convs2 = nn.ModuleList(conv(channels, channels, width) for _ in steps)
        self.adain1 = nn.ModuleList(StyleNorm(channels, style) for _ in steps)
        self.adain2 = nn.ModuleList(StyleNorm(channels, style) for _ in steps)
        one = torch.ones(1, channels, 1, 1)
        self.alpha1 = nn.ParameterList(nn.Parameter(one.clone()) for _ in steps)
        self.alpha2 = nn.ParameterList(nn.Parameter(one.clone()) for _ in steps)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, 1, T), (B, S) to (B, C, 1, T)."""
        for i in range(len(self.convs1)):
            branch = self.convs1[i](snake(self.adain1[i](x, style), self.alpha1[i]))
            x = x + self.convs2[i](snake(self.adain2[i](branch, style), self.alpha2[i]))
        return x
