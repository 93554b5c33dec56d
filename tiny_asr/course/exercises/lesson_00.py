"""Notebook 00, one clip all the way: judges of the exercises, and the quiz."""

import math
from difflib import get_close_matches

import torch
from torch import nn

from tiny_asr.course.checks import Wrong, describe, exercise, expect
from tiny_asr.course.quiz import Question
from tiny_asr.shapes import SAMPLES_PER_ENCODER_FRAME

ORDER = (
    "waveform",
    "log_mel",
    "encoder_output",
    "audio_embeddings",
    "decoder_input",
    "token_ids",
)


@exercise("00-order")
def order(names) -> str:
    """The six stages as a list, from sound to text."""
    if not isinstance(names, list | tuple):
        raise Wrong(f"order is {describe(names)}; expected a list of the six names.")
    for name in names:
        if name not in ORDER:
            close = get_close_matches(str(name), ORDER, n=1)
            meant = f", perhaps {close[0]!r}" if close else ""
            raise Wrong(f"no stage is called {name!r}; expected one of the six names{meant}.")
        if names.count(name) > 1:
            raise Wrong(f"order holds {name} {names.count(name)} times; expected each stage once.")
    if missing := [name for name in ORDER if name not in names]:
        raise Wrong(f"order has {len(names)} of the six stages; missing: {', '.join(missing)}.")
    reasons = {
        "waveform": "everything begins with samples of air pressure",
        "log_mel": "the encoder reads a picture, and that is made from the samples",
        "encoder_output": "the encoder reads the log-mel, and the projector reads the encoder",
        "audio_embeddings": "the projector makes them from the encoder's output",
        "decoder_input": "the audio embeddings are spliced into the prompt",
        "token_ids": "writing comes last",
    }
    for place, (came, expected) in enumerate(zip(names, ORDER, strict=True), start=1):
        if came != expected:
            raise Wrong(f"place {place} holds {came}; expected {expected}: {reasons[expected]}.")
    return "From pressure to picture to sounds in context to embeddings to tokens."


