# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 01: `# %% ID | what the check must say`.

import torch

# %% 01-sea | C is not sea: an s is a cloud at the top; then stripes
letters = ["C", "D", "B", "A"]

# %% 01-sea | A is not sea: an s is a cloud at the top; then stripes
letters = ["A", "D", "C", "B"]

# %% 01-sea | expected each of the letters A, B, C and D once
letters = "B"

# %% 01-sea | expected each of the letters A, B, C and D once
letters = ["B", "B", "C", "A"]

# %% 01-sea | expected each of the letters A, B, C and D once
letters = 2

# %% 01-alias | comes out at another pitch
pitches = [3000, 9000, 15000, 17000]

# %% 01-alias | in Hz, please
pitches = [3, 7, 1, 1]

# %% 01-alias | it does not vanish
pitches = [3000, 0, 0, 0]

# %% 01-alias | not cut off there
pitches = [3000, 8000, 8000, 8000]

# %% 01-alias | it climbs again from 0
pitches = [3000, 7000, 1000, 0]

# %% 01-alias | not at the rate
pitches = [3000, 9000, 15000, 15000]


# %% 01-pitch | take the cosine and the sine
def strength(frame, hertz):
    angle = 2 * torch.pi * hertz * torch.arange(len(frame)) / 16_000
    return (frame * angle.cos()).sum() ** 2


# %% 01-pitch | square both sums before you add them
def strength(frame, hertz):
    angle = 2 * torch.pi * hertz * torch.arange(len(frame)) / 16_000
    return (frame * angle.cos()).sum() + (frame * angle.sin()).sum()


# %% 01-pitch | nothing can cancel
def strength(frame, hertz):
    angle = 2 * torch.pi * hertz * torch.arange(len(frame)) / 16_000
    return ((frame * angle.cos()) ** 2).sum() + ((frame * angle.sin()) ** 2).sum()


# %% 01-pitch | one swing is 2 pi
def strength(frame, hertz):
    angle = hertz * torch.arange(len(frame)) / 16_000
    return (frame * angle.cos()).sum() ** 2 + (frame * angle.sin()).sum() ** 2


# %% 01-pitch | divide by the rate
def strength(frame, hertz):
    angle = 2 * torch.pi * hertz * torch.arange(len(frame)).double()
    return (frame * angle.cos()).sum() ** 2 + (frame * angle.sin()).sum() ** 2


# %% 01-pitch | the root of it
def strength(frame, hertz):
    angle = 2 * torch.pi * hertz * torch.arange(len(frame)) / 16_000
    return torch.hypot((frame * angle.cos()).sum(), (frame * angle.sin()).sum())


# %% 01-pitch | only sum
def strength(frame, hertz):
    angle = 2 * torch.pi * hertz * torch.arange(len(frame)) / 16_000
    return (frame * angle.cos()).mean() ** 2 + (frame * angle.sin()).mean() ** 2


# %% 01-pitch | does not return its result
def strength(frame, hertz):
    angle = 2 * torch.pi * hertz * torch.arange(len(frame)) / 16_000
    power = (frame * angle.cos()).sum() ** 2 + (frame * angle.sin()).sum() ** 2  # noqa: F841


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
