# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 02: `# %% ID | what the check must say`.

import math

import torch


# %% 02-positions | sines and cosines alternate
def position_table(length, width):
    half = width // 2
    speeds = 10000 ** (-torch.arange(half) / (half - 1))
    angles = torch.arange(length)[:, None] * speeds
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(length, width)


# %% 02-positions | divide by half - 1
def position_table(length, width):
    half = width // 2
    speeds = 10000 ** (-torch.arange(half) / half)
    angles = torch.arange(length)[:, None] * speeds
    return torch.cat([angles.sin(), angles.cos()], dim=1)


# %% 02-positions | the sines come first
def position_table(length, width):
    half = width // 2
    speeds = 10000 ** (-torch.arange(half) / (half - 1))
    angles = torch.arange(length)[:, None] * speeds
    return torch.cat([angles.cos(), angles.sin()], dim=1)


# %% 02-positions | the exponent is negative
def position_table(length, width):
    half = width // 2
    speeds = 10000.0 ** (torch.arange(half).double() / (half - 1))
    angles = torch.arange(length)[:, None] * speeds
    return torch.cat([angles.sin(), angles.cos()], dim=1)


# %% 02-positions | number 0
def position_table(length, width):
    half = width // 2
    speeds = 10000 ** (-torch.arange(half) / (half - 1))
    angles = torch.arange(1, length + 1)[:, None] * speeds
    return torch.cat([angles.sin(), angles.cos()], dim=1)


# %% 02-attention | before the softmax
def attend(q, k, v):
    return (q @ k.T).softmax(dim=1) @ v


# %% 02-attention | not by d
def attend(q, k, v):
    return (q @ k.T / q.shape[1]).softmax(dim=1) @ v


# %% 02-attention | the width of a query, not of T
def attend(q, k, v):
    return (q @ k.T / math.sqrt(len(q))).softmax(dim=1) @ v


# %% 02-attention | softmax along dim=1
def attend(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(dim=0) @ v


# %% 02-attention | the softmax is missing
def attend(q, k, v):
    return q @ k.T / math.sqrt(q.shape[1]) @ v


# %% 02-attention | mix the values
def attend(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[1])).softmax(dim=1)


# %% 02-attention | your code stopped with RuntimeError
def attend(q, k, v):
    return (q @ k / math.sqrt(q.shape[1])).softmax(dim=1) @ v


# %% 02-length | the kernel's first place counts too
lengths = [399, 200, 3, 5]


# %% 02-length | the padding is on both sides
lengths = [400, 200, 3, 4]


# %% 02-length | each step is `stride` frames long
lengths = [400, 400, 3, 5]


# %% 02-length | only a part of the kernel
lengths = [400, 200, 5, 5]


# %% 02-length | the number of predictions
lengths = [400, 200, 3]


# %% 02-broken | its rows do add up to 1
mistakes = ["c", "b", "a"]


# %% 02-broken | no weight is above 1
mistakes = ["b", "a", "c"]
