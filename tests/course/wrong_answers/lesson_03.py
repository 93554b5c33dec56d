# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 03: `# %% ID | what the check must say`.

import torch


# %% 03-stack | only one frame of each group is left
def stack_by_hand(frames, rate):
    return frames[::rate]


# %% 03-stack | averaged
def stack_by_hand(frames, rate):
    return frames.reshape(-1, rate, frames.shape[1]).mean(dim=1)


# %% 03-stack | frames from far apart are together
def stack_by_hand(frames, rate):
    return torch.cat(frames.chunk(rate), dim=1)


# %% 03-stack | frame after frame; not number after number
def stack_by_hand(frames, rate):
    groups = frames.reshape(-1, rate, frames.shape[1])
    return groups.transpose(1, 2).flatten(1)


# %% 03-stack | a row must be flat
def stack_by_hand(frames, rate):
    return frames.reshape(-1, rate, frames.shape[1])


# %% 03-stack | rate is how many frames lie in a row
def stack_by_hand(frames, rate):
    return frames.reshape(rate, -1)


# %% 03-nearest | the plain product favours loud tokens
def nearest_tokens(vectors, table):
    return (vectors @ table.T).argmax(dim=1)


# %% 03-nearest | the distance favours quiet tokens
def nearest_tokens(vectors, table):
    return torch.cdist(vectors, table).argmin(dim=1)


# %% 03-nearest | take the largest, not the smallest
def nearest_tokens(vectors, table):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    table = table / table.norm(dim=1, keepdim=True)
    return (vectors @ table.T).argmin(dim=1)


# %% 03-nearest | the number of the token
def nearest_tokens(vectors, table):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    table = table / table.norm(dim=1, keepdim=True)
    return (vectors @ table.T).max(dim=1).values


# %% 03-nearest | the plain product favours loud tokens
def nearest_tokens(vectors, table):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return (vectors @ table.T).argmax(dim=1)


# %% 03-nearest | return its `.indices`
def nearest_tokens(vectors, table):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    table = table / table.norm(dim=1, keepdim=True)
    return (vectors @ table.T).max(dim=1)


# %% 03-nearest | these are products, the values of `max`
def nearest_tokens(vectors, table):
    return (vectors @ table.T).max(dim=1).values


# %% 03-nearest | without dim=1
def nearest_tokens(vectors, table):
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    table = table / table.norm(dim=1, keepdim=True)
    return (vectors @ table.T).argmax()


# %% 03-count | the first layer reads a whole stack
counts = [60, 10, 80, 8, 8]


# %% 03-count | one number for each output, not for each input
counts = [240, 24, 80, 10, 8]


# %% 03-count | it does learn
counts = [240, 10, 80, 8, 0]


# %% 03-count | each pair of input and output
counts = [240, 10, 18, 8, 8]


# %% 03-broken | most of the sentence is left
mistakes = ["c", "a", "b"]


# %% 03-broken | it is far too loud
mistakes = ["b", "c", "a"]
