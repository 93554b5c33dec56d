"""What training steps came to, read without waiting for them.

A GPU works through a queue that Python fills. To look at a step's loss at once would be to wait
until the queue is empty, and then the GPU waits for Python. So loss and gradient norm are sent back
without a look at them, and read some steps later, when they have arrived.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

MOST_BEHIND = 4  # steps that Python may be ahead of a GPU


class Outcome(NamedTuple):
    """One step: its loss summed over tokens, the gradient's norm, its tokens and learning rate."""

    summed_loss: float
    norm: float
    tokens: int
    rate: float


class Outcomes:
    """The steps on their way: what was added comes out in the same order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple] = deque()

    def add(self, summed_loss: Tensor, norm: Tensor, tokens: int, rate: float) -> None:
        """A step was queued; the two tensors are scalars on its device."""
        values, event = torch.stack([summed_loss.detach(), norm.detach()]), None
        if values.device.type == "cuda":
            values = torch.empty(2, pin_memory=True).copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._waiting.append((values, event, tokens, rate))

    def arrived(self, everything: bool = False) -> Iterator[Outcome]:
        """The steps that are done; it waits for those too far behind, or for everything."""
        while self._waiting:
            values, event, tokens, rate = self._waiting[0]
            if event is not None and not event.query():
                if not everything and len(self._waiting) <= MOST_BEHIND:
                    return
                event.synchronize()
            self._waiting.popleft()
            summed_loss, norm = values.tolist()
            yield Outcome(summed_loss, norm, tokens, rate)
