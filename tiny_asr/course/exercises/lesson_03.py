"""Notebook 03, the projector: judges of the exercises."""

import torch
from torch.nn import functional as F

from tiny_asr.course.checks import ask, exercise


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
def count(count_parameters) -> str:
    """count_parameters(rate, encoder_dim, hidden, llm_dim) -> numbers that are trained."""
    for case in ((1, 3, 4, 2), (5, 256, 1024, 288), (2, 8, 16, 8)):
        rate, encoder_dim, hidden, llm_dim = case
        first, second = rate * encoder_dim * hidden, hidden * llm_dim
        right = first + second + hidden + llm_dim + llm_dim
        of_inputs = first + second + rate * encoder_dim + hidden + llm_dim
        causes = {
            "these are the two matrices; each layer has a bias too, and the norm has a scale": (
                first + second
            ),
            "each linear layer adds a bias, one number for each of its outputs": (
                first + second + llm_dim
            ),
            "the norm at the end has llm_dim numbers of its own": right - llm_dim,
            "the first layer reads a whole stack, rate * encoder_dim numbers": (
                right - first + first // rate
            ),
            "a bias has one number for each output of a layer, not for each input": of_inputs,
        }
        ask("count_parameters", count_parameters, *case, expected=right, causes=causes)
    return "Nearly all of them are in the first matrix."


@exercise("03-rms")
def rms(as_loud_as) -> str:
    """as_loud_as(vectors, tokens) -> each vector with the root mean square of the whole table."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(6, 8, generator=generator) * torch.arange(1.0, 7)[:, None] + 0.5
    table = torch.randn(20, 8, generator=generator) * torch.linspace(0.02, 0.2, 20)[:, None]
    small = torch.tensor([[3.0, 4.0], [0.6, 0.8]]), torch.tensor([[0.1, 0.1], [0.7, -0.7]])
    cases = {"[[3, 4], [0.6, 0.8]]": small, "<6 vectors of 8>": (noise, table)}
    for name, (vectors, tokens) in cases.items():
        square = vectors.square().mean(dim=1, keepdim=True)
        even, target = vectors / square.sqrt(), tokens.square().mean().sqrt()
        rows, columns = (tokens.square().mean(dim=dim).sqrt() for dim in (1, 0))
        of_all = vectors / vectors.square().mean().sqrt()
        centred = vectors - vectors.mean(dim=1, keepdim=True)
        centred = centred / vectors.std(dim=1, keepdim=True, unbiased=False)
        deviation = vectors / vectors.std(dim=1, keepdim=True)
        one = "the tokens' loudness is one number, mean() without dim, and not one for each"
        causes = {
            "the length of a vector is the root of the SUM of squares; take the mean": (
                F.normalize(vectors, dim=1) * target
            ),
            "each vector is to be divided by its own loudness, not by that of all together": (
                of_all * target
            ),
            "now each has a root mean square of 1; make it that of the tokens": even,
            "the square root is missing": vectors / square * target,
            "two square roots are missing": vectors / square * target**2,
            "one mean over all numbers of the table, then its root": even * rows.mean(),
            f"{one} column": even * columns,
            "the mean is not to be taken off: RMS, not standard deviation": centred * target,
            "each vector is divided by its standard deviation, which takes its mean off": (
                deviation * target
            ),
            "multiply by the tokens' loudness, don't divide by it": even / target,
        }
        if len(vectors) == vectors.shape[1]:  # else it can't be divided at all
            without = vectors / square.sqrt().T * target
            causes["columns were divided, not rows: keep the dimension, keepdim=True"] = without
        if len(vectors) == len(tokens) == vectors.shape[1]:  # else they can't be multiplied at all
            causes[f"{one} token"] = even * rows[:, None]
            causes[f"{one} row of the table"] = even * rows
        shown, right = f"{name}, <{len(tokens)} token embeddings>", even * target
        ask("as_loud_as", as_loud_as, vectors, tokens, expected=right, causes=causes, shown=shown)
    return "This is what the RMS norm does; its one number for each dimension starts there."


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


@exercise("03-cost")
def cost(decoder_flops) -> str:
    """decoder_flops(seconds, rate, other, parameters) -> 2 x parameters x positions."""
    for case in ((3, 5, 26, 1_000), (10, 4, 40, 7), (30, 7, 0, 10)):
        seconds, rate, other, parameters = case
        frames, each = 50 * seconds, 2 * parameters
        read = -(-frames // rate)
        causes = {
            "2 for each parameter: one multiplication and one addition": (read + other)
            * parameters,
            "the decoder reads the prompt and the text as well: add `other`": each * read,
            "round up: the last frames need an embedding too": each * (frames // rate + other),
            "embeddings are whole: round up": each * (frames / rate + other),
            "one embedding holds `rate` frames: divide": each * (frames * rate + other),
            "there are 50 encoder frames a second": each * (-(-seconds // rate) + other),
        }
        right = each * (read + other)
        ask("decoder_flops", decoder_flops, *case, expected=right, causes=causes)
    return "Half the positions are half the work: that is what the rate is for."
