"""Notebook 02, the encoder: judges of the exercises."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from tiny_asr.course.checks import ask, exercise, expect, expect_mistakes


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@exercise("02-length")
def length(lengths) -> str:
    """Four predictions: how many frames four convolutions put out."""
    cases = (400, 3, 1, 1), (400, 3, 2, 1), (9, 5, 2, 0), (9, 5, 2, 2)
    came = [float(value) for value in lengths]
    expect("the number of predictions", len(came), len(cases))
    for number, (case, value) in enumerate(zip(cases, came, strict=True), start=1):
        frames, kernel, stride, padding = case
        # Another way than the formula: count what a convolution of torch really gives.
        one = torch.zeros(1, 1, kernel)
        right = F.conv1d(torch.zeros(1, 1, frames), one, stride=stride, padding=padding).shape[2]
        full = frames + 2 * padding
        causes = {
            "the padding is on both sides": (frames + padding - kernel) // stride + 1,
            "the kernel's first place counts too": right - 1,
            "the padding is missing": (frames - kernel) // stride + 1,
            "there is no padding here": (frames - 1) // stride + 1,
            "the kernel must lie wholly inside: its left end stops at n - kernel": full // stride,
            "each step is `stride` frames long": full - kernel + 1,
        }
        expect(f"number {number}: {frames} frames, kernel {kernel}", value, right, causes)
    return "And 3000 mel frames, 30 s, are 1500 encoder frames."


@exercise("02-broken")
def broken(mistakes) -> str:
    """Three letters: who forgot what in three faulty maps of attention."""
    why = (
        "its rows do add up to 1, so there is a softmax along them; but one frame gets nearly all",
        "no weight is above 1, so there is a softmax, but its rows do not add up to 1",
        "its weights are far above 1: what makes shares of numbers?",
    )
    expect_mistakes(mistakes, "bca", why)
    return "Row sums tell where the softmax is, the largest weight tells of the root of d."


@exercise("02-positions")
def positions(position_table) -> str:
    """position_table(length, width) -> (length, width): sines left, cosines right."""
    for size, width in ((6, 8), (150, 256)):
        half, frames = width // 2, np.arange(size)[:, None]
        speed = 10_000.0 ** (-np.arange(half) / (half - 1))

        def table(angle):
            return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

        right = table(frames * speed)
        sines, cosines = np.split(right, 2, axis=1)
        woven = np.stack([sines, cosines], axis=2).reshape(size, width)
        loose = table(frames * 10_000.0 ** (-np.arange(half) / half))
        causes = {
            "sines and cosines alternate here, as in the first transformer; Whisper puts all "
            "sines in the left half": woven,
            "the sines come first": np.concatenate([cosines, sines], axis=1),
            "the last speed is exactly 1/10000: divide by half - 1": loose,
            "the first frame is number 0": table((frames + 1) * speed),
            "the speeds fall, from 1 to 1/10000: the exponent is negative": table(frames / speed),
            "rows and columns are exchanged: one row is one frame": right.T,
            "this is the left half, the sines; the cosines stand beside it": sines,
        }
        ask("position_table", position_table, size, width, expected=right, causes=causes)
    return "The first pair turns once in 6.3 frames, the last once in 62 832."


@exercise("02-attention")
def attention(attend) -> str:
    """attend(q, k, v) -> (T, d): softmax(q kT / sqrt(d)) v, one head."""
    toy = torch.eye(2) * 3, torch.eye(2) * 2, torch.tensor([[1.0, 0.0], [0.0, 10.0]])
    large = 2 * _noise(7, 4), 2 * _noise(7, 4, seed=1), _noise(7, 4, seed=2)
    for name, (q, k, v) in {"<toy>": toy, "<7 frames of 4>": large}.items():
        right = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        fits, wide = q @ k.T, math.sqrt(q.shape[1])
        weights, by_frames = (fits / wide).softmax(1), (fits / math.sqrt(len(q))).softmax(1)
        each_column, turned = (fits / wide).softmax(0), (fits.T / wide).softmax(1)
        causes = {
            "divide the fits by the square root of d before the softmax": fits.softmax(1) @ v,
            "divide by the root of d, not by d": (fits / wide**2).softmax(1) @ v,
            "divide by the root of d, the width of a query, not of T, the number of frames": (
                by_frames @ v
            ),
            "each row of weights must add up to 1, so softmax along dim=1": each_column @ v,
            "the softmax is missing": fits / wide @ v,
            "these are the weights; mix the values with them": weights,
            "the queries ask, the keys answer: q @ k.T, not k @ q.T": turned @ v,
            "divide first, then the softmax": fits.softmax(1) / wide @ v,
        }
        ask("attend", attend, q, k, v, expected=right, causes=causes, shown=name)
    return "That is all of attention; the rest is four matrices."
