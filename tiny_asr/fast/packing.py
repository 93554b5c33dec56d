"""Clips of unlike lengths without padding: in one row, one behind the other.

Attention with a mask needs a kernel that reads the mask, which is several times slower on a GPU
than one that only has to know where each clip begins. So a padded batch is packed before the
encoder's layers and unpacked behind them, and no layer computes anything for the padding.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tiny_asr.device import send

try:
    from torch.nn.attention.varlen import varlen_attn

    AVAILABLE = "scale" in inspect.signature(varlen_attn).parameters
except ImportError:  # before torch 2.10
    AVAILABLE = False

PACKED = "packed_clips"  # the name of the attention below


class Packing:
    """Where the positions of each clip lie in one row.

    Args:
        real: which positions of the padded batch are a clip's (B, T) bool, on the CPU.
        device: of the batch.
    """

    def __init__(self, real: Tensor, device: torch.device):
        self.clips, self.width = real.shape
        lengths = real.sum(dim=1)
        self.places = send(real.flatten().nonzero()[:, 0], device)
        starts = send(pad(lengths.cumsum(0), (1, 0)).int(), device)
        self.attention = {"starts": starts, "longest": int(lengths.max())}

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, width) -> (1, sum of lengths, width)."""
        return padded.flatten(0, 1)[self.places][None]

    def unpack(self, packed: Tensor) -> Tensor:
        """Back again, with 0 where a batch is padded."""
        rows = packed.new_zeros(self.clips * self.width, packed.shape[2])
        rows[self.places] = packed[0]
        return rows.view(self.clips, self.width, -1)


def packed_attention(
    module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    starts: Tensor | None = None,
    longest: int | None = None,
    **options,
) -> tuple[Tensor, None]:
    """Attention of `transformers` that keeps packed clips apart, and is the usual one otherwise.

    Args:
        query, key, value: (1, heads, N, head_dim), N positions of all clips.
        starts: where each clip begins (B + 1,) int32, and the end of the last one.
        longest: positions of the longest clip.
    """
    if starts is None or longest is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    attend: Any = varlen_attn
    rows = (states[0].transpose(0, 1) for states in (query, key, value))  # (N, heads, head_dim)
    return attend(*rows, starts, starts, longest, longest, scale=scaling)[None], None


AttentionInterface.register(PACKED, packed_attention)