@exercise("00-lengths")
def lengths(answer) -> str:
    """lengths(samples, rate) -> (F, T, A) after padding to whole audio embeddings."""
    for samples, rate in ((48_000, 5), (47_687, 5), (1, 5), (16_000, 4)):
        embeddings = -(-samples // (SAMPLES_PER_ENCODER_FRAME * rate))
        fewer = samples // (SAMPLES_PER_ENCODER_FRAME * rate)
        frames = -(-samples // SAMPLES_PER_ENCODER_FRAME)
        right = (2 * rate * embeddings, rate * embeddings, embeddings)
        fives = -(-samples // (SAMPLES_PER_ENCODER_FRAME * 5))
        causes = {
            "no sound may be dropped: round the embeddings up, not down": tuple(
                fewer * each for each in (2 * rate, rate, 1)
            ),
            "the clip is padded first, then F and T follow from A": (
                samples // 160,
                samples // 320,
                samples // 320 // rate,
            ),
            "F and T are those of the padded clip, so they follow from A": (
                samples // 160,
                samples // 320,
                embeddings,
            ),
            "`rate` is not always 5": (10 * fives, 5 * fives, fives),
            "they are in the wrong order: F first, then T, then A": right[::-1],
            "`// n + 1` counts one too many where the samples fit exactly; `-(-a // n)` does not": (
                tuple((fewer + 1) * each for each in (2 * rate, rate, 1))
            ),
            "only A is rounded up: T is `rate` times A, and F twice T": (
                -(-samples // 160),
                frames,
                -(-frames // rate),
            ),
            "`/` leaves fractions; these are counts, and A is rounded up": (
                samples / 160,
                samples / SAMPLES_PER_ENCODER_FRAME,
                samples / (SAMPLES_PER_ENCODER_FRAME * rate),
            ),
        }
        expect(f"lengths({samples}, {rate})", answer(samples, rate), right, causes)
    return "Even a single sample becomes one audio embedding."


@exercise("00-instant")
def instant(embedding_at) -> str:
    """embedding_at(seconds) -> which audio embedding, of 100 ms each, holds an instant."""
    for seconds in (0.0, 0.05, 0.1, 0.29, 0.3, 0.7, 1.0, 2.95):
        sample = round(seconds * 16_000)
        right = sample // 1600
        causes = {
            "0.3 / 0.1 is 2.9999999999999996: count whole samples, or multiply by 10": int(
                seconds / 0.1
            ),
            "an instant belongs to the embedding that has begun, so round down": round(
                seconds * 10
            ),
            "this rounds up; at 0.05 s embedding 0 has begun, and 1 has not": math.ceil(
                seconds * 10
            ),
            "the first one has the number 0": right + 1,
            "this is no whole number yet: round it down": seconds * 10,
            "this is the number of the sample; an embedding holds 1600 of them": sample,
            "these are mel frames of 10 ms; an embedding holds 10": int(seconds * 100),
            "these are encoder frames of 20 ms; an embedding holds 5": int(seconds * 50),
        }
        expect(f"embedding_at({seconds})", embedding_at(seconds), right, causes)
    return "With 10 embeddings a second, each must carry a sound or two."


@exercise("00-trained")
def trained(trained_share) -> str:
    """trained_share(module) -> trained parameters / all parameters."""
    with torch.random.fork_rng([]):  # the notebook's own random numbers stay as they were
        module = nn.ModuleDict({"frozen": nn.Linear(30, 9), "trained": nn.Linear(20, 1)})
    module["frozen"].requires_grad_(False)
    causes = {
        "this is the frozen share": 279 / 300,
        "count numbers (`.numel()`), not tensors": 2 / 4,
        "`len(p)` counts the rows of a matrix, `p.numel()` its numbers": 2 / 20,
        "divide by all parameters, not by the frozen ones": 21 / 279,
        "this is a count; divide it by all parameters": 21,
        "this is upside down: the trained ones over all": 300 / 21,
        "this is in per cent; a share is between 0 and 1": 7,
        "`//` drops the fraction; divide with `/`": 0,
        "frozen parameters count as not trained: look at `requires_grad`": 1,
    }
    call = "trained_share(<279 frozen and 21 trained parameters>)"
    expect(call, trained_share(module), 21 / 300, causes)
    module.requires_grad_(False)
    expect("trained_share(<all frozen>)", trained_share(module), 0)
    return "Now try it on `model`."


QUIZ = [
    Question(
        "Which part of the recogniser is trained in this course?",
        {
            "the encoder": "It is frozen: it already knows how speech sounds.",
            "the projector": "It is the one translator between two frozen specialists.",
            "the decoder": "It is frozen: it already knows how to write.",
        },
        "b",
    ),
    Question(
        "A clip lasts 3 seconds. How many audio embeddings does the projector make of it?",
        {
            "300": "These are the mel frames, 100 a second: the encoder reads them.",
            "150": "These are the encoder frames, 50 a second: the projector reads them.",
            "30": "10 a second, each made of 5 encoder frames of 20 ms: the decoder reads them.",
        },
        "c",
    ),
    Question(
        "Why can't the encoder's output be given to the language model as it is?",
        {
            "its vectors mean sounds, not pieces of words, and are of another width": "That is the "
            "modality gap. Equal widths alone would not close it.",
            "it is too long for any language model": "150 vectors are few; it is a matter of "
            "meaning first.",
            "language models only accept text": "They read embeddings, and don't ask where these "
            "come from.",
        },
        "a",
    ),
    Question(
        "How does the decoder write the transcript?",
        {
            "all tokens at once": "It can't: each token is chosen after the tokens before it.",
            "one token at a time, from the audio and the tokens written so far": "That is what "
            "autoregressive means.",
            "one word for each audio embedding": "Then our clip, 30 embeddings, would be 30 words. "
            "It has 11: the decoder itself decides when the text ends.",
        },
        "b",
    ),
]
