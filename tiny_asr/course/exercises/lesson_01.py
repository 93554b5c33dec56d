"""Notebook 01, pre-processing: judges of the exercises, and the quiz."""

import math

import numpy as np
import torch
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from tiny_asr.course.checks import exercise, expect
from tiny_asr.course.quiz import Question
from tiny_asr.shapes import SAMPLE_RATE


@exercise("01-cost")
def cost(numbers) -> str:
    """numbers(seconds, rate, hop, bins) -> how many numbers a log-mel spectrogram has."""
    cases = ((1, 16_000, 160, 80), (3, 16_000, 160, 128), (2, 8_000, 80, 40), (2, 16_000, 320, 80))
    for seconds, rate, hop, bins in cases:
        frames = seconds * rate // hop
        causes = {
            "there is one column of bins every `hop` samples, not at every sample": seconds
            * (rate * bins),
            "100 frames a second are right for 16 000 / 160 only: use `rate` and `hop`": (
                seconds * 100 * bins
            ),
            "these are the frames; each holds `bins` numbers": frames,
            "these are the numbers of one second": rate // hop * bins,
        }
        call = f"numbers({seconds}, {rate}, {hop}, {bins})"
        expect(call, numbers(seconds, rate, hop, bins), frames * bins, causes)
    return "A second of sound is 16 000 samples, but 8 000 numbers of 80 mel bins."


@exercise("01-alias")
def alias(heard) -> str:
    """heard(frequency, rate) -> the pitch in Hz of a tone sampled without a filter."""
    for frequency in (1_000, 5_000, 8_000, 9_000, 15_000, 17_000, 30_000):
        rest = frequency % SAMPLE_RATE
        beyond = frequency > SAMPLE_RATE
        again = "tones above the rate itself begin again from 0: take the remainder first"
        causes = {
            "what is above half the rate is mirrored at it": frequency,
            "between half the rate and the rate it is mirrored": rest,
            "it is mirrored at half the rate, not cut off there": SAMPLE_RATE / 2,
            again if beyond else "below half the rate a tone comes out as it is": SAMPLE_RATE
            - frequency,
        }
        expected = min(rest, SAMPLE_RATE - rest)
        expect(f"heard({frequency}, 16000)", heard(frequency, SAMPLE_RATE), expected, causes)
    expect("heard(5000, 8000)", heard(5_000, 8_000), 3_000, {"`rate` is not 16 000 here": 5_000})
    return "15 kHz and 1 kHz are the same samples."


