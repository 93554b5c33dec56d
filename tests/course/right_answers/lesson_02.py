# ruff: noqa: E402, F811
# Right answers to the exercises of notebook 02 that are written otherwise: `# %% ID`.

import math

import numpy as np
import torch
import torch.nn.functional as F

# %% 02-length
lengths = (400, 200, 3, 5)


# %% 02-length
lengths = torch.tensor([400.0, 200, 3, 5], dtype=torch.float64)


# %% 02-length
import numpy as np

lengths = np.array([400, 200, 3, 5])


# %% 02-length
cases = (400, 3, 1, 1), (400, 3, 2, 1), (9, 5, 2, 0), (9, 5, 2, 2)
lengths = [(n + 2 * p - k) // s + 1 for n, k, s, p in cases]


# %% 02-length
lengths = [len(range(-1, 400)) - 1, len(range(0, 400, 2)), len([0, 2, 4]), len([-2, 0, 2, 4, 6])]


# %% 02-broken
mistakes = "bca"


# %% 02-broken
mistakes = ("B", "C", "A")


# %% 02-broken
mistakes = ["b)", "c)", "a)"]


# %% 02-broken
first, second, third = ["b", "c", "a"]
mistakes = [first, second, third]


# %% 02-broken
mistakes = list({"first": "b", "second": "c", "third": "a"}.values())


# %% 02-attention
def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


# %% 02-attention
def attend(q, k, v):
    fits = torch.einsum("id,jd->ij", q.double(), k.double()) * q.shape[-1] ** -0.5
    shares = torch.exp(fits - fits.max(dim=1, keepdim=True).values)
    return (shares / shares.sum(dim=1, keepdim=True)) @ v.double()


# %% 02-attention
def attend(q, k, v):
    heard = []
    for query in q:
        shares = (k @ query / math.sqrt(len(query))).softmax(dim=0)
        heard.append(sum(share * value for share, value in zip(shares, v, strict=True)))
    return torch.stack(heard)


# %% 02-attention
import numpy as np


def attend(q, k, v):
    q, k, v = (x.numpy().astype(np.float64) for x in (q, k, v))
    shares = np.exp(q @ k.T / np.sqrt(q.shape[1]))
    return shares @ v / shares.sum(axis=1, keepdims=True)


# %% 02-attention
def attend(q, k, v):
    return ((q / q.shape[1] ** 0.5) @ k.mT).softmax(-1).matmul(v)


# %% 02-positions
def position_table(length, width):
    table = torch.zeros(length, width, dtype=torch.float64)
    half = width // 2
    for t in range(length):
        for i in range(half):
            table[t, i] = math.sin(t * 10000 ** (-i / (half - 1)))
            table[t, half + i] = math.cos(t * 10000 ** (-i / (half - 1)))
    return table


# %% 02-positions
def position_table(length, width):
    speeds = torch.logspace(0, -4, width // 2)
    angles = torch.outer(torch.arange(length).float(), speeds)
    return torch.hstack([torch.sin(angles), torch.cos(angles)])


# %% 02-positions
import numpy as np


def position_table(length, width):
    speeds = np.exp(-np.log(10000) * np.linspace(0, 1, width // 2))
    angles = np.arange(length)[:, None] * speeds
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


# %% 02-positions
def position_table(length, width):
    half = width // 2
    angles = torch.arange(length).unsqueeze(1) / 10000 ** (torch.arange(half) / (half - 1))
    return torch.cat((angles.sin(), angles.cos()), -1)


# %% 02-positions
def position_table(length, width):
    half = width // 2
    speeds = torch.tensor([10000.0 ** (-i / (half - 1)) for i in range(half)])
    waves = torch.polar(torch.ones(length, half), torch.arange(length)[:, None] * speeds)
    return torch.cat([waves.imag, waves.real], dim=1)
