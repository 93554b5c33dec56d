"""Notebook 00, one clip all the way: judges of the exercises."""

from difflib import get_close_matches

import torch
from torch import nn

from tiny_asr.course.checks import Wrong, ask, describe, exercise, expect

REASONS = {
    "waveform": "everything begins with samples of air pressure",
    "log_mel": "the encoder reads a picture, and that is made from the samples",
    "encoder_output": "the encoder reads the log-mel, and the projector reads the encoder",
    "audio_embeddings": "the projector makes them from the encoder's output",
    "decoder_input": "the audio embeddings are spliced into the prompt",
    "token_ids": "writing comes last",
}


@exercise("00-order")
def order(names) -> str:
    """The six stages as a list, from sound to text."""
    if not isinstance(names, list | tuple):
        raise Wrong(f"order is {describe(names)}; expected a list of the six names.")
    for name in names:
        if name not in REASONS:
            close = get_close_matches(str(name), REASONS, n=1)
            meant = f", perhaps {close[0]!r}" if close else ""
            raise Wrong(f"no stage is called {name!r}; expected one of the six names{meant}.")
        if names.count(name) > 1:
            raise Wrong(f"order holds {name} {names.count(name)} times; expected each stage once.")
    if missing := [name for name in REASONS if name not in names]:
        raise Wrong(f"order has {len(names)} of the six stages; missing: {', '.join(missing)}.")
    for place, (came, expected) in enumerate(zip(names, REASONS, strict=True), start=1):
        if came != expected:
            raise Wrong(f"place {place} holds {came}; expected {expected}: {REASONS[expected]}.")
    return "From pressure to picture to sounds in context to embeddings to tokens."


@exercise("00-lengths")
def lengths(answer) -> str:
    """lengths(samples, rate) -> (F, T, A) after padding to whole audio embeddings."""
    for samples, rate in ((48_000, 5), (47_687, 5), (1, 5), (16_000, 4)):
        size, fives, exact = 320 * rate, -(-samples // 1600), samples / 320
        embeddings, fewer = -(-samples // size), samples // size
        mel, frames = samples // 160, samples // 320
        apart = -(-samples // 160), -(-samples // 320), -(-samples // 320 // rate)
        fractions, unpadded = (2 * exact, exact, exact / rate), (mel, frames, embeddings)
        right, down, more = (
            (2 * rate * count, rate * count, count) for count in (embeddings, fewer, fewer + 1)
        )
        causes = {
            "no sound may be dropped: round the embeddings up, not down": down,
            "the clip is padded first, then F and T follow from A": (mel, frames, frames // rate),
            "F and T are those of the padded clip, so they follow from A": unpadded,
            "`rate` is not always 5": (10 * fives, 5 * fives, fives),
            "they are in the wrong order: F first, then T, then A": right[::-1],
            "`// n + 1` counts one too many where the samples fit exactly; `-(-a // n)` does not": (
                more
            ),
            "only A is rounded up: T is `rate` times A, and F twice T": apart,
            "`/` leaves fractions; these are counts, and A is rounded up": fractions,
        }
        ask("lengths", answer, samples, rate, expected=right, causes=causes)
    return "Even a single sample becomes one audio embedding."


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


@exercise("00-graft")
def graft(join) -> str:
    """graft(first, second, leave, enter): `first` up to an instant, `second` from one on."""
    first = torch.arange(20.0).reshape(1, 10, 2)
    second = 100 + torch.arange(24.0).reshape(1, 12, 2)

    def joined(one, other):
        return torch.cat([one, other], dim=1)

    for leave, enter in ((0.6, 0.9), (0.3, 0.7), (0.5, 0.5)):
        out, into = round(10 * leave), round(10 * enter)
        kept, added = first[:, :out], second[:, into:]
        right, whole = joined(kept, added), joined(first[:, : int(leave)], second[:, int(enter) :])
        cut = joined(first[:, : int(10 * leave)], second[:, int(enter / 0.1) :])
        causes = {
            "`first` comes first": joined(second[:, :into], first[:, out:]),
            "`second` begins at `enter`, not at `leave`": joined(kept, second[:, out:]),
            "`second` is kept from `enter` on, not up to it": joined(kept, second[:, :into]),
            "`first` is kept up to `leave`, not from it on": joined(first[:, out:], added),
            "seconds are no steps: there are ten embeddings a second": whole,
            "`int` cuts off, and 0.7 * 10 may be 6.99...; `round` it": cut,
            "the embedding that begins at `leave` is not kept any more": joined(
                first[:, : out + 1], added
            ),
            "the batch axis must stay: the result has three axes": right[0],
        }
        given = first, second, leave, enter
        shown = f"<10 embeddings>, <12 embeddings>, {leave}, {enter}"
        ask("graft", join, *given, expected=right, causes=causes, shown=shown)
    return "One sentence, two voices: run the next cell."
