"""Notebook 02, the encoder: judges of the exercises, and the quiz."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from tiny_asr.course.checks import exercise, expect
from tiny_asr.course.quiz import Question


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@exercise("02-length")
def length(frames_after) -> str:
    """frames_after(frames, kernel, stride, padding) -> the length of a convolution's output."""
    cases = (
        (8, 5, 1, 3),
        (8, 3, 1, 2),
        (300, 3, 2, 1),
        (301, 3, 2, 1),
        (8, 3, 1, 0),
        (11, 4, 3, 0),
        (3000, 3, 2, 1),
        (20, 5, 1, 1),
    )
    for frames, kernel, stride, padding in cases:
        taken = frames + 2 * padding - kernel
        # Another way than the formula: count what a convolution of torch really gives.
        one = torch.zeros(1, 1, kernel)
        right = F.conv1d(torch.zeros(1, 1, frames), one, stride=stride, padding=padding).shape[2]
        causes = {
            "the stride is not all: the padding gives places, the kernel takes up room": (
                frames // stride
            ),
            "`kernel` is not always 3": (frames + 2 * padding - 3) // stride + 1,
            "the kernel's first place counts too: add 1 at the end": taken // stride,
            "the padding is on both sides": (frames + padding - kernel) // stride + 1,
            "a place that only a part of the kernel fits into is none: round down": math.ceil(
                taken / stride + 1
            ),
            "the number of places is an integer: divide with //": taken / stride + 1,
            "the kernel takes up room: subtract its length": (frames + 2 * padding) // stride + 1,
            "without room for the kernel the padding is missing": (frames - kernel) // stride + 1,
            "divide by the stride": taken + 1,
            "the last place of the left end is n - kernel, one less": (taken + 1) // stride + 1,
        }
        causes = {cause: value for cause, value in causes.items() if value != right}
        call = f"frames_after({frames}, {kernel}, {stride}, {padding})"
        expect(call, frames_after(frames, kernel, stride, padding), right, causes)
    return "3000 mel frames, 30 s, are 1500 encoder frames."


@exercise("02-positions")
def positions(position_table) -> str:
    """position_table(length, width) -> (length, width): sines left, cosines right."""
    for size, width in ((6, 8), (150, 256)):
        half = width // 2
        speed = 10_000.0 ** (-np.arange(half) / (half - 1))
        angle = np.arange(size)[:, None] * speed
        turned = np.exp(1j * angle)
        right = np.concatenate([turned.imag, turned.real], axis=1)
        woven = np.stack([turned.imag, turned.real], axis=2).reshape(size, width)
        loose = np.exp(1j * np.arange(size)[:, None] * 10_000.0 ** (-np.arange(half) / half))
        late = np.exp(1j * (np.arange(size)[:, None] + 1) * speed)
        fast = np.exp(1j * np.arange(size)[:, None] / speed)
        causes = {
            "sines and cosines alternate here, as in the first transformer; Whisper puts all "
            "sines in the left half": woven,
            "the sines come first": np.concatenate([turned.real, turned.imag], axis=1),
            "the last speed is exactly 1/10000: divide by half - 1": np.concatenate(
                [loose.imag, loose.real], axis=1
            ),
            "the first frame is number 0": np.concatenate([late.imag, late.real], axis=1),
            "the speeds fall, from 1 to 1/10000: the exponent is negative": np.concatenate(
                [fast.imag, fast.real], axis=1
            ),
            "rows and columns are exchanged: one row is one frame": right.T,
            "this is the left half, the sines; the cosines stand beside it": turned.imag,
        }
        expect(f"position_table({size}, {width})", position_table(size, width), right, causes)
    return "The first pair turns once in 6.3 frames, the last once in 62 832."


@exercise("02-attention")
def attention(attend) -> str:
    """attend(q, k, v) -> (T, d): softmax(q kT / sqrt(d)) v, one head."""
    toy = torch.eye(2) * 3, torch.eye(2) * 2, torch.tensor([[1.0, 0.0], [0.0, 10.0]])
    large = 2 * _noise(7, 4), 2 * _noise(7, 4, seed=1), _noise(7, 4, seed=2)
    for name, (q, k, v) in {"toy": toy, "7 frames of 4": large}.items():
        right = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        fits, wide = q @ k.T, math.sqrt(q.shape[1])
        causes = {
            "divide the fits by the square root of d before the softmax": fits.softmax(1) @ v,
            "divide by the root of d, not by d": (fits / wide**2).softmax(1) @ v,
            "divide by the root of d, the width of a query, not of T, the number of frames": (
                fits / math.sqrt(len(q))
            ).softmax(1)
            @ v,
            "each row of weights must add up to 1, so softmax along dim=1": (fits / wide).softmax(0)
            @ v,
            "the softmax is missing": fits / wide @ v,
            "these are the weights; mix the values with them": (fits / wide).softmax(1),
            "the queries ask, the keys answer: q @ k.T, not k @ q.T": (fits.T / wide).softmax(1)
            @ v,
            "divide first, then the softmax": fits.softmax(1) / wide @ v,
        }
        expect(f"attend(<{name}>)", attend(q.clone(), k.clone(), v.clone()), right, causes)
    return "That is all of attention; the rest is four matrices."


