"""Notebook 01, pre-processing: judges of the exercises."""

import numpy as np
import torch
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from tiny_asr.course.checks import Wrong, ask, describe, exercise, expect
from tiny_asr.shapes import SAMPLE_RATE

UNNAMED = {"A": "words", "B": "sea", "C": "turn", "D": "waves"}  # the game's pictures
LOOKS = {
    "sea": "an s is a cloud at the top; then stripes, with a wide dark gap below a high band",
    "waves": "no cloud at first: stripes whose upper bands climb, and a cloud for the z at its end",
    "turn": "a t is silence and then one short, tall stroke; stripes follow, to the end",
    "words": "stripes come first, dark above them; the cloud of the s stands at the very end",
}


@exercise("01-sea")
def sea(guess) -> str:
    """The letters of the pictures of "sea", "waves", "turn" and "words"."""
    letters = list(guess) if isinstance(guess, list | tuple | str) else []
    letters = [each.upper() if isinstance(each, str) else each for each in letters]
    if len(letters) != len(LOOKS) or set(letters) != set(UNNAMED):
        raise Wrong(
            f"letters is {describe(guess)}; expected each of the letters A, B, C and D once, in "
            'the order "sea", "waves", "turn", "words".'
        )
    for word, letter in zip(LOOKS, letters, strict=True):
        if UNNAMED[letter] != word:
            right = sum(UNNAMED[a] == b for a, b in zip(letters, LOOKS, strict=True))
            raise Wrong(f"{letter} is not {word}: {LOOKS[word]}. ({right} of 4 are right.)")
    return "You have read speech from a picture, as the encoder does."


@exercise("01-alias")
def alias(guess) -> str:
    """What is heard, in Hz, of tones of 3, 9, 15 and 17 kHz that are sampled at 16 kHz."""
    tones = [3_000, 9_000, 15_000, 17_000]
    causes = {
        "in Hz, please: 3 kHz are 3000 Hz": [3, 7, 1, 1],
        "a tone above half the rate comes out at another pitch": tones,
        "it does not vanish: without a filter it comes back at a wrong pitch": [3_000, 0, 0, 0],
        "it is mirrored at 8 kHz, not cut off there": [3_000, 8_000, 8_000, 8_000],
        "above 8 kHz it does not begin again from 0, it is mirrored": [3_000, 1_000, 7_000, 1_000],
        "above the rate itself, 16 kHz, it climbs again from 0": [3_000, 7_000, 1_000, 0],
        "below half the rate a tone stays what it is": [13_000, 7_000, 1_000, 1_000],
        "the mirror stands at 8 kHz, half the rate, not at the rate": [
            3_000,
            9_000,
            15_000,
            15_000,
        ],
    }
    expect("pitches", guess, [3_000, 7_000, 1_000, 1_000], causes)
    return "15 kHz, 17 kHz and 1 kHz are the same samples."


@exercise("01-pitch")
def pitch(strength) -> str:
    """strength(frame, hertz) -> the power of one pitch in samples at 16 kHz."""
    toy = torch.tensor([1.0, 0.0, -1.0, 0.0, 1.0, 0.0, -1.0, 0.0])
    n = torch.arange(400) / SAMPLE_RATE
    tone = torch.cos(2 * torch.pi * 1_000 * n + 0.7) + 0.1 * torch.sin(2 * torch.pi * 200 * n)
    for name, frame, pitches in (
        ("<25 ms of 1000 Hz, and a little of 200 Hz>", tone, (1_000, 200, 3_000)),
        ("[1, 0, -1, 0, 1, 0, -1, 0]", toy, (4_000, 2_000)),
    ):
        given, count = frame.double().numpy(), len(frame)
        turns = np.outer(pitches, np.arange(count)) / SAMPLE_RATE
        angle = 2 * np.pi * turns
        c, s = np.cos(angle) @ given, np.sin(angle) @ given
        squares = (np.cos(angle) * given) ** 2 + (np.sin(angle) * given) ** 2
        no_rate = 2 * np.pi * np.outer(pitches, np.arange(count))
        half = np.cos(turns) @ given, np.sin(turns) @ given
        right = c**2 + s**2
        causes = {
            "a sine of that pitch may be in there as well: take the cosine and the sine": c**2,
            "a cosine of that pitch may be in there as well: take the sine and the cosine": s**2,
            "square both sums before you add them": c + s,
            "square both sums, and add them; this is the square of the sum": (c + s) ** 2,
            "this is the root of it: the power is the squares' sum itself": np.sqrt(right),
            "sum first, then square: a square is never negative, so nothing can cancel": (
                squares.sum(axis=1)
            ),
            "one swing is 2 pi, not 1": half[0] ** 2 + half[1] ** 2,
            "sample n comes at n / 16 000 s: divide by the rate": (
                (np.cos(no_rate) @ given) ** 2 + (np.sin(no_rate) @ given) ** 2
            ),
            "this is a mean: only sum": right / count**2,
            "this is divided by the number of samples: only sum": right / count,
        }
        came = [strength(frame.clone(), hertz) for hertz in pitches]
        came = None if came[0] is None else came
        call = f"strength({name}, hertz) for {', '.join(map(str, pitches))} Hz"
        expect(call, came, right, {cause: list(value) for cause, value in causes.items()})
    return "201 of these, and you have a spectrum."


@exercise("01-filters")
def filters(mel_filters) -> str:
    """mel_filters(corners, frequencies) -> (M, K) triangles of area 1 between M + 2 corners."""
    toy = ([0.0, 100.0, 200.0, 400.0], [0.0, 50.0, 100.0, 150.0, 200.0, 300.0, 400.0])
    points = np.linspace(0, hertz_to_mel(SAMPLE_RATE / 2, "slaney"), 82)
    whole = (mel_to_hertz(points, "slaney"), np.linspace(0, SAMPLE_RATE / 2, 201))
    for corners, frequencies in (toy, whole):
        corners, frequencies = np.array(corners), np.array(frequencies)
        triples = list(zip(corners, corners[1:], corners[2:], strict=False))
        # By interpolation: another way than the solution's.
        expected = [np.interp(frequencies, each, [0, 1, 0], 0, 0) for each in triples]
        left, middle, right = np.array(triples).T[..., None]
        area = 2 / (right - left)
        expected = np.array(expected) * area
        rising = (frequencies - left) / (middle - left)
        falling = (right - frequencies) / (right - middle)
        below, larger = np.minimum(rising, falling), np.maximum(rising, falling)
        half = np.where(frequencies <= middle, rising, 0)
        causes = {
            "these triangles are 1 high; scale each by 2 / (right - left)": expected / area,
            "outside its triangle a filter is 0, never negative": below * area,
            "take the smaller of the two slopes": larger.clip(0) * area,
            "only the rising slopes are there": half.clip(0) * area,
            "rows and columns are exchanged: one row is one filter": expected.T,
        }
        shown = f"<{len(corners)} corners>, <{len(frequencies)} frequencies>"
        given = torch.tensor(corners), torch.tensor(frequencies)
        ask("mel_filters", mel_filters, *given, expected=expected, causes=causes, shown=shown)
    return "With 82 corners these are the 80 filters of Whisper."
