"""A step recorded once and played again, as a CUDA graph.

To write one token takes hundreds of small kernels, and a GPU would wait for Python between any two
of them. A step that is the same computation on the same addresses each time can be recorded: then
one call starts all of its kernels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 3  # steps before one is recorded: libraries choose kernels and take memory in the first


class RecordedStep:
    """A function of one tensor, recorded with a first input; it takes tensors of the same shape.

    Args:
        step: what to record; it may read and write other tensors, always the same ones.
        first: an input.
        state: a tensor that each step changes. The steps on the way leave no trace in it.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], first: Tensor, state: Tensor):
        self.input, before = first.clone(), state.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                state.copy_(before)  # what is written for this state is written again
                step(self.input)
        torch.cuda.current_stream().wait_stream(stream)
        state.copy_(before)
        self.graph = torch.cuda.CUDAGraph()
        # Nothing is computed while it records; other threads may take memory, as loaders do.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.output = step(self.input)

    def __call__(self, value: Tensor) -> Tensor:
        """What the step gives for another input."""
        self.input.copy_(value)
        self.graph.replay()
        return self.output.clone()  # the next step writes over it
