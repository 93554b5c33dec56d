"""Notebook 05, training: judges of the exercises."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tiny_asr.course.checks import Wrong, ask, attempted, describe, exercise, expect
from tiny_asr.shapes import IGNORE
from tiny_asr.training.settings import TrainingSettings, learning_rate_at


def _padded(rows: list[list[int]], fill: int = IGNORE) -> Tensor:
    """Rows of numbers side by side: (B, L)."""
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


@exercise("05-mask")
def mask(make_labels) -> str:
    """make_labels(texts, end) -> (B, L): each text and the end token, padded with -100."""
    for texts, end in (([[5, 6, 7], [8]], 2), ([[9]], 3), ([[4, 4], [], [1, 2, 3, 4]], 0)):
        ended = [[*text, end] for text in texts]
        right, width = _padded(ended), max(map(len, ended))
        late = [[*text, *[IGNORE] * (width - len(text) - 1), end] for text in texts]
        before = [[IGNORE] * (width - len(row)) + row for row in ended]
        shorter = _padded([[*text[1:], end] for text in texts])
        hidden = torch.full_like(right, IGNORE)
        causes = {
            "the end token is missing: the model would never learn to stop": _padded(texts),
            "padding with 0 makes token 0 a target; -100 is left out by the loss": (
                _padded(ended, 0)
            ),
            "padding with the end token makes every padded place a target": _padded(ended, end),
            "the end token comes right after the text, the padding after it": torch.tensor(late),
            "only the padding is -100; the text is what shall be learnt": hidden,
            "the first token is a label, too: the prompt's last position predicts it": shorter,
            "the padding comes behind the text, not before it": torch.tensor(before),
            "one row for each transcript; `pad_sequence` needs batch_first=True for it": right.T,
            "the rows are not padded: each needs -100 up to the length of the longest": ended,
        }
        call = f"make_labels({texts}, end={end})"
        try:
            came = make_labels([list(text) for text in texts], end)
        except ValueError as error:
            if "expected sequence of length" not in str(error):
                raise
            raise Wrong(
                f"{call} stopped with {error}. Likely cause: the rows are not equally long; append "
                "`end` first, then take the length of the longest row"
            ) from error
        if isinstance(came, list | tuple):  # of rows, which may be tensors of unlike lengths
            came = [row.tolist() if hasattr(row, "tolist") else row for row in came]
        expect(call, came, right, causes)
    return "This is what `model.processor.labels` makes of a batch of transcripts."


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


@exercise("05-warmup")
def warmup(rate) -> str:
    """rate(heard, highest, warmup, total): linear rise, then half a cosine down to 0."""
    highest, rise, total = 0.002, 300, 2400
    settings = TrainingSettings(
        data="-", out="-", learning_rate=highest, warmup_utterances=rise, max_utterances=total
    )
    for heard in (0, 150, 299, 300, 825, 1350, 2399, 2400, 4500):
        done = (heard - rise) / (total - rise)

        def wave(part):
            return highest * 0.5 * (1 + math.cos(math.pi * part))

        whole, straight = wave(heard / total), highest * max(0.0, 1 - done)
        causes = {"beyond `total` it stays at 0 and does not rise again": wave(done)}
        if heard < rise:
            causes = {
                "the rise is missing: below `warmup` it is a straight line": whole,
                "in the warm-up it must not yet be at the highest": highest,
                "not 0 at the first clip: (heard + 1) / (warmup + 1)": highest * heard / rise,
            }
        elif heard <= total:
            causes = {
                "the fall begins where the rise ends: count from `warmup`": whole,
                "it falls along half a cosine, not a straight line": straight,
                "half a cosine ends at pi, not at 2 pi": wave(2 * done),
                "a cosine falls from 1 to -1: add 1 and halve it": 2 * wave(done) - highest,
                "it falls after the warm-up": highest,
            }
        shown = f"{heard}, highest={highest}, warmup={rise}, total={total}"
        given = {"expected": learning_rate_at(heard, settings), "causes": causes, "shown": shown}
        ask("rate", rate, heard, highest, rise, total, **given)
    return "This is `learning_rate_at`, which the trainer asks before each step."


def _joined(tensors) -> Tensor:
    """All numbers of some tensors in a row."""
    return torch.cat([torch.as_tensor(tensor).flatten() for tensor in tensors])


@exercise("05-clip")
def clip(clip_gradients) -> str:
    """clip_gradients(gradients, most) -> the same tensors, their common norm at most `most`."""
    generator = torch.Generator().manual_seed(1)
    matrix, vector = torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)
    cases = {
        "[[3, 4]], [[0, 12]]": [torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 12.0]])],
        "[0.3, 0.4]": [torch.tensor([0.3, 0.4])],
        "[0, 0]": [torch.zeros(2)],
        "<a matrix and a vector>": [matrix, vector],
    }
    for name, gradients in cases.items():
        numbers = _joined(gradients)
        norm = float(numbers.norm())
        causes = {
            "one norm over all tensors together, else their direction changes": _joined(
                g / max(1.0, float(g.norm())) for g in gradients
            ),
            "each number was cut; the whole must shrink by one factor": numbers.clamp(-1, 1),
            "divided by the squared norm: take its root": numbers / max(1.0, norm**2),
            "gradients of 0 have the norm 0: do not divide by it": numbers * math.nan,
        }
        if norm < 1:
            causes = {"what is short enough stays as it is": numbers / norm} | causes
        else:
            causes["nothing was clipped"] = numbers
        call = f"clip_gradients([{name}], most=1)"
        came = clip_gradients([g.clone() for g in gradients], 1.0)
        attempted(came)
        if not isinstance(came, list | tuple) or len(came) != len(gradients):
            raise Wrong(
                f"{call} gave {describe(came)}; expected a list of {len(gradients)} tensors."
            )
        expect(call, _joined(came), numbers * min(1.0, 1.0 / norm) if norm else numbers, causes)
    return "Only the length changes, never the direction."


STEPS = 60


def _loop(order: str, loss_of: Callable = F.cross_entropy) -> list[float]:
    """Losses of SGD on one toy batch; `order`: of backward, zero and step in each step."""
    module, inputs, targets = toy_batch()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    losses = []
    for _ in range(STEPS):
        loss = loss_of(module(inputs), targets)
        losses.append(loss.item())
        actions = {"backward": loss.backward, "zero": optimizer.zero_grad, "step": optimizer.step}
        for action in order.split():
            actions[action]()
    return losses


def toy_batch() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear layer, a batch (8, 6) and its targets (8,), always the same."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Linear(6, 4)
    with torch.no_grad():
        module.weight.copy_(torch.randn(4, 6, generator=generator) / 3)
        module.bias.zero_()
    return module, torch.randn(8, 6, generator=generator), torch.arange(8) % 4


@exercise("05-overfit")
def overfit(answer) -> str:
    """overfit(module, inputs, targets, steps) -> the losses, falling to almost nothing."""

    def twice_softmax(scores, targets):
        return F.cross_entropy(scores.softmax(dim=-1), targets)

    def without_log(scores, targets):
        return F.nll_loss(scores.softmax(dim=-1), targets)

    in_order = "zero backward step"
    right = _loop(in_order)
    module, inputs, targets = toy_batch()
    seen = []  # the gradients on their way to the weight
    module.weight.register_hook(seen.append)
    came = answer(module, inputs, targets, STEPS)
    still = "`zero_grad` between `backward` and `step` throws the gradients away (first bug)"
    if not seen:
        still = "`backward` is missing, so there is no gradient"
    elif module.weight.grad is not None:
        still = "`step` is missing, or it stands before `backward`, where there is no gradient yet"
    twice = "`F.cross_entropy` does the softmax itself; give it the raw scores (second bug)"
    late = "`step` comes before `backward`, so it uses the gradients of the step before"
    nll = "`F.nll_loss` wants logarithms; keep `F.cross_entropy`, and leave out the softmax"
    causes = {
        still: _loop(""),
        twice: _loop(in_order, twice_softmax),
        f"{still}; and the softmax is done twice (second bug)": _loop("", twice_softmax),
        "without zero_grad the gradients of all steps add up": _loop("backward step"),
        late: _loop("step zero backward"),
        nll: _loop(in_order, without_log),
        "`return` stands in the loop and ends it after one step": right[:1],
        "this is the last loss alone; return the list of all": right[-1],
    }
    expect(f"overfit(<layer>, <8 inputs>, <8 targets>, steps={STEPS})", came, right, causes)
    return f"From {right[0]:.2f} to {right[-1]:.2f}: a loop that can learn eight things by heart."
