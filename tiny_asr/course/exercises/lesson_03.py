"""Notebook 03, the projector: judges of the exercises, and the quiz."""

import torch
from torch.nn import functional as F

from tiny_asr.course.checks import exercise, expect
from tiny_asr.course.quiz import Question


@exercise("03-stack")
def stack(stack_by_hand) -> str:
    """stack_by_hand(frames, rate) -> (T // rate, rate * dim): neighbours side by side."""
    for frames, dim, rate in ((6, 2, 3), (6, 3, 2), (20, 4, 5)):
        rows = torch.arange(frames * dim, dtype=torch.float32).reshape(frames, dim)
        groups = rows.reshape(frames // rate, rate, dim)
        far = rows.reshape(rate, frames // rate, dim).transpose(0, 1).flatten(1)
        causes = {
            "only one frame of each group is left; nothing may be lost": groups[:, 0],
            "the frames of a group are averaged; put them side by side": groups.mean(dim=1),
            "the frames of a group are added up; put them side by side": groups.sum(dim=1),
            "frames from far apart are together; the first row is frames 0 to rate - 1": far,
            "in a row, frame after frame; not number after number": groups.mT.flatten(1),
            "a row must be flat: rate * dim numbers": groups,
            "rate is how many frames lie in a row, not how many rows there are": rows.reshape(
                rate, -1
            ),
        }
        call = f"stack_by_hand(<{frames} frames of {dim}: 0, 1, 2, ...>, {rate})"
        right = torch.cat([groups[:, place] for place in range(rate)], dim=1)
        expect(call, stack_by_hand(rows.clone(), rate), right, causes)
    return "A fifth of the steps, five times as wide: no number is lost, none is new."


@exercise("03-count")
def count(count_parameters) -> str:
    """count_parameters(rate, encoder_dim, hidden, llm_dim) -> numbers that are trained."""
    for rate, encoder_dim, hidden, llm_dim in ((1, 3, 4, 2), (5, 256, 1024, 288), (2, 8, 16, 8)):
        wide = rate * encoder_dim
        matrices = wide * hidden + hidden * llm_dim
        right = matrices + hidden + llm_dim + llm_dim
        causes = {
            "these are the two matrices; each layer has a bias too, and the norm has a scale": (
                matrices
            ),
            "each linear layer adds a bias, one number for each of its outputs": matrices + llm_dim,
            "the norm at the end has llm_dim numbers of its own": matrices + hidden + llm_dim,
            "the first layer reads a whole stack, rate * encoder_dim numbers": (
                encoder_dim * hidden + hidden * llm_dim + hidden + 2 * llm_dim
            ),
            "a bias has one number for each output of a layer, not for each input": (
                matrices + wide + hidden + llm_dim
            ),
        }
        call = f"count_parameters({rate}, {encoder_dim}, {hidden}, {llm_dim})"
        expect(call, count_parameters(rate, encoder_dim, hidden, llm_dim), right, causes)
    return "Nearly all of them are in the first matrix."


@exercise("03-rms")
def rms(as_loud_as) -> str:
    """as_loud_as(vectors, tokens) -> each vector with the root mean square of the whole table."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(6, 8, generator=generator) * torch.arange(1.0, 7)[:, None] + 0.5
    table = torch.randn(20, 8, generator=generator) * torch.linspace(0.02, 0.2, 20)[:, None]
    cases = (
        ("[[3, 4], [0.6, 0.8]]", [[3.0, 4.0], [0.6, 0.8]], [[0.1, 0.1], [0.7, -0.7]]),
        ("<6 vectors of 8>", noise.tolist(), table.tolist()),
    )
    for name, vectors, tokens in cases:
        vectors, tokens = torch.tensor(vectors), torch.tensor(tokens)
        square = vectors.square().mean(dim=1, keepdim=True)
        target = tokens.square().mean().sqrt()
        rows, columns = (tokens.square().mean(dim=dim).sqrt() for dim in (1, 0))
        right = vectors / square.sqrt() * target
        one = "the tokens' loudness is one number, mean() without dim, and not one for each"
        causes = {
            "the length of a vector is the root of the SUM of squares; take the mean": F.normalize(
                vectors, dim=1
            )
            * target,
            "each vector is to be divided by its own loudness, not by that of all together": vectors
            / vectors.square().mean().sqrt()
            * target,
            "now each has a root mean square of 1; make it that of the tokens": vectors
            / square.sqrt(),
            "the square root is missing": vectors / square * target,
            "two square roots are missing": vectors / square * target**2,
            "one mean over all numbers of the table, then its root": vectors
            / square.sqrt()
            * rows.mean(),
            f"{one} column": vectors / square.sqrt() * columns,
            "the mean is not to be taken off: RMS, not standard deviation": (
                vectors - vectors.mean(dim=1, keepdim=True)
            )
            / vectors.std(dim=1, keepdim=True, unbiased=False)
            * target,
            "each vector is divided by its standard deviation, which takes its mean off": vectors
            / vectors.std(dim=1, keepdim=True)
            * target,
            "multiply by the tokens' loudness, don't divide by it": vectors
            / square.sqrt()
            / target,
        }
        if len(vectors) == vectors.shape[1]:  # else it can't be divided at all
            without = vectors / square.sqrt().T * target
            causes["columns were divided, not rows: keep the dimension, keepdim=True"] = without
        if len(vectors) == len(tokens) == vectors.shape[1]:  # else they can't be multiplied at all
            causes[f"{one} token"] = vectors / square.sqrt() * rows[:, None]
            causes[f"{one} row of the table"] = vectors / square.sqrt() * rows
        call = f"as_loud_as({name}, <{len(tokens)} token embeddings>)"
        expect(call, as_loud_as(vectors.clone(), tokens.clone()), right, causes)
    return "This is what the RMS norm does; its one number for each dimension starts there."


@exercise("03-nearest")
def nearest(nearest_tokens) -> str:
    """nearest_tokens(vectors, table) -> for each vector the row of the largest cosine."""
    generator = torch.Generator().manual_seed(1)
    loud = torch.rand(40, 1, generator=generator) * 3 + 0.05
    table = torch.randn(40, 6, generator=generator) * loud
    noise = table[::3] / loud[::3] + 0.3 * torch.randn(14, 6, generator=generator)
    small = torch.tensor([[1.0, 0.0], [3.0, 3.0], [0.0, 0.1]])
    cases = (
        ("[[1, 0.2], [0.2, 2]], [[1, 0], [3, 3], [0, 0.1]]", [[1.0, 0.2], [0.2, 2.0]], small),
        ("<14 vectors>, <40 tokens>", noise.tolist(), table),
    )
    for name, vectors, tokens in cases:
        vectors = torch.tensor(vectors)
        cosine = F.cosine_similarity(vectors[:, None], tokens[None], dim=2)
        dots, away = vectors @ tokens.T, torch.cdist(vectors, tokens)
        right = cosine.argmax(dim=1)
        causes = {
            "the plain product favours loud tokens; divide each vector by its length first": (
                dots.argmax(dim=1)
            ),
            "the distance favours quiet tokens; compare directions, not lengths": (
                away.argmin(dim=1)
            ),
            "the cosine is 1 for the same direction: take the largest, not the smallest": (
                cosine.argmin(dim=1)
            ),
            "these are the cosines, the values of `max`; the number of the token is `argmax`": (
                cosine.max(dim=1).values
            ),
            "these are products, the values of `max`; the number of the token is `argmax`": (
                dots.max(dim=1).values
            ),
            "`max(dim=1)` gives a pair, values and indices; return its `.indices`, or take "
            "`argmax(dim=1)`": list(cosine.max(dim=1)),
            "`argmax()` without dim=1 counts through the whole matrix": cosine.argmax(),
            "for each vector one token, not for each token one vector": cosine.argmax(dim=0),
        }
        call = f"nearest_tokens({name})"
        expect(call, nearest_tokens(vectors.clone(), tokens.clone()), right, causes)
    return "Loudness is out of it: only the direction counts."


@exercise("03-cost")
def cost(decoder_flops) -> str:
    """decoder_flops(seconds, rate, other, parameters) -> 2 x parameters x positions."""
    for seconds, rate, other, parameters in ((3, 5, 26, 1_000), (10, 4, 40, 7), (30, 7, 0, 10)):
        frames = 50 * seconds
        positions = -(-frames // rate) + other
        causes = {
            "2 for each parameter: one multiplication and one addition": positions * parameters,
            "the decoder reads the prompt and the text as well: add `other`": (
                2 * -(-frames // rate) * parameters
            ),
            "round up: the last frames need an embedding too": (
                2 * (frames // rate + other) * parameters
            ),
            "embeddings are whole: round up": 2 * (frames / rate + other) * parameters,
            "one embedding holds `rate` frames: divide": 2 * (frames * rate + other) * parameters,
            "there are 50 encoder frames a second": (
                2 * (-(-seconds // rate) + other) * parameters
            ),
        }
        call = f"decoder_flops({seconds}, {rate}, {other}, {parameters})"
        right = 2 * parameters * positions
        expect(call, decoder_flops(seconds, rate, other, parameters), right, causes)
    return "Half the positions are half the work: that is what the rate is for."


QUIZ = [
    Question(
        "What keeps the decoder from understanding the encoder's frames, however slow they are?",
        {
            "they come too fast": "Speed is a matter of cost. Slowed down, they would still mean "
            "nothing to it.",
            "their width and what their numbers mean are the encoder's own": "The decoder learnt "
            "its meanings from text; the encoder learnt others from sound.",
            "a language model refuses what is not a token": "It reads any vector of the right "
            "width, and does not ask where it comes from.",
        },
        "b",
    ),
    Question(
        "150 frames of 256 numbers are stacked by 5. What comes out?",
        {
            "30 stacks of 1280 numbers": "A fifth of the steps, five times the width: the same "
            "numbers in another shape.",
            "30 stacks of 256 numbers": "That would be averaging or leaving out: four fifths of "
            "the numbers would be gone.",
            "150 stacks of 1280 numbers": "Each frame goes into one stack only.",
        },
        "a",
    ),
    Question(
        "Where do most of the projector's parameters lie?",
        {
            "in the RMS norm": "It has llm_dim numbers: the fewest of all.",
            "in the second linear layer": "It is the smaller one: hidden width times llm_dim.",
            "in the first linear layer": "It reads whole stacks, so it grows with the rate.",
            "in the stacking": "Stacking only moves numbers: it has nothing to learn.",
        },
        "c",
    ),
    Question(
        "What happens to a pre-norm decoder when the audio embeddings are 1000 times too quiet?",
        {
            "nothing: its first norm makes up for it": "Down to some loudness. Here the eps in the "
            "norm is far larger than the embeddings.",
            "it hears nothing, and hardly any gradient comes back": "The norm's eps is larger than "
            "what it should measure. So it can't learn to hear, either.",
            "the loss becomes infinite": "It becomes that of guessing from the text alone.",
        },
        "b",
    ),
    Question(
        "A trained audio embedding is nearest to the token 'the'. Is it that token's embedding?",
        {
            "yes: the projector is a dictionary from sounds to tokens": "With the nearest tokens "
            "put in its place, the decoder writes something else.",
            "no: it points a little that way, and holds much more": "A cosine well below 1 leaves "
            "room for what the token does not say.",
            "no: which token is nearest is chance": "The nearest tokens spell parts of the "
            "sentence. Those of a fresh projector do not.",
        },
        "b",
    ),
]
