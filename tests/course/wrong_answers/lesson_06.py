# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 06: `# %% ID | what the check must say`.

import numpy as np


# %% 06-edits | comparing place by place
def edits(said, heard):
    wrong = sum(a != b for a, b in zip(said, heard, strict=False))
    return wrong + abs(len(said) - len(heard))


# %% 06-edits | one error, not two
def edits(said, heard):
    above = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        row = [i]
        for j, other in enumerate(heard, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + 2 * (word != other)))
        above = row
    return above[-1]


# %% 06-edits | row 0 is not all 0
def edits(said, heard):
    table = np.zeros((len(said) + 1, len(heard) + 1), dtype=int)
    table[:, 0] = range(len(said) + 1)
    for i, word in enumerate(said, start=1):
        for j, other in enumerate(heard, start=1):
            diagonal = table[i - 1, j - 1] + (word != other)
            table[i, j] = min(diagonal, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return int(table[-1, -1])


# %% 06-edits | the order of the words counts
def edits(said, heard):
    return max(len(set(said) - set(heard)), len(set(heard) - set(said)))


# %% 06-edits | your code stopped with IndexError
def edits(said, heard):
    wrong = 0
    for i in range(max(len(said), len(heard))):
        wrong += said[i] != heard[i]
    return wrong


# %% 06-guess | no upper limit
guesses = [100, 100, 100, 20]


# %% 06-guess | mean of the clips' rates
guesses = [200, 100, 100, 31.25]


# %% 06-guess | not nothing wrong
guesses = [200, 100, 0, 20]


# %% 06-guess | a list of four numbers
guesses = 200


# %% 06-paired | mine minus ours
def difference(mine, ours, words, draws):
    return np.percentile((ours - mine)[draws].sum(axis=1) / words[draws].sum(axis=1), [2.5, 97.5])


# %% 06-paired | words of the same draw
def difference(mine, ours, words, draws):
    return np.percentile((mine - ours)[draws].sum(axis=1) / words.sum(), [2.5, 97.5])


# %% 06-paired | mean of the clips' differences
def difference(mine, ours, words, draws):
    return np.percentile(((mine - ours) / words)[draws].mean(axis=1), [2.5, 97.5])


# %% 06-paired | the middle 90 %
def difference(mine, ours, words, draws):
    return np.percentile((mine - ours)[draws].sum(1) / words[draws].sum(1), [5, 95])


# %% 06-paired | subtract first, draw by draw
def difference(mine, ours, words, draws):
    def ends(errors):
        return np.percentile(errors[draws].sum(1) / words[draws].sum(1), [2.5, 97.5])

    return ends(mine) - ends(ours)


# %% 06-paired | axis=1, not axis=0
def difference(mine, ours, words, draws):
    return np.percentile((mine - ours)[draws].sum(axis=0) / words[draws].sum(axis=0), [2.5, 97.5])


# %% 06-fool | they stay different
pair = ("a cat sat", "a dog sat")


# %% 06-fool | case, space or punctuation only
pair = ("Hello, you!", "hello you")


# %% 06-fool | find one of your own
pair = ("O'Brien", "zero Brien")


# %% 06-fool | two texts in a pair
pair = "um, yes"


# %% 06-fool | both texts are the same
pair = ("yes", "yes")


# %% 06-paired | on the *same* draw
def difference(mine, ours, words, draws):
    first = mine[draws].sum(axis=1) / words[draws].sum(axis=1)
    second = ours[draws[::-1]].sum(axis=1) / words[draws[::-1]].sum(axis=1)
    return np.percentile(first - second, [2.5, 97.5])


# %% 06-edits | a way to lay the two side by side with fewer errors
def edits(said, heard):
    from difflib import SequenceMatcher

    steps = SequenceMatcher(None, said, heard, autojunk=False).get_opcodes()
    return sum(max(i - h, k - j) for kind, h, i, j, k in steps if kind != "equal")
