"""Notebook 05, training: judges of the exercises."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from tiny_asr.audio import load_audio
from tiny_asr.course.checks import Wrong, ask, attempted, describe, exercise, expect, listed
from tiny_asr.course.lesson_05_loop import PATIENTS
from tiny_asr.hub import sample_clip
from tiny_asr.model import ASRModel
from tiny_asr.shapes import IGNORE, SAMPLE_RATE


class _ByHand(TorchFunctionMode):
    """While it is on, `F.cross_entropy` is refused, whoever calls it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.cross_entropy:
            raise Wrong(
                "your code leaves the work to F.cross_entropy; expected it by hand: softmax, "
                "logarithm, mean"
            )
        return function(*args, **(kwargs or {}))


@exercise("05-entropy")
def entropy(cross_entropy) -> str:
    """cross_entropy(logits, labels) -> mean over the labels that are not -100."""
    toy = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]])
    noise = 4 * torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    # At 1000 a float32 has steps of 6e-5; the loss of 3 is large beside them.
    large = torch.tensor([[997.0, 1000.0], [0.0, 3.0]])
    cases = {
        "[[0, 0], [2, 0], [1, 3]], [0, 1, -100]": (toy, [0, 1, IGNORE]),
        "<6 x 9 scores>, [3, 0, -100, 8, -100, 2]": (noise, [3, 0, IGNORE, 8, IGNORE, 2]),
        "<scores up to 1000>, [0, 1]": (large, [0, 1]),
    }
    for name, (logits, numbers) in cases.items():
        labels = torch.tensor(numbers)
        counted, log_p, places = labels != IGNORE, logits.log_softmax(1), torch.arange(len(labels))
        each = F.cross_entropy(logits, labels, reduction="none")
        right, bare = each[counted].mean(), logits[counted, labels[counted]]
        naive = -(logits.exp() / logits.exp().sum(1, keepdim=True)).log()
        naive = naive[counted, labels[counted]].mean()
        overflow = torch.tensor(math.inf) if naive.isfinite() else naive
        causes = {
            "divide by the labels that count, not by all of them": each.sum() / len(labels),
            "labels of -100 must be left out": -log_p[places, labels.clamp(min=0)].mean(),
            "the label -100 took a score from the row's end: leave those rows out": (
                -log_p[places, labels.clamp(min=-1)].mean()
            ),
            "the sign: a probability below 1 has a negative logarithm": -right,
            "this is the sum; the loss is the mean": each.sum(),
            "this is the mean probability, without its logarithm": (-each[counted]).exp().mean(),
            "take the logarithm of the softmax, not the bare score": -bare.mean(),
            "this is to the base 2; the loss takes the natural logarithm": right / math.log(2),
            "e to the power of 1000 is infinite: subtract the row's largest score first": overflow,
        }
        given = {"expected": right, "causes": causes, "shown": name}
        with _ByHand():
            ask("cross_entropy", cross_entropy, logits, labels, **given)
    return "F.cross_entropy does the same, and leaves out -100 by itself."


@exercise("05-guess")
def guess(guesses) -> str:
    """Three numbers: a gradient after a second `backward`, and two norms after clipping to 1."""
    guesses = listed(guesses, 3, "a list of three numbers")
    added = "`backward` adds to the gradient that is there; only `zero_grad` empties it"
    scaled = "all numbers shrink by one factor, so that the norm becomes 1"
    expect("the first guess", guesses[0], 20, {added: 10, f"{added}: 10 + 10": 0})
    expect("the second guess", guesses[1], 1, {scaled: 34, f"{scaled}, and not by 1": 33})
    expect("the third guess", guesses[2], 0.3, {"what is short enough stays as it is": 1})
    return "The next cell does it."


# The loop: watched while it runs, and told by what it does ---------------------------------------

STEPS = 16
CLIPPED = 1.01  # the norm of a gradient, and a little


@dataclass
class _Seen:
    """What a loop did, in order: "forward", "backward" and "step"."""

    order: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    shown: list = field(default_factory=list)
    norms: list[float] = field(default_factory=list)  # of the gradient, at each step
    piled: bool = False  # was a gradient added to an older one?
    astray: bool = False  # did an optimiser hold no weight of the projector?
    optimizers: set[int] = field(default_factory=set)


@cache
def _small() -> tuple[ASRModel, list[dict[str, Tensor]]]:
    """The pair `tiny`, and two batches of 0.8 s of the course's sentence."""
    model, clip = ASRModel.from_pretrained("tiny"), load_audio(sample_clip())
    size, batches = 8 * model.config.samples_per_embedding, []
    for number, text in enumerate(("she listens", "to the sea")):
        frames = model.encode(clip[number * size : (number + 1) * size], SAMPLE_RATE)
        batches.append({"encoder_output": frames, "labels": model.processor.labels([text])})
    return model, batches


