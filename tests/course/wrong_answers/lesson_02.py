# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 02: `# %% ID | what the check must say`.

import math

import torch


# %% 02-length | add 1 at the end
def frames_after(frames, kernel, stride, padding):
    return (frames + 2 * padding - kernel) // stride


# %% 02-length | on both sides
def frames_after(frames, kernel, stride, padding):
    return (frames + padding - kernel) // stride + 1


# %% 02-length | divide with //
def frames_after(frames, kernel, stride, padding):
    return (frames + 2 * padding - kernel) / stride + 1


# %% 02-length | round down
def frames_after(frames, kernel, stride, padding):
    return math.ceil((frames + 2 * padding - kernel) / stride + 1)


# %% 02-length | subtract its length
def frames_after(frames, kernel, stride, padding):
    return (frames + 2 * padding) // stride + 1


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


# %% 02-mask | no longer add up to 1
def weights(fits, own):
    found = fits.softmax(dim=1)
    found[:, own:] = 0
    return found


# %% 02-mask | minus infinity is none
def weights(fits, own):
    masked = fits.clone()
    masked[:, own:] = 0
    return masked.softmax(dim=1)


# %% 02-mask | mask the columns
def weights(fits, own):
    masked = fits.clone()
    masked[own:] = -math.inf
    return masked.softmax(dim=1)


# %% 02-mask | the rows beyond are emptied here
def weights(fits, own):
    found = fits.softmax(dim=1)
    found[own:] = 0
    return found


# %% 02-mask | mask the columns only
def weights(fits, own):
    inside = torch.arange(len(fits)) < own
    masked = fits.masked_fill(~(inside[:, None] & inside), -math.inf)
    return masked.softmax(dim=1).nan_to_num()


# %% 02-mask | must be minus infinity
def weights(fits, own):
    return fits.softmax(dim=1)


# %% 02-mask | work on a copy
def weights(fits, own):
    fits[:, own:] = -math.inf
    return fits.softmax(dim=1)


# %% 02-mask | nothing but minus infinity
def weights(fits, own):
    masked = fits.clone()
    masked[:, own:] = -math.inf
    masked[own:] = -math.inf
    return masked.softmax(dim=1)


# %% 02-mask | do not multiply
def weights(fits, own):
    beyond = (torch.arange(len(fits)) >= own).float()
    return (fits + beyond * -math.inf).softmax(dim=1)


# %% 02-mask | the softmax is missing
def weights(fits, own):
    masked = fits.clone()
    masked[:, own:] = -math.inf
    return masked


# %% 02-mask | along the last axis
def weights(fits, own):
    masked = fits.clone()
    masked[:, own:] = -math.inf
    return masked.softmax(dim=0)


# %% 02-mask | keep their columns
def weights(fits, own):
    return fits[:, :own].softmax(dim=1)


# %% 02-memory | neither gradients nor averages
def training_bytes(frozen, trained):
    return 16 * (frozen + trained)


# %% 02-memory | two averages
def training_bytes(frozen, trained):
    return 4 * frozen + 12 * trained


# %% 02-memory | each takes 4 bytes
def training_bytes(frozen, trained):
    return frozen + 4 * trained


# %% 02-memory | frozen weights take room too
def training_bytes(frozen, trained):
    return 16 * trained


# %% 02-length | not always 3
def frames_after(frames, kernel, stride, padding):
    return (frames + 2 * padding - 3) // stride + 1


# %% 02-length | the stride is not all
def frames_after(frames, kernel, stride, padding):
    return frames // stride


# %% 02-length | n - kernel, one less
def frames_after(frames, kernel, stride, padding):
    return (frames + 2 * padding - (kernel - 1)) // stride + 1
