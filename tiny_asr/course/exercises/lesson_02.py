"""Notebook 02, the encoder: judges of the exercises."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from tiny_asr.course.checks import ask, exercise, expect


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@exercise("02-length")
def length(frames_after) -> str:
    """frames_after(frames, kernel, stride, padding) -> the length of a convolution's output."""
    cases = ((8, 5, 1, 3), (8, 3, 1, 2), (300, 3, 2, 1), (301, 3, 2, 1))
    for case in (*cases, (8, 3, 1, 0), (11, 4, 3, 0), (3000, 3, 2, 1), (20, 5, 1, 1)):
        frames, kernel, stride, padding = case
        full, exact = frames + 2 * padding, (frames + 2 * padding - kernel) / stride + 1
        # Another way than the formula: count what a convolution of torch really gives.
        one = torch.zeros(1, 1, kernel)
        right = F.conv1d(torch.zeros(1, 1, frames), one, stride=stride, padding=padding).shape[2]
        causes = {
            "the stride is not all: the padding gives places, the kernel takes up room": (
                frames // stride
            ),
            "`kernel` is not always 3": (full - 3) // stride + 1,
            "the kernel's first place counts too: add 1 at the end": (full - kernel) // stride,
            "the padding is on both sides": (full - padding - kernel) // stride + 1,
            "a place that only a part of the kernel fits into is none: round down": math.ceil(
                exact
            ),
            "the number of places is an integer: divide with //": exact,
            "the kernel takes up room: subtract its length": full // stride + 1,
            "without room for the kernel the padding is missing": (frames - kernel) // stride + 1,
            "divide by the stride": full - kernel + 1,
            "the last place of the left end is n - kernel, one less": (
                (full - kernel + 1) // stride + 1
            ),
        }
        ask("frames_after", frames_after, *case, expected=right, causes=causes)
    return "3000 mel frames, 30 s, are 1500 encoder frames."


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


@exercise("02-mask")
def mask(weights) -> str:
    """weights(fits, own) -> (T, T): softmax over the first `own` frames, 0 beyond them."""
    for size, own in ((4, 3), (9, 5), (3, 3)):
        fits = 2 * _noise(size, size)
        original, everything = fits.clone(), fits.softmax(dim=1)
        right = F.pad(fits[:, :own].softmax(dim=1), (0, size - own))
        beyond = torch.arange(size) >= own
        rows, masked = beyond[:, None], fits.masked_fill(beyond, -torch.inf)
        rows_masked = fits.masked_fill(rows, -torch.inf).softmax(1)
        zeros = fits.masked_fill(beyond, 0.0).softmax(1)
        causes = {
            "the frames beyond get weight here: their fits must be minus infinity": everything,
            "set to 0 after the softmax the rows no longer add up to 1: mask the fits before "
            "it": everything.masked_fill(beyond, 0.0),
            "a fit of 0 is a fit like others, e^0 = 1; minus infinity is none": zeros,
            "mask the columns, which are looked at, not the rows, which ask": rows_masked,
            "the rows beyond are emptied here; it is the columns that nobody may look at": (
                everything.masked_fill(rows, 0.0)
            ),
            "mask the columns only: the rows beyond ask, too, and nobody reads their answers": (
                right.masked_fill(rows, 0.0)
            ),
            "a row with nothing but minus infinity gives nan; mask the columns only, `[:, own:]`": (
                right.masked_fill(rows, torch.nan)
            ),
            "0 times minus infinity is nan; set the fits beyond to it, do not multiply": (
                torch.full_like(fits, torch.nan)
            ),
            "the softmax is missing: these are the masked fits, not yet weights": masked,
            "each row must add up to 1, so softmax along the last axis, dim=1": masked.softmax(0),
            "the frames beyond keep their columns, with weight 0; here they are cut off": (
                fits[:, :own].softmax(1)
            ),
        }
        expect(f"weights(<{size} x {size}>, {own})", weights(fits, own), right, causes)
        spoilt = {"it changed what it was given; work on a copy, fits.clone()": fits}
        expect("fits after your function", fits, original, spoilt)
    return "A clip in a batch now gives the same frames as alone."


@exercise("02-memory")
def memory(training_bytes) -> str:
    """training_bytes(frozen, trained) -> bytes of weights, gradients and AdamW's averages."""
    for frozen, trained in ((1_000, 0), (0, 1_000), (637_000_000, 20_000_000)):
        two_averages = 4 * frozen + 12 * trained
        causes = {
            "frozen weights have neither gradients nor averages": 16 * (frozen + trained),
            "frozen weights take room too": 16 * trained,
            "each trained weight has a gradient and two averages besides": two_averages,
            "these are numbers; each takes 4 bytes": frozen + 4 * trained,
            "these are the weights alone": 4 * (frozen + trained),
        }
        right = 4 * sum((frozen, trained, trained, trained, trained))
        ask("training_bytes", training_bytes, frozen, trained, expected=right, causes=causes)
    return "A frozen weight takes 4 bytes, a trained one 16: freezing it saves three quarters."
