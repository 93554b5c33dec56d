# ruff: noqa: F811
# Right answers to the exercises of notebook 06 that are written otherwise: `# %% ID`.

import numpy as np


# %% 06-edits
def edits(said, heard):
    table = np.zeros((len(said) + 1, len(heard) + 1), dtype=int)
    table[0], table[:, 0] = range(len(heard) + 1), range(len(said) + 1)
    for i in range(1, len(said) + 1):
        for j in range(1, len(heard) + 1):
            diagonal = table[i - 1, j - 1] + (said[i - 1] != heard[j - 1])
            table[i, j] = min(diagonal, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[-1, -1]


# %% 06-edits
def edits(said, heard):
    if not said or not heard:
        return len(said) + len(heard)
    if said[-1] == heard[-1]:
        return edits(said[:-1], heard[:-1])
    ways = edits(said[:-1], heard), edits(said, heard[:-1]), edits(said[:-1], heard[:-1])
    return 1 + min(ways)


# %% 06-edits
def edits(said, heard):
    table = [[i + j for j in range(len(heard) + 1)] for i in range(len(said) + 1)]
    for i, a in enumerate(said):
        for j, b in enumerate(heard):
            ways = table[i][j] + (a != b), table[i][j + 1] + 1, table[i + 1][j] + 1
            table[i + 1][j + 1] = min(ways)
    return float(table[len(said)][len(heard)])


# %% 06-edits
def edits(said, heard):
    import functools

    @functools.cache
    def cell(i, j):
        if i == 0 or j == 0:
            return i + j
        same = said[i - 1] == heard[j - 1]
        return min(cell(i - 1, j - 1) + (not same), cell(i - 1, j) + 1, cell(i, j - 1) + 1)

    return cell(len(said), len(heard))


# %% 06-edits
def edits(said, heard):
    import jiwer

    if not said or not heard:
        return len(said) + len(heard)
    found = jiwer.process_words(" ".join(said), " ".join(heard))
    return found.substitutions + found.deletions + found.insertions


# %% 06-paired
def difference(mine, ours, words, draws):
    gaps = (mine - ours)[draws].sum(axis=1) / words[draws].sum(axis=1)
    return np.percentile(gaps, 2.5), np.percentile(gaps, 97.5)


# %% 06-paired
def difference(mine, ours, words, draws):
    gaps = []
    for draw in draws:
        gaps.append((mine[draw].sum() - ours[draw].sum()) / words[draw].sum())
    return np.quantile(gaps, [0.025, 0.975])


# %% 06-paired
def difference(mine, ours, words, draws):
    def rate(errors):
        return errors[draws].sum(axis=-1) / words[draws].sum(axis=-1)

    return list(np.percentile(rate(mine) - rate(ours), (2.5, 97.5)))


# %% 06-paired
def difference(mine, ours, words, draws):
    counts = np.array([np.bincount(draw, minlength=len(words)) for draw in draws])
    return np.percentile(counts @ (mine - ours) / (counts @ words), [2.5, 97.5])


# %% 06-paired
def difference(mine, ours, words, draws):
    import torch

    a, b, n = (torch.tensor(x, dtype=torch.float32) for x in (mine, ours, words))
    places = torch.as_tensor(draws)
    gaps = (a[places].sum(1) - b[places].sum(1)) / n[places].sum(1)
    return torch.quantile(gaps, torch.tensor([0.025, 0.975]))


# %% 06-fool
pair = ("um, yes", "yes")


# %% 06-fool
pair = ["the grey colour", "the gray color"]


# %% 06-fool
pair = ("he won twenty one times", "he won 21 times")


# %% 06-fool
pair = ("I won't go", "I will not go")


# %% 06-fool
pair = ("mister brown [laughs]", "mr. brown")


# %% 06-guess
guesses = (200.0, 100.0, 100.0, 20.0)


# %% 06-paired
def difference(mine, ours, words, draws):
    gaps = sorted((mine - ours)[draw].sum() / words[draw].sum() for draw in draws)
    return gaps[int(0.025 * len(gaps))], gaps[min(len(gaps) - 1, int(0.975 * len(gaps)))]


# %% 06-paired
def difference(mine, ours, words, draws):
    gaps = np.sort((mine - ours)[draws].sum(1) / words[draws].sum(1))
    return [np.quantile(gaps, end, method="closest_observation") for end in (0.025, 0.975)]
