"""Notebook 03, the projector: judges of the exercises."""

import torch
from torch.nn import functional as F

from tiny_asr.course.checks import ask, exercise, expect, expect_mistakes


@exercise("03-stack")
def stack(stack_by_hand) -> str:
    """stack_by_hand(frames, rate) -> (T // rate, rate * dim): neighbours side by side."""
    for frames, dim, rate in ((6, 2, 3), (6, 3, 2), (20, 4, 5)):
        rows = torch.arange(frames * dim, dtype=torch.float32).reshape(frames, dim)
        groups = rows.reshape(frames // rate, rate, dim)
        far = rows.reshape(rate, frames // rate, dim).transpose(0, 1).flatten(1)
        so_many_rows = rows.reshape(rate, -1)
        causes = {
            "only one frame of each group is left; nothing may be lost": groups[:, 0],
            "the frames of a group are averaged; put them side by side": groups.mean(dim=1),
            "the frames of a group are added up; put them side by side": groups.sum(dim=1),
            "frames from far apart are together; the first row is frames 0 to rate - 1": far,
            "in a row, frame after frame; not number after number": groups.mT.flatten(1),
            "a row must be flat: rate * dim numbers": groups,
            "rate is how many frames lie in a row, not how many rows there are": so_many_rows,
        }
        shown = f"<{frames} frames of {dim}: 0, 1, 2, ...>, {rate}"
        right = torch.cat([groups[:, place] for place in range(rate)], dim=1)
        ask("stack_by_hand", stack_by_hand, rows, rate, expected=right, causes=causes, shown=shown)
    return "A fifth of the steps, five times as wide: no number is lost, none is new."


@exercise("03-count")
def count(counts) -> str:
    """Five predictions: what the parts of a small projector learn."""
    rate, encoder_dim, hidden, llm_dim = 4, 6, 10, 8
    came = [float(value) for value in counts]
    expect("the number of predictions", len(came), 5)
    stack = rate * encoder_dim
    parts = {
        "the first matrix": (
            stack * hidden,
            {"the first layer reads a whole stack, rate * encoder_dim": encoder_dim * hidden},
        ),
        "the first bias": (
            hidden,
            {"a bias has one number for each output, not for each input": stack},
        ),
        "the second matrix": (
            hidden * llm_dim,
            {"a matrix has a number for each pair of input and output": hidden + llm_dim},
        ),
        "the second bias": (
            llm_dim,
            {"a bias has one number for each output, not for each input": hidden},
        ),
        "the norm": (llm_dim, {"it has one factor for each output": 1, "it does learn": 0}),
    }
    for (name, (right, causes)), value in zip(parts.items(), came, strict=True):
        expect(name, value, right, causes)
    return "Most of them are in the first matrix, and grow with the rate."


@exercise("03-broken")
def broken(mistakes) -> str:
    """Three letters: who forgot what in three faulty projectors."""
    why = (
        "it is as loud as it should be, and most of the sentence is left",
        "it is far too loud",
        "it is as loud as it should be, and nothing of the sentence is left",
    )
    expect_mistakes(mistakes, "bac", why)
    return "The norm is heard in the loudness, the order within 100 ms hardly at all."


@exercise("03-nearest")
def nearest(nearest_tokens) -> str:
    """nearest_tokens(vectors, table) -> for each vector the row of the largest cosine."""
    generator = torch.Generator().manual_seed(1)
    loud = torch.rand(40, 1, generator=generator) * 3 + 0.05
    table = torch.randn(40, 6, generator=generator) * loud
    noise = table[::3] / loud[::3] + 0.3 * torch.randn(14, 6, generator=generator)
    small = torch.tensor([[1.0, 0.2], [0.2, 2.0]]), torch.tensor([[1.0, 0.0], [3, 3], [0, 0.1]])
    cases = {"[[1, 0.2], [0.2, 2]], [[1, 0], [3, 3], [0, 0.1]]": small}
    cases["<14 vectors>, <40 tokens>"] = noise, table
    for name, (vectors, tokens) in cases.items():
        cosine = F.cosine_similarity(vectors[:, None], tokens[None], dim=2)
        dots, away = vectors @ tokens.T, torch.cdist(vectors, tokens)
        right, opposite = cosine.argmax(dim=1), cosine.argmin(dim=1)
        causes = {
            "the plain product favours loud tokens; divide each vector by its length first": (
                dots.argmax(dim=1)
            ),
            "the distance favours quiet tokens; compare directions, not lengths": away.argmin(
                dim=1
            ),
            "the cosine is 1 for the same direction: take the largest, not the smallest": opposite,
            "these are the cosines, the values of `max`; the number of the token is `argmax`": (
                cosine.amax(dim=1)
            ),
            "these are products, the values of `max`; the number of the token is `argmax`": (
                dots.amax(dim=1)
            ),
            "`max(dim=1)` gives a pair, values and indices; return its `.indices`, or take "
            "`argmax(dim=1)`": list(cosine.max(dim=1)),
            "`argmax()` without dim=1 counts through the whole matrix": cosine.argmax(),
            "for each vector one token, not for each token one vector": cosine.argmax(dim=0),
        }
        given = vectors, tokens
        ask("nearest_tokens", nearest_tokens, *given, expected=right, causes=causes, shown=name)
    return "Loudness is out of it: only the direction counts."