@exercise("02-mask")
def mask(weights) -> str:
    """weights(fits, own) -> (T, T): softmax over the first `own` frames, 0 beyond them."""
    for size, own in ((4, 3), (9, 5), (3, 3)):
        fits = 2 * _noise(size, size)
        original = fits.clone()
        right = F.pad(fits[:, :own].softmax(dim=1), (0, size - own))
        everything = fits.softmax(dim=1)
        beyond = torch.arange(size) >= own
        masked = fits.masked_fill(beyond, -torch.inf)
        causes = {
            "the frames beyond get weight here: their fits must be minus infinity": everything,
            "set to 0 after the softmax the rows no longer add up to 1: mask the fits before "
            "it": everything.masked_fill(beyond, 0.0),
            "a fit of 0 is a fit like others, e^0 = 1; minus infinity is none": fits.masked_fill(
                beyond, 0.0
            ).softmax(1),
            "mask the columns, which are looked at, not the rows, which ask": fits.masked_fill(
                beyond[:, None], -torch.inf
            ).softmax(1),
            "the rows beyond are emptied here; it is the columns that nobody may look at": (
                everything.masked_fill(beyond[:, None], 0.0)
            ),
            "mask the columns only: the rows beyond ask, too, and nobody reads their answers": (
                right.masked_fill(beyond[:, None], 0.0)
            ),
            "a row with nothing but minus infinity gives nan; mask the columns only, `[:, own:]`": (
                right.masked_fill(beyond[:, None], torch.nan)
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
        causes = {c: v for c, v in causes.items() if not torch.equal(v, right)}
        came = weights(fits, own)
        expect(f"weights(<{size} x {size}>, {own})", came, right, causes)
        spoilt = {"it changed what it was given; work on a copy, fits.clone()": fits}
        expect("fits after your function", fits, original, spoilt)
    return "A clip in a batch now gives the same frames as alone."


@exercise("02-memory")
def memory(training_bytes) -> str:
    """training_bytes(frozen, trained) -> bytes of weights, gradients and AdamW's averages."""
    for frozen, trained in ((1_000, 0), (0, 1_000), (637_000_000, 20_000_000)):
        causes = {
            "frozen weights have neither gradients nor averages": 16 * (frozen + trained),
            "frozen weights take room too": 16 * trained,
            "each trained weight has a gradient and two averages besides": 4 * frozen
            + 12 * trained,
            "these are numbers; each takes 4 bytes": frozen + 4 * trained,
            "these are the weights alone": 4 * (frozen + trained),
        }
        right = sum((frozen, trained, trained, trained, trained)) * 4
        causes = {cause: value for cause, value in causes.items() if value != right}
        call = f"training_bytes({frozen}, {trained})"
        expect(call, training_bytes(frozen, trained), right, causes)
    return "A frozen weight takes 4 bytes, a trained one 16: freezing it saves three quarters."


QUIZ = [
    Question(
        "How many frames does the encoder give for 4 s of sound?",
        {
            "400": "That is the number of mel frames, one every 10 ms.",
            "200": "400 mel frames, and the second convolution takes every second place.",
            "1500": "That is what the stock encoder gives, which pads all sound to 30 s.",
            "40": "That is the number of audio embeddings, after the projector.",
        },
        "b",
    ),
    Question(
        "What would attention lose without the position table?",
        {
            "the pitch": "Pitch is in the frames themselves: in which mel bins the sound lies.",
            "nothing: the frames come in order anyway": "They do, but attention does not see it: "
            "it compares each frame with each other one, wherever they stand.",
            "the order: shuffled frames would give the same answers, shuffled": "You measured it: "
            "without positions the difference was zero up to rounding.",
        },
        "c",
    ),
    Question(
        "A clip of 3 s is padded to 30 s. How many times as many pairs of frames does each head "
        "compare?",
        {
            "100 times": "1500 x 1500 instead of 150 x 150.",
            "10 times": "That is the number of frames; pairs grow with its square.",
            "as many: silence has nothing to compare": "A frame of silence is a frame like others.",
        },
        "a",
    ),
    Question(
        "A linear probe predicts loudness well from the first layers, and less well from the "
        "last. What follows?",
        {
            "the last layers are broken": "They give the transcript, for which loudness is of no "
            "use.",
            "the last layers keep less of it where one matrix product can find it": "More cannot "
            "be said: a larger probe may still find it.",
            "the last layers have forgotten loudness entirely": "The probe still predicts a part "
            "of it there.",
        },
        "b",
    ),
    Question(
        "Which of these does a frozen encoder still need in training?",
        {
            "gradients of its weights": "Nothing in it changes, so none are computed.",
            "the averages of AdamW": "They exist for trained weights only.",
            "its intermediate results, kept for the backward pass": "The way back ends at the "
            "projector, so they can be thrown away at once.",
            "the forward pass": "The projector must get its frames, unless they were computed "
            "before and kept.",
        },
        "d",
    ),
]