@exercise("01-frames")
def frames(frame) -> str:
    """frame(signal, length, hop) -> (N, length): every frame that fits, one each hop samples."""
    for samples, length, hop in ((10, 4, 2), (11, 4, 3), (1_600, 400, 160)):
        signal = torch.arange(samples, dtype=torch.float32)
        right = signal.unfold(0, length, hop)
        longer = torch.cat([signal, torch.zeros(length)]).unfold(0, length, hop)
        apart = signal[: samples // length * length].reshape(-1, length)
        causes = {
            "the last frame that fits is missing: there are 1 + (S - length) // hop": right[:-1],
            "one frame too many: it reaches beyond the end": longer[: len(right) + 1],
            "each frame should begin `hop` after the last one, not where it ended": apart,
            "rows and columns are exchanged: one row is one frame": right.T,
        }
        call = f"frame(<{samples} samples 0, 1, 2, ...>, {length}, {hop})"
        expect(call, frame(signal.clone(), length, hop), right, causes)
    return "Neighbours overlap: 25 ms of sound in each, every 10 ms."


@exercise("01-mel")
def mel(hz_to_mel) -> str:
    """hz_to_mel(hertz) -> Slaney's mel of a frequency."""
    # 0 comes last: there a logarithm stops the code, and the line would not say why
    for hertz in (200, 440, 1_000, 2_000, 6_400, 8_000, 0):
        ratio = max(hertz, 1e-9) / 1_000
        mixed = "2595 goes with log10 and 1127 with ln; but that is HTK's formula, not ours"
        curve = 15 + 27 * math.log(ratio) / math.log(6.4)
        causes = {
            "this is the formula of HTK; ours is straight below 1000 Hz": hertz_to_mel(
                float(hertz), "htk"
            ),
            "HTK's formula has 1 + f / 700; but ours is straight below 1000 Hz": 2595
            * math.log10(max(hertz, 1e-9) / 700),
            mixed: 2595 * math.log(1 + hertz / 700),
            "below 1000 Hz the scale is straight: 3 f / 200": curve,
            "the straight part is upside down: 3 f / 200": 200 * hertz / 3,
            "above 1000 Hz the scale is logarithmic": 3 * hertz / 200,
            "the curve above 1000 Hz begins at 15": 27 * math.log(ratio) / math.log(6.4),
            "the logarithm is to be divided by ln 6.4": 15 + 27 * math.log(ratio),
            "divide by ln 6.4, not by 6.4": 15 + 27 * math.log(ratio) / 6.4,
            "the logarithm is to the base 6.4, not 10": 15 + 27 * math.log10(ratio),
            "one logarithm is to the base 10: take ln (`math.log`) for both": 15
            + 27 * math.log10(ratio) / math.log(6.4),
        }
        right = hertz_to_mel(float(hertz), "slaney")
        expect(f"hz_to_mel({hertz})", hz_to_mel(hertz), right, causes)
    return "The first 1000 Hz are 15 mel; the next 7000 only 30 more."


def _triangles(corners: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """(M, K), by interpolation: another way than the solution's."""
    rows = []
    for left, middle, right in zip(corners, corners[1:], corners[2:], strict=False):
        row = np.interp(frequencies, [left, middle, right], [0, 1, 0], 0, 0)
        rows.append(row * 2 / (right - left))
    return np.array(rows)


@exercise("01-filters")
def filters(mel_filters) -> str:
    """mel_filters(corners, frequencies) -> (M, K) triangles of area 1 between M + 2 corners."""
    toy = ([0.0, 100.0, 200.0, 400.0], [0.0, 50.0, 100.0, 150.0, 200.0, 300.0, 400.0])
    points = np.linspace(0, hertz_to_mel(SAMPLE_RATE / 2, "slaney"), 82)
    whole = (mel_to_hertz(points, "slaney"), np.linspace(0, SAMPLE_RATE / 2, 201))
    for corners, frequencies in (toy, whole):
        corners, frequencies = np.array(corners), np.array(frequencies)
        left, middle, right = (corners[i : len(corners) - 2 + i, None] for i in range(3))
        rising = (frequencies - left) / (middle - left)
        falling = (right - frequencies) / (right - middle)
        area, half = 2 / (right - left), np.where(frequencies <= middle, rising, 0)
        expected = _triangles(corners, frequencies)
        causes = {
            "these triangles are 1 high; scale each by 2 / (right - left)": expected / area,
            "outside its triangle a filter is 0, never negative": np.minimum(rising, falling)
            * area,
            "take the smaller of the two slopes": np.maximum(rising, falling).clip(0) * area,
            "only the rising slopes are there": half.clip(0) * area,
            "rows and columns are exchanged: one row is one filter": expected.T,
        }
        call = f"mel_filters(<{len(corners)} corners>, <{len(frequencies)} frequencies>)"
        came = mel_filters(torch.tensor(corners), torch.tensor(frequencies))
        expect(call, came, expected, causes)
    return "With 82 corners these are the 80 filters of Whisper."


@exercise("01-log")
def log(compress) -> str:
    """compress(power) -> log10, at most 8 below the loudest, then (x + 4) / 4."""
    noise = 10 ** (12 * torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) - 9)
    cases = {
        "[[1, 0.001], [0, 100]]": torch.tensor([[1.0, 1e-3], [0.0, 100.0]]),
        "<20 powers from 1e-9 to 1e3>": noise,
        "[[0, 0]]": torch.zeros(1, 2),
    }
    for name, power in cases.items():
        loud, natural = power.clamp(min=1e-10).log10(), power.clamp(min=1e-10).log()
        floored = torch.maximum(loud, loud.max() - 8)
        natural = torch.maximum(natural, natural.max() - 8)
        rows = torch.maximum(loud, loud.amax(dim=-1, keepdim=True) - 8)
        causes = {
            "this is the natural logarithm; take log10": (natural + 4) / 4,
            "nothing may lie more than 8 below the loudest": (loud + 4) / 4,
            "`minimum` lowers what is loud; `maximum` lifts what is soft": (
                torch.minimum(loud, loud.max() - 8) + 4
            )
            / 4,
            "the loudest value is that of the whole tensor, not of each row": (rows + 4) / 4,
            "these are decibels: leave out the factor 10, and the 80 dB are 8": (10 * floored + 4)
            / 4,
            "add 4 first, then divide: (x + 4) / 4 needs its brackets": floored + 4 / 4,
            "the last step, (x + 4) / 4, is missing": floored,
            "the logarithm of 0 is minus infinity: clamp to 1e-10 first": (power.log10() + 4) / 4,
            "the floor is 8 below the loudest value, not at -8": (loud.clamp(min=-8) + 4) / 4,
        }
        expect(f"compress({name})", compress(power.clone()), (floored + 4) / 4, causes)
    return "Each step of 1 is now 40 dB, a factor of 10 000 in power."


QUIZ = [
    Question(
        "A tone of 10 kHz is sampled 16 000 times a second, without a filter. What is heard?",
        {
            "nothing: 10 kHz is too high for 16 kHz": "It does not vanish. To be rid of it, it "
            "must be filtered out before sampling.",
            "a tone of 10 kHz": "Samples at 16 kHz can hold nothing above 8 kHz.",
            "a tone of 6 kHz": "It is mirrored at 8 kHz: 16 - 10 = 6.",
            "a tone of 2 kHz": "It lies 2 kHz above the half rate, so it comes out 2 kHz below it.",
        },
        "c",
    ),
    Question(
        "What happens when a recording is stored with 8 bits instead of 16?",
        {
            "its high frequencies are lost": "That is what a lower sampling rate does.",
            "a hiss is added": "Rounding adds noise, about 6 dB more of it for each bit less.",
            "it gets shorter": "The number of samples stays the same.",
        },
        "b",
    ),
    Question(
        "Why is each frame multiplied with a window before its spectrum is taken?",
        {
            "to make neighbouring frames join without a gap": "They overlap anyway.",
            "to make the computation faster": "It is one multiplication more.",
            "so that the cut edges do not smear each tone over all frequencies": "A hard cut is a "
            "sudden jump, and a jump holds all frequencies.",
        },
        "c",
    ),
    Question(
        "Why are the mel filters narrow at low frequencies and wide at high ones?",
        {
            "the ear tells low pitches apart better than high ones": "That is what the mel scale "
            "was measured from.",
            "speech has nothing above 4 kHz": "An s lies almost wholly above 4 kHz.",
            "wide filters are cheaper": "Each filter costs the same; there are 80 of them anyway.",
        },
        "a",
    ),
    Question(
        "Can the waveform be computed back from its log-mel spectrogram?",
        {
            "yes, exactly: it holds 8 000 numbers a second": "A second of sound has 16 000, and "
            "the phase is not among the 8 000.",
            "no: the phase and the fine structure within a band are gone": "That is why it sounds "
            "whispered when noise is shaped by it.",
            "no, not even roughly": "The words can be understood well: you heard it.",
        },
        "b",
    ),
]
