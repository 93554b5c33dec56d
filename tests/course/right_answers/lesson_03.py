# ruff: noqa: F811
# Right answers to the exercises of notebook 03 that are written otherwise: `# %% ID`.

import numpy as np
import torch
import torch.nn.functional as F

# %% 03-count
counts = (240, 10, 80, 8, 8)


# %% 03-count
counts = torch.tensor([240.0, 10, 80, 8, 8])


# %% 03-count
counts = np.array([240, 10, 80, 8, 8], dtype=np.float64)


# %% 03-count
stack, hidden, out = 4 * 6, 10, 8
counts = [stack * hidden, hidden, hidden * out, out, out]


# %% 03-count
layers = torch.nn.Linear(24, 10), torch.nn.Linear(10, 8), torch.nn.RMSNorm(8)
counts = [p.numel() for layer in layers for p in layer.parameters()]


# %% 03-stack
def stack_by_hand(frames, rate):
    return frames.reshape(-1, rate * frames.shape[1])


# %% 03-stack
def stack_by_hand(frames, rate):
    return torch.cat([frames[place::rate] for place in range(rate)], dim=1).double()


# %% 03-stack
def stack_by_hand(frames, rate):
    return torch.stack([group.flatten() for group in frames.split(rate)])


# %% 03-stack
def stack_by_hand(frames, rate):
    numbers = frames.numpy().astype(np.float64)
    return np.vstack([numbers[i : i + rate].ravel() for i in range(0, len(numbers), rate)])


# %% 03-stack
def stack_by_hand(frames, rate):
    rows = [[] for _ in range(len(frames) // rate)]
    for number, frame in enumerate(frames.tolist()):
        rows[number // rate] += frame
    return torch.tensor(rows)


# %% 03-nearest
def nearest_tokens(vectors, table):
    return (F.normalize(vectors, dim=1) @ F.normalize(table, dim=1).T).argmax(dim=1)


# %% 03-nearest
def nearest_tokens(vectors, table):
    # the length of a vector is the same for all of its tokens
    return (vectors.double() @ (table / table.norm(dim=1, keepdim=True)).double().T).argmax(1)


# %% 03-nearest
def nearest_tokens(vectors, table):
    return F.cosine_similarity(vectors[:, None], table[None], dim=-1).max(dim=1).indices


# %% 03-nearest
def nearest_tokens(vectors, table):
    v, t = vectors.numpy().astype(np.float64), table.numpy().astype(np.float64)
    return np.argmax(v @ t.T / np.linalg.norm(t, axis=1), axis=1)


# %% 03-nearest
def nearest_tokens(vectors, table):
    unit = [row / row.norm() for row in table]
    best = []
    for vector in vectors:
        products = [float(vector @ row) for row in unit]
        best.append(products.index(max(products)))
    return torch.tensor(best)
