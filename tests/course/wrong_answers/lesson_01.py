# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 01: `# %% ID | what the check must say`.

import math

import torch


# %% 01-cost | not at every sample
def numbers(seconds, rate, hop, bins):
    return seconds * rate * bins


# %% 01-cost | each holds `bins` numbers
def numbers(seconds, rate, hop, bins):
    return seconds * rate // hop


# %% 01-cost | numbers of one second
def numbers(seconds, rate, hop, bins):
    return rate // hop * bins


# %% 01-alias | below half the rate a tone comes out as it is
def heard(frequency, rate):
    return rate - frequency


# %% 01-alias | take the remainder first
def heard(frequency, rate):
    return frequency if frequency <= rate / 2 else rate - frequency


# %% 01-alias | `rate` is not 16 000 here
def heard(frequency, rate):
    rest = frequency % 16000
    return min(rest, 16000 - rest)


# %% 01-alias | mirrored at half the rate, not cut off
def heard(frequency, rate):
    return min(frequency, rate / 2)


# %% 01-frames | the last frame that fits is missing
def frame(signal, length, hop):
    starts = range(0, len(signal) - length, hop)
    return torch.stack([signal[start : start + length] for start in starts])


# %% 01-frames | not where it ended
def frame(signal, length, hop):
    count = len(signal) // length
    return torch.stack([signal[i * length : (i + 1) * length] for i in range(count)])


# %% 01-frames | your code stopped with RuntimeError
def frame(signal, length, hop):
    starts = range(0, len(signal), hop)
    return torch.stack([signal[start : start + length] for start in starts])


# %% 01-mel | formula of HTK
def hz_to_mel(hertz):
    return 2595 * math.log10(1 + hertz / 700)


# %% 01-mel | begins at 15
def hz_to_mel(hertz):
    if hertz < 1000:
        return 3 * hertz / 200
    return 27 * math.log(hertz / 1000) / math.log(6.4)


# %% 01-mel | divided by ln 6.4
def hz_to_mel(hertz):
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000)


# %% 01-mel | this is the formula of HTK
def hz_to_mel(hertz):
    return 1127 * math.log(1 + hertz / 700)


# %% 01-mel | HTK's formula has 1 + f / 700
def hz_to_mel(hertz):
    return 2595 * math.log10(hertz / 700)


# %% 01-mel | 2595 goes with log10 and 1127 with ln
def hz_to_mel(hertz):
    return 2595 * math.log(1 + hertz / 700)


# %% 01-mel | below 1000 Hz the scale is straight
def hz_to_mel(hertz):
    return 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


# %% 01-mel | the straight part is upside down
def hz_to_mel(hertz):
    if hertz < 1000:
        return 200 * hertz / 3
    return 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


# %% 01-mel | above 1000 Hz the scale is logarithmic
def hz_to_mel(hertz):
    return 3 * hertz / 200


# %% 01-mel | divide by ln 6.4, not by 6.4
def hz_to_mel(hertz):
    return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / 6.4


# %% 01-mel | one logarithm is to the base 10
def hz_to_mel(hertz):
    if hertz < 1000:
        return 3 * hertz / 200
    return 15 + 27 * math.log10(hertz / 1000) / math.log(6.4)


# %% 01-filters | scale each by 2 / (right - left)
def mel_filters(corners, frequencies):
    rows = []
    for left, middle, right in zip(corners, corners[1:], corners[2:], strict=False):
        rising = (frequencies - left) / (middle - left)
        falling = (right - frequencies) / (right - middle)
        rows.append(torch.minimum(rising, falling).clamp(min=0))
    return torch.stack(rows)


# %% 01-filters | never negative
def mel_filters(corners, frequencies):
    rows = []
    for left, middle, right in zip(corners, corners[1:], corners[2:], strict=False):
        rising = (frequencies - left) / (middle - left)
        falling = (right - frequencies) / (right - middle)
        rows.append(torch.minimum(rising, falling) * 2 / (right - left))
    return torch.stack(rows)


# %% 01-filters | one row is one filter
def mel_filters(corners, frequencies):
    rows = []
    for left, middle, right in zip(corners, corners[1:], corners[2:], strict=False):
        rising = (frequencies - left) / (middle - left)
        falling = (right - frequencies) / (right - middle)
        rows.append(torch.minimum(rising, falling).clamp(min=0) * 2 / (right - left))
    return torch.stack(rows).T


# %% 01-log | take log10
def compress(power):
    loud = power.clamp(min=1e-10).log()
    return (torch.maximum(loud, loud.max() - 8) + 4) / 4


# %% 01-log | more than 8 below the loudest
def compress(power):
    return (power.clamp(min=1e-10).log10() + 4) / 4


# %% 01-log | not at -8
def compress(power):
    return (power.clamp(min=1e-10).log10().clamp(min=-8) + 4) / 4


# %% 01-log | the last step
def compress(power):
    loud = power.clamp(min=1e-10).log10()
    return torch.maximum(loud, loud.max() - 8)


# %% 01-log | clamp to 1e-10 first
def compress(power):
    loud = power.log10()
    return (torch.maximum(loud, loud.max() - 8) + 4) / 4


# %% 01-log | `minimum` lowers what is loud
def compress(power):
    loud = power.clamp(min=1e-10).log10()
    return (torch.minimum(loud, loud.max() - 8) + 4) / 4


# %% 01-log | not of each row
def compress(power):
    loud = power.clamp(min=1e-10).log10()
    loudest = loud.max(dim=-1, keepdim=True).values
    return (torch.maximum(loud, loudest - 8) + 4) / 4


# %% 01-log | leave out the factor 10
def compress(power):
    loud = 10 * power.clamp(min=1e-10).log10()
    return (torch.maximum(loud, loud.max() - 80) + 4) / 4


# %% 01-log | needs its brackets
def compress(power):
    loud = power.clamp(min=1e-10).log10()
    return torch.maximum(loud, loud.max() - 8) + 4 / 4


# %% 01-cost | 100 frames a second
def numbers(seconds, rate, hop, bins):
    return seconds * 100 * bins
