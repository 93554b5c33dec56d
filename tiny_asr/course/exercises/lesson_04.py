"""Notebook 04, the decoder: judges of the exercises."""

import re

import torch
from torch.nn import functional as F

from tiny_asr.course.checks import Wrong, ask, exercise, expect


@exercise("04-splice")
def splice(put_together) -> str:
    """put_together(before, audio, after, table) -> (P + A, llm_dim): the audio amid the prompt."""
    table = torch.arange(40.0).view(10, 4) / 10
    cases = (([1, 7], [3, 4], 2), ([1, 7], [3], 3), ([2], [9, 0, 9, 4], 1), ([5, 5, 6], [1, 8], 6))
    for ids, tail, length in cases:
        before, after = torch.tensor(ids), torch.tensor(tail)
        audio = -1 - torch.arange(4.0 * length).view(length, 4)
        first, last = table[before], table[after]
        parts = first, audio, last
        beside, deep = [], []
        if len(first) == length == len(last):
            beside, deep = torch.cat(parts, dim=1), torch.stack(parts)
        causes = {
            "the audio stands after the whole prompt; it belongs between its two halves": torch.cat(
                [first, last, audio]
            ),
            "the audio stands first; it belongs between the two halves": torch.cat(
                [audio, first, last]
            ),
            "the half after the audio is missing": torch.cat([first, audio]),
            "the half before the audio is missing": torch.cat([audio, last]),
            "the two halves are exchanged": torch.cat([last, audio, first]),
            "it lies on its side: positions are rows, join along dimension 0": torch.cat(parts).T,
            "positions are rows: join along dimension 0, not dimension 1": beside,
            "`torch.stack` puts a new dimension before the rows; `torch.cat` joins them": deep,
        }
        call = f"put_together({ids}, <{length} audio embeddings>, {tail}, <table 10 x 4>)"
        try:
            came = put_together(before.clone(), audio.clone(), after.clone(), table.clone())
        except RuntimeError as error:
            if not re.search("number of dimensions|stack expects", str(error)):
                raise
            raise Wrong(
                f"{call} stopped with {error}. Likely cause: ids are joined with embeddings; look "
                "them up first, `table[before]`"
            ) from error
        expect(call, came, torch.cat(parts), causes)
    return "That is all there is to it: no token stands for the sound."


@exercise("04-mask")
def mask(attention_weights) -> str:
    """attention_weights(scores) -> (L, L): softmax over each position itself and before, else 0."""
    drawn = 4 * torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) - 2
    cases = {"[[1, 5], [0, 0]]": torch.tensor([[1.0, 5.0], [0.0, 0.0]]), "<5 x 5 scores>": drawn}
    for name, scores in cases.items():
        past = torch.ones_like(scores).tril().bool()
        hidden, all_seen = scores.masked_fill(~past, -torch.inf), scores.softmax(dim=1)
        right, zeros = hidden.softmax(dim=1), (scores * past).softmax(dim=1)
        strict, wrong_half = (scores.masked_fill(m, -torch.inf) for m in (past.T, ~past.T))
        causes = {
            "nothing is hidden: each position sees those after it, too": all_seen,
            "the wrong half is hidden: each position sees only itself and what comes after": (
                wrong_half.softmax(dim=1)
            ),
            "hide before the softmax, not after it: each row must add up to 1": all_seen * past,
            "a score of 0 is no weight of 0, for exp(0) is 1; hide with minus infinity": zeros,
            "a position may look at itself; the first one has nothing else, hence the nan": (
                strict.softmax(dim=1)
            ),
            "the softmax runs along each row, dim=1: one row is one position that looks": (
                hidden.softmax(dim=0)
            ),
        }
        given = {"expected": right, "causes": causes, "shown": name}
        ask("attention_weights", attention_weights, scores, **given)
    return "The first position can only look at itself, so its weight is 1."


