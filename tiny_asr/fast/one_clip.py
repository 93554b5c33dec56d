"""The encoder's layers for one clip at a time, recorded: else a GPU waits for Python between them.

A clip is padded to one of few lengths, each of which is recorded when it first comes. Attention
knows where the clip ends by a number that lies on the GPU, so no clip hears what it is padded with.
"""

import logging
from threading import Lock

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from tiny_asr.device import send
from tiny_asr.fast.graphs import RecordedStep
from tiny_asr.fast.lean_step import has_hooks

log = logging.getLogger("tiny_asr")

FRAMES = 256  # lengths are whole ones of these: 5 s
ONE_AT_A_TIME = Lock()  # a recorded step has one place for its input


class OneClip:
    """Encoder layers whose attention takes `starts` and `longest`, see `packed_attention`."""

    def __init__(self, layers: nn.ModuleList):
        self.layers, self.fails = layers, False
        self.recorded: dict[tuple, tuple[RecordedStep, Tensor]] = {}

    def __call__(self, hidden: Tensor) -> Tensor | None:
        """(1, T, encoder_dim) through all layers; None where that can't or shouldn't be recorded:
        more clips, with gradients, where somebody watches a layer, or where it has failed."""
        if len(hidden) > 1:
            return None
        watched = any(map(has_hooks, self.layers.modules()))
        if self.fails or torch.is_grad_enabled() or watched:
            return None
        try:
            with ONE_AT_A_TIME:
                return self._play(hidden)
        except Exception as error:
            log.warning("the encoder can't be recorded here, so it is not: %s", error)
            self.fails = True
            return None

    def _play(self, hidden: Tensor) -> Tensor:
        frames = hidden.shape[1]
        wide = -(-frames // FRAMES) * FRAMES
        ends = send(torch.tensor([0, frames], dtype=torch.int32), hidden.device)
        padded = pad(hidden, (0, 0, 0, wide - frames))
        weight = next(self.layers.parameters())
        key = wide, weight.data_ptr(), weight.dtype
        if key not in self.recorded:
            # What was recorded of weights that have moved since is of no use.
            self.recorded = {k: step for k, step in self.recorded.items() if k[1:] == key[1:]}
            starts = ends.clone()

            def run(x: Tensor) -> Tensor:
                for layer in self.layers:
                    x = layer(x, None, starts=starts, longest=wide)
                return x

            self.recorded[key] = RecordedStep(run, padded, starts), starts
        step, starts = self.recorded[key]
        starts.copy_(ends)
        return step(padded)[:, :frames]
