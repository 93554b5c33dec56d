# ruff: noqa: F811
# Right answers to the exercises of notebook 01, written otherwise than the solutions: `# %% ID`.

import cmath
import math

import numpy as np
import torch

# %% 01-sea
letters = ("B", "D", "C", "A")

# %% 01-sea
letters = "BDCA"

# %% 01-sea
letters = ["b", "d", "c", "a"]

# %% 01-alias
pitches = (3e3, 7e3, 1e3, 1e3)

# %% 01-alias
pitches = np.array([3000, 7000, 1000, 1000], dtype=np.float32)

# %% 01-alias
pitches = [min(f % 16_000, 16_000 - f % 16_000) for f in (3_000, 9_000, 15_000, 17_000)]

# %% 01-alias
pitches = torch.tensor([3000.0, 7000.0, 1000.0, 1000.0], dtype=torch.float64)

# %% 01-alias
pitches = [abs(f - 16_000 * round(f / 16_000)) for f in (3_000, 9_000, 15_000, 17_000)]


# %% 01-pitch
def strength(frame, hertz):
    c = sum(float(x) * math.cos(2 * math.pi * hertz * n / 16_000) for n, x in enumerate(frame))
    s = sum(float(x) * math.sin(2 * math.pi * hertz * n / 16_000) for n, x in enumerate(frame))
    return c * c + s * s


# %% 01-pitch
def strength(frame, hertz):
    turn = cmath.exp(-2j * cmath.pi * hertz / 16_000)
    return abs(sum(x * turn**n for n, x in enumerate(frame.tolist()))) ** 2


# %% 01-pitch
def strength(frame, hertz):
    n = np.arange(len(frame), dtype=np.float32)
    waves = np.exp(2j * np.pi * hertz * n / 16_000).astype(np.complex64)
    return abs(np.vdot(waves, frame.numpy())) ** 2


# %% 01-pitch
def strength(frame, hertz):
    seconds = torch.linspace(0, (len(frame) - 1) / 16_000, len(frame), dtype=torch.float64)
    waves = torch.stack(
        [(2 * torch.pi * hertz * seconds).cos(), (2 * torch.pi * hertz * seconds).sin()]
    )
    return (waves @ frame.double()).square().sum()


# %% 01-pitch
def strength(frame, hertz):
    return torch.fft.rfft(frame).abs().square()[round(hertz * len(frame) / 16_000)]


# %% 01-filters
def mel_filters(corners, frequencies):
    rows = [
        np.interp(frequencies, each, [0, 1, 0]) * 2 / (each[2] - each[0])
        for each in corners.unfold(0, 3, 1).numpy()
    ]
    return np.array(rows)


# %% 01-filters
def mel_filters(corners, frequencies):
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (
        (frequencies - left) / (middle - left),
        (right - frequencies) / (right - middle),
    )
    return torch.relu(torch.minimum(rising, falling)) * 2 / (right - left)


# %% 01-filters
def mel_filters(corners, frequencies):
    out = torch.zeros(len(corners) - 2, len(frequencies))
    for m, (left, middle, right) in enumerate(corners.unfold(0, 3, 1).tolist()):
        for k, f in enumerate(frequencies.tolist()):
            if left < f < right:
                slope = (
                    (f - left) / (middle - left) if f < middle else (right - f) / (right - middle)
                )
                out[m, k] = slope * 2 / (right - left)
    return out


# %% 01-filters
def mel_filters(corners, frequencies):
    c, f = corners.float(), frequencies.float()
    rows = []
    for m in range(len(c) - 2):
        up = ((f - c[m]) / (c[m + 1] - c[m])).clamp(0, 1)
        down = ((c[m + 2] - f) / (c[m + 2] - c[m + 1])).clamp(0, 1)
        rows.append(up * down * 2 / (c[m + 2] - c[m]))
    return torch.stack(rows)


# %% 01-filters
def mel_filters(corners, frequencies):
    c, f = corners.numpy(), frequencies.numpy()
    slopes = (f - c[:, None]) / np.diff(c, append=np.inf)[:, None]
    up, down = slopes[:-2], 1 - slopes[1:-1]
    return [
        2 / (c[m + 2] - c[m]) * np.clip(np.minimum(up[m], down[m]), 0, None) for m in range(len(up))
    ]