@exercise("04-sampling")
def sampling(probabilities) -> str:
    """probabilities(logits, temperature, k) -> (V,): softmax of logits / T among the k largest."""
    logits = torch.tensor([2.0, -1.0, 0.5, 3.0, 0.0, 1.5])
    for temperature, k in ((1.0, 6), (0.5, 6), (2.0, 6), (1.0, 2), (0.7, 3), (1.0, 1)):
        scaled, ordered = logits / temperature, logits.sort(descending=True).values / temperature
        ranks = logits.argsort(descending=True).argsort()
        best, all_of_them = ranks < k, scaled.softmax(dim=0)

        def among(kept, scores=scaled):
            return scores.masked_fill(~kept, -torch.inf).softmax(dim=0)

        causes = {
            "divide the logits by the temperature, don't multiply": (
                among(best, logits * temperature)
            ),
            "the temperature is not used": among(best, logits),
            "only the k likeliest may keep a chance": all_of_them,
            "what is left must add up to 1 again": all_of_them * best,
            "a logit of 0 is no chance of 0; hide the others with minus infinity": (
                (scaled * best).softmax(dim=0)
            ),
            "the k-th largest is gone, too: hide what is `<` the least of the k, not `<=`": (
                among(ranks < k - 1)
            ),
            "one token too many is left: counted from 0, the k-th largest is number k - 1": (
                among(ranks <= k)
            ),
            "these are the k least likely; keep the likeliest": among(ranks >= 6 - k),
            "these are the chances of the k alone; return one for each of the V tokens": (
                ordered[:k].softmax(dim=0)
            ),
        }
        call = f"probabilities([2, -1, 0.5, 3, 0, 1.5], {temperature}, {k})"
        try:
            came = probabilities(logits.clone(), temperature, k)
        except IndexError as error:
            if "Dimension" in str(error):  # of the softmax, say
                raise
            raise Wrong(
                f"{call} stopped with {error}. Likely cause: counted from 0, the k-th largest is "
                "number k - 1"
            ) from error
        expect(call, came, among(best), causes)
    return "A small temperature or a small k: in the limit, both are greedy."


def _speaker(script: list[int], prompt: list[int], most: int):
    """A language model of 10 tokens: says the script and then token 0, if it is given all before.

    Asked with other ids it says token 2; asked far too often it ends the endless loop.
    """
    asked = []

    def next_logits(ids):
        ids = [int(token) for token in ids]
        asked.append(ids)
        if len(asked) > 5 * (most + 1):
            raise Wrong(
                f"write(...) asked for the next token {len(asked)} times; expected {most} times at "
                "most. Likely cause: the loop never ends: count to `most`, stop at `end`"
            )
        known, told = ids[: len(prompt)], ids[len(prompt) :]
        follow = [*script, 0][len(told)] if told == script[: len(told)] else 2
        return F.one_hot(torch.tensor(follow if known == prompt else 2), 10) * 5.0

    return next_logits


@exercise("04-greedy")
def greedy(write) -> str:
    """write(next_logits, prompt, end, most) -> the new tokens, without the end token."""
    prompt = [9, 4]
    endless = [8, 3] * 20  # for who writes on to the end and only then cuts off
    praise = "The same few lines write with 8 million parameters and with 3 billion."
    scripts = (([5, 3, 3, 7], 10), ([4, 6, 2, 8, 2], 3), ([], 5), ([1, 1, 6], 4), (endless, 3))
    for script, most in scripts:
        right = script[:most]
        causes = {
            "the end token is no part of the text": [*right, 0],
            "return the new tokens only, without the prompt": [*prompt, *right],
            "neither the prompt nor the end token are part of the result": [*prompt, *right, 0],
            "at most `most` tokens, not one more": script[: most + 1],
            "nothing stops it but the end token: count to `most`": script,
            "one token is missing at the end: `most` of them may be written": right[:-1],
            "each token must be put behind the ids before the next one is asked for": (
                script[:1] * most
            ),
            "give next_logits the prompt and all new tokens, not only the new ones": [2] * most,
            "the list `prompt` grew: work on a copy of it, list(prompt)": [],
        }
        says = "8, 3, 8, 3 and so on" if script is endless else f"{script}, then the end"
        call = f"write(<says {says}>, {prompt}, end=0, most={most})"
        given = list(prompt)
        came = write(_speaker(script, prompt, most), given, 0, most)
        if isinstance(came, list) and any(hasattr(token, "detach") for token in came):
            praise = "Its tokens are tensors, though; `int(token)` makes plain integers of them."
        came = came.tolist() if hasattr(came, "tolist") else came
        expect(call, came, right, causes)
        if given != prompt:
            raise Wrong(
                f"the list `prompt` was {prompt} and is {given} after your function, whose caller "
                "may still need it. Work on a copy of it, list(prompt)"
            )
    return praise


@exercise("04-perplexity")
def perplexity(perplexity_of) -> str:
    """perplexity(log_probabilities) -> exp of minus their mean: a number."""
    for chances in ([0.25, 0.25, 0.25], [0.5, 0.125], [0.9, 0.01, 0.6, 1]):
        logs = torch.tensor(chances).log()
        mean, first_exp = -logs.mean(), (-logs).exp().mean()
        causes = {
            "the minus sign is missing": (-mean).exp(),
            "this is the mean surprise; its exponential is asked for": mean,
            "take the mean, not the sum: long texts are not worse": (-logs.sum()).exp(),
            "first the mean of the logarithms, then exp; not the other way round": first_exp,
            "these are natural logarithms: take exp, not a power of 2": 2**mean,
            "the mean is over logarithms, not over probabilities": 1 / logs.exp().mean(),
        }
        given = {"expected": mean.exp(), "causes": causes, "shown": f"ln {chances}"}
        ask("perplexity", perplexity_of, logs, **given)
    return "Always 1 in 4 is a perplexity of 4: like a fair choice among four tokens."
