"""From what is said and its melody to sound: iSTFTNet (Kaneko et al. 2022) with a humming source.

As in StyleTTS 2 (Li et al. 2023), in the sizes of Kokoro-82M: the network writes spectra of windows
of 20 samples, every 5 samples, and an inverse Fourier transform makes sound of them. It need not
invent the pitch: it is given the spectra of a hum of that pitch. B is the batch, F frames of 25 ms
(600 samples at 24 kHz, 120 windows), S the style (128).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.kokoro.layers import SnakeBlock, StyleBlock, conv, upsample

RATE = 24_000
FRAME = 600  # samples
WINDOW, HOP = 20, 5
BINS = WINDOW // 2 + 1  # of a spectrum
UPSAMPLING = (10, 6)  # of frames of 12.5 ms to windows
HALF_FRAME = FRAME // 2  # samples that a value of the pitch stands for
HARMONICS = 9
VOICED_HZ = 10  # below that nobody hums
HUM, BREATH, VOICED_BREATH = 0.1, 0.1 / 3, 0.003  # amplitudes


class Source(nn.Module):
    """The hum of the vocal cords: nine harmonics, and breath where there is no pitch."""

    def __init__(self):
        super().__init__()
        self.l_linear = nn.Linear(HARMONICS, 1)
        harmonics = torch.arange(1, HARMONICS + 1, dtype=torch.float32)[None, :, None]
        self.register_buffer("harmonics", harmonics, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def phases(self, cycles: Tensor) -> Tensor:
        """Cycles a sample at the middle of each half frame, (B, 9, 2F), to phases in cycles,
        (B, 9, 600F): between two middles the phase goes on evenly, outside it stands still."""
        count = cycles.shape[2]
        middles = (torch.cumsum(cycles.double(), 2) * HALF_FRAME % 1).float()  # phases there
        steps = F.pad(cycles[:, :, 1:], (1, 1)) * HALF_FRAME  # from each middle to the next
        before = torch.cat([middles[:, :, :1], middles[:, :, :-1]], 2)
        samples = torch.arange(HALF_FRAME // 2, device=cycles.device, dtype=torch.float32)
        way = (samples + 0.5) / HALF_FRAME
        left = before[..., None] + steps[:, :, :count, None] * (way + 0.5)
        right = middles[..., None] + steps[:, :, 1:, None] * way
        return torch.cat([left, right], 3).flatten(2)

    def forward(self, pitch: Tensor, breath: torch.Generator | None) -> Tensor:
        """Pitch (B, 2F) in Hz to magnitudes and phases of the hum's spectra, (B, 22, 120F + 1).

        breath: draws the noise, and where in its cycle each harmonic begins; None for neither.
        """
        cycles = pitch[:, None] * self.harmonics / RATE % 1
        if breath is not None:
            shape, where = (len(pitch), HARMONICS - 1), pitch.device
            cycles[:, 1:, 0] += torch.rand(shape, generator=breath, device=where)
        voiced = (pitch > VOICED_HZ).float().repeat_interleave(HALF_FRAME, 1)[:, None]
        waves = torch.sin(2 * math.pi * self.phases(cycles)).mul_(HUM * voiced)
        if breath is not None:
            loud = VOICED_BREATH * voiced + BREATH * (1 - voiced)
            waves = waves + loud * torch.randn(waves.shape, generator=breath, device=waves.device)
        hum = torch.tanh(self.l_linear(waves.transpose(1, 2)))[..., 0]
        spectra = torch.stft(hum, WINDOW, HOP, window=self.window, return_complex=True)
        return torch.cat([spectra.abs(), spectra.angle()], 1)

    def sound(self, spectra: Tensor) -> Tensor:
        """Log magnitudes and sines of phases, (B, 22, 120F + 1), to samples (B, 600F)."""
        size = torch.exp(spectra[:, :BINS].clamp(max=20))
        phase = torch.sin(spectra[:, BINS:])
        return torch.istft(torch.polar(size, phase), WINDOW, HOP, window=self.window)


class Generator(nn.Module):
    """Frames of 12.5 ms to spectra: twice longer, each time mixed with the hum."""

    def __init__(self, width: int, style: int):
        super().__init__()
        first, second = UPSAMPLING
        half, quarter = width // 2, width // 4
        hum = 2 * BINS
        self.ups = nn.ModuleList(
            [
                upsample(width, half, 2 * first, first),
                upsample(half, quarter, 2 * second, second),
            ]
        )
        self.noise_convs = nn.ModuleList(
            [conv(hum, half, 2 * second, stride=second), conv(hum, quarter, 1)]
        )
        self.noise_res = nn.ModuleList([SnakeBlock(half, 7, style), SnakeBlock(quarter, 11, style)])
        self.resblocks = nn.ModuleList(
            SnakeBlock(channels, kernel, style)
            for channels in (half, quarter)
            for kernel in (3, 7, 11)
        )
        self.conv_post = conv(quarter, 2 * BINS, 7)

    def forward(self, x: Tensor, style: Tensor, hum: Tensor) -> Tensor:
        """(B, C, 1, 2F), (B, S), the hum's spectra (B, 22, 1, 120F + 1): as many spectra."""
        for i, grow in enumerate(self.ups):
            side = self.noise_res[i](self.noise_convs[i](hum), style)
            x = grow(F.leaky_relu(x, 0.1))
            if i == len(self.ups) - 1:  # there is one window more than hops
                x = torch.cat([x[..., 1:2], x], 3)
                if side.is_contiguous(memory_format=torch.channels_last):
                    x = x.contiguous(memory_format=torch.channels_last)
            x = x + side
            blocks = self.resblocks[3 * i : 3 * i + 3]
            x = sum(block(x, style) for block in blocks) / len(blocks)
        return self.conv_post(F.leaky_relu(x))


class Decoder(nn.Module):
    """Text, pitch and loudness to spectra."""

    def __init__(self, width: int, style: int):
        super().__init__()
        residual = width // 8
        wide = 2 * width
        self.F0_conv, self.N_conv = conv(1, 1, 3, stride=2), conv(1, 1, 3, stride=2)
        self.asr_res = nn.Conv2d(width, residual, 1)
        self.encode = StyleBlock(width + 2, wide, style)
        inside = wide + residual + 2
        self.decode = nn.ModuleList(StyleBlock(inside, wide, style) for _ in range(3))
        self.decode.append(StyleBlock(inside, width, style, doubles=True))
        self.generator = Generator(width, style)

    def forward(
        self, text: Tensor, pitch: Tensor, loudness: Tensor, style: Tensor, hum: Tensor
    ) -> Tensor:
        """text (B, C, F), pitch and loudness (B, 2F), style (B, S), the hum's spectra
        (B, 22, 120F + 1), all float32: spectra (B, 22, 120F + 1) float32."""
        text, pitch, loudness, hum = (
            self.shaped(x) for x in (text, pitch[:, None], loudness[:, None], hum)
        )
        style = style.to(text.dtype)
        melody = self.F0_conv(pitch), self.N_conv(loudness)
        residual = self.asr_res(text)
        x = self.encode(torch.cat([text, *melody], 1), style)
        for block in self.decode:
            x = block(torch.cat([x, residual, *melody], 1), style)
        return self.generator(x, style, hum)[:, :, 0].float()

    def shaped(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, 1, T), in the dtype and the layout of the weights."""
        weight = self.encode.conv1.weight
        last = weight.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        return x.to(weight.dtype)[:, :, None].contiguous(memory_format=layout)
