"""Notebook 01, pre-processing: judges of the exercises."""

import math

import numpy as np
import torch
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from tiny_asr.course.checks import ask, exercise
from tiny_asr.shapes import SAMPLE_RATE


@exercise("01-cost")
def cost(numbers) -> str:
    """numbers(seconds, rate, hop, bins) -> how many numbers a log-mel spectrogram has."""
    cases = ((1, 16_000, 160, 80), (3, 16_000, 160, 128), (2, 8_000, 80, 40), (2, 16_000, 320, 80))
    for seconds, rate, hop, bins in cases:
        frames, at_each_sample = seconds * rate // hop, seconds * rate * bins
        causes = {
            "there is one column of bins every `hop` samples, not at every sample": at_each_sample,
            "100 frames a second are right for 16 000 / 160 only: use `rate` and `hop`": (
                seconds * 100 * bins
            ),
            "these are the frames; each holds `bins` numbers": frames,
            "these are the numbers of one second": rate // hop * bins,
        }
        right = frames * bins
        ask("numbers", numbers, seconds, rate, hop, bins, expected=right, causes=causes)
    return "A second of sound is 16 000 samples, but 8 000 numbers of 80 mel bins."


@exercise("01-alias")
def alias(heard) -> str:
    """heard(frequency, rate) -> the pitch in Hz of a tone sampled without a filter."""
    for frequency in (1_000, 5_000, 8_000, 9_000, 15_000, 17_000, 30_000):
        rest = frequency % SAMPLE_RATE
        mirrored = "below half the rate a tone comes out as it is"
        if frequency > SAMPLE_RATE:
            mirrored = "tones above the rate itself begin again from 0: take the remainder first"
        causes = {
            "what is above half the rate is mirrored at it": frequency,
            "between half the rate and the rate it is mirrored": rest,
            "it is mirrored at half the rate, not cut off there": SAMPLE_RATE / 2,
            mirrored: SAMPLE_RATE - frequency,
        }
        right = min(rest, SAMPLE_RATE - rest)
        ask("heard", heard, frequency, SAMPLE_RATE, expected=right, causes=causes)
    causes = {"`rate` is not 16 000 here": 5_000}
    ask("heard", heard, 5_000, 8_000, expected=3_000, causes=causes)
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
        shown = f"<{samples} samples 0, 1, 2, ...>, {length}, {hop}"
        ask("frame", frame, signal, length, hop, expected=right, causes=causes, shown=shown)
    return "Neighbours overlap: 25 ms of sound in each, every 10 ms."


@exercise("01-mel")
def mel(hz_to_mel) -> str:
    """hz_to_mel(hertz) -> Slaney's mel of a frequency."""
    # 0 comes last: there a logarithm stops the code, and the line would not say why
    for hertz in (200, 440, 1_000, 2_000, 6_400, 8_000, 0):
        ratio, straight = max(hertz, 1e-9) / 1_000, 3 * hertz / 200
        log, base, right = math.log(ratio), math.log(6.4), hertz_to_mel(float(hertz), "slaney")
        htk, no_one = hertz_to_mel(float(hertz), "htk"), 2595 * math.log10(ratio / 0.7)
        half_log10 = 15 + 27 * math.log10(ratio) / base
        causes = {
            "this is the formula of HTK; ours is straight below 1000 Hz": htk,
            "HTK's formula has 1 + f / 700; but ours is straight below 1000 Hz": no_one,
            "2595 goes with log10 and 1127 with ln; but that is HTK's formula, not ours": (
                2595 * math.log(1 + hertz / 700)
            ),
            "below 1000 Hz the scale is straight: 3 f / 200": 15 + 27 * log / base,
            "the straight part is upside down: 3 f / 200": 200 * hertz / 3,
            "above 1000 Hz the scale is logarithmic": straight,
            "the curve above 1000 Hz begins at 15": 27 * log / base,
            "the logarithm is to be divided by ln 6.4": 15 + 27 * log,
            "divide by ln 6.4, not by 6.4": 15 + 27 * log / 6.4,
            "the logarithm is to the base 6.4, not 10": 15 + 27 * math.log10(ratio),
            "one logarithm is to the base 10: take ln (`math.log`) for both": half_log10,
        }
        ask("hz_to_mel", hz_to_mel, hertz, expected=right, causes=causes)
    return "The first 1000 Hz are 15 mel; the next 7000 only 30 more."


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
        lowered = torch.minimum(loud, loud.max() - 8)
        decibels = (10 * floored + 4) / 4
        causes = {
            "this is the natural logarithm; take log10": (natural + 4) / 4,
            "nothing may lie more than 8 below the loudest": (loud + 4) / 4,
            "`minimum` lowers what is loud; `maximum` lifts what is soft": (lowered + 4) / 4,
            "the loudest value is that of the whole tensor, not of each row": (rows + 4) / 4,
            "these are decibels: leave out the factor 10, and the 80 dB are 8": decibels,
            "add 4 first, then divide: (x + 4) / 4 needs its brackets": floored + 4 / 4,
            "the last step, (x + 4) / 4, is missing": floored,
            "the logarithm of 0 is minus infinity: clamp to 1e-10 first": (power.log10() + 4) / 4,
            "the floor is 8 below the loudest value, not at -8": (loud.clamp(min=-8) + 4) / 4,
        }
        ask("compress", compress, power, expected=(floored + 4) / 4, causes=causes, shown=name)
    return "Each step of 1 is now 40 dB, a factor of 10 000 in power."