@contextmanager
def _watched(model: ASRModel) -> Iterator[_Seen]:
    """Note what happens to a model, from a fresh projector on."""
    seen, projector = _Seen(), model.audio_projector
    projector.requires_grad_(True)
    projector.zero_grad()
    model.reset_projector(seed=0)
    weights = list(projector.parameters())
    arrived = {}

    def backward(_) -> None:
        seen.order.append("backward")
        seen.piled |= not torch.allclose(weights[0].grad, arrived["gradient"], rtol=1e-3)

    def step(optimizer, *_) -> None:
        held = {id(w) for group in optimizer.param_groups for w in group["params"]}
        seen.order.append("step")
        seen.optimizers.add(id(optimizer))
        seen.astray |= not held & {id(w) for w in weights}
        found = [w.grad.norm() for w in weights if w.grad is not None]
        seen.norms.append(float(torch.stack(found).norm()) if found else 0.0)

    hooks = [
        weights[0].register_hook(lambda gradient: arrived.update(gradient=gradient.clone())),
        weights[0].register_post_accumulate_grad_hook(backward),
        projector.register_forward_hook(lambda *_: seen.order.append("forward")),
        model.register_forward_hook(lambda *given: seen.losses.append(given[-1].loss.item())),
        register_optimizer_step_pre_hook(step),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _symptom(seen: _Seen, moved: bool) -> str:
    """What is wrong with a loop, by what it did; "" if nothing is."""
    kinds = ("forward", "backward", "step")
    forwards, backwards, steps = (seen.order.count(kind) for kind in kinds)
    if not forwards:
        return "the model was never asked: the loss of a batch is `model(**batch).loss`"
    if forwards < STEPS:
        return f"only {forwards} of {STEPS} batches were heard. Does `return` stand in the loop?"
    if not backwards:
        return "no weight ever got a gradient: `loss.backward()` is missing"
    if not steps and not moved:
        return "all weights are as they were, and the loss stands still: `step` is missing"
    if seen.astray:
        return (
            "the loss stands still: gradients arrive at the projector, but the optimiser holds "
            "other weights; give it `model.audio_projector.parameters()`"
        )
    if len(seen.optimizers) > 1:
        return (
            "more than one optimiser was made. AdamW remembers earlier gradients: make one, before "
            "the loop"
        )
    if steps and seen.order.index("step") < seen.order.index("backward"):
        return (
            "the first step found no gradient, and each later one used that of the batch before: "
            "`step` stands before `backward`"
        )
    if steps and not any(seen.norms):
        return (
            "each step found gradients of 0, and the loss stands still: `zero_grad` stands "
            "between `backward` and `step`"
        )
    if seen.piled:
        return (
            "each gradient was added to those of all batches before: `zero_grad` is missing, or "
            "is not called in each step"
        )
    if steps and max(seen.norms) > CLIPPED:
        return (
            f"a step was made with a gradient of norm {max(seen.norms):.0f}: clip it to 1, after "
            "`backward` and before `step`"
        )
    return _told(seen)


def _told(seen: _Seen) -> str:
    """What is wrong with the losses that a loop showed; "" if nothing is."""
    if len(seen.shown) != len(seen.losses):
        return f"`show` was called {len(seen.shown)} times in {STEPS} steps; expected once in each"
    if any(isinstance(loss, Tensor) and loss.requires_grad for loss in seen.shown):
        return (
            "`show` was given a tensor that still holds all that its gradient needs, so the memory "
            "fills with each step: give it `loss.item()`"
        )
    if any(abs(float(a) - b) > 1e-3 for a, b in zip(seen.shown, seen.losses, strict=True)):
        return "what `show` was given is not the loss of the batch"
    first, last = sum(seen.losses[:2]) / 2, sum(seen.losses[-4:]) / 4
    if not last < 0.75 * first:
        return (
            f"the loss went from {first:.2f} to {last:.2f} on two clips of a second: look at the "
            "learning rate; 0.002 is a good one here"
        )
    return ""


@exercise("05-loop")
def loop(train) -> str:
    """train(model, batches, show): a loop that teaches the projector, seen by what it does."""
    model, pair = _small()
    with _watched(model) as seen:
        before = [w.detach().clone() for w in model.audio_projector.parameters()]
        try:
            attempted(train(model, [pair[i % 2] for i in range(STEPS)], seen.shown.append))
        except RuntimeError as error:
            if "modified by an inplace operation" in str(error):
                raise Wrong(
                    "`backward` found weights that had changed since the loss was computed. Likely "
                    "cause: `step` stands before `backward`"
                ) from error
            if "does not require grad" not in str(error):
                raise
            raise Wrong(
                "`backward` found nothing that learns. Likely cause: the projector is frozen, or "
                "the loss was computed under `torch.no_grad()`"
            ) from error
        after = list(model.audio_projector.parameters())
    moved = not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    if symptom := _symptom(seen, moved):
        raise Wrong(symptom)
    return f"From {seen.losses[0]:.2f} to {seen.losses[-1]:.2f} in {STEPS} steps. Now let it run."


@exercise("05-cases")
def cases(diagnosis) -> str:
    """What is wrong with the runs A to D: letter -> mistake."""
    if not isinstance(diagnosis, dict) or set(diagnosis) != set(PATIENTS):
        raise Wrong(f"{describe(diagnosis)} came; expected a mistake for each of A, B, C and D")
    attempted(list(diagnosis.values()))
    clues = {
        "wrong texts": "whose loss falls as it should, and whose text was said in another clip?",
        "wrong weights": "whose loss never moves, not even in the last digit?",
        "rate too high": "whose loss jumps about at first, and then stays where nothing is heard?",
        "rate too low": "whose loss falls smoothly, in steps that are far too small?",
    }
    for letter, mistake in PATIENTS.items():
        if diagnosis[letter] not in clues:
            raise Wrong(f"{letter}: {diagnosis[letter]!r} came; expected one of {', '.join(clues)}")
        if diagnosis[letter] != mistake:
            raise Wrong(f"{letter} is not {diagnosis[letter]!r}. Ask: {clues[diagnosis[letter]]}")
    return "Three of them a curve tells. The fourth tells nobody who does not read and listen."
