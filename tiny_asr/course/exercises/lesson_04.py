"""Notebook 04, the decoder: judges of the exercises."""

import torch
from torch.nn import functional as F

from tiny_asr.course.checks import NotAttempted, Wrong, ask, exercise, expect


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


def _speaker(script: list[int], prompt: list[int], most: int):
    """A language model of 10 tokens: says the script and then token 0, if it is given all before.
    Asked with other ids it says token 2; asked far too often it ends the endless loop."""
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


@exercise("04-beam")
def beam(answers) -> str:
    """Predictions: greedy search's text and its probability, a beam's text and its probability."""
    came = list(answers)
    if "..." in [str(part).strip() for part in came]:
        raise NotAttempted
    expect("the number of predictions", len(came), 4)
    texts = [" ".join(str(came[place]).lower().split()) for place in (0, 2)]
    try:
        chances = [float(came[place]) for place in (1, 3)]
    except (TypeError, ValueError):
        raise Wrong("a probability is a number from 0 to 1, without a per cent sign") from None
    if texts[0] == "turned into":
        raise Wrong("greedy search takes the likelier first token, and never goes back")
    if texts[0] != "turn in":
        raise Wrong(f"{texts[0]!r} came for greedy search: which is the likelier token each time?")
    causes = {"multiply the two probabilities": 1.1, "of both tokens, not of the last alone": 0.5}
    expect("the probability of greedy search's text", chances[0], 0.3, causes)
    if texts[1] == "turn in":
        raise Wrong("a beam of 2 keeps both first tokens, so *turned* is still there: compare")
    if texts[1] != "turned into":
        raise Wrong(f"{texts[1]!r} came for the beam: which of the five products is the largest?")
    causes = {"multiply the two probabilities": 1.3, "of both tokens, not of the last alone": 0.9}
    expect("the probability of the beam's text", chances[1], 0.36, causes)
    return "The likelier beginning led to the less likely text."


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
