"""CrossAttentionProjector: learnt queries ask the frames, instead of taking them in a fixed order.

The idea of the Q-Former (Li et al. 2023, arXiv:2301.12597), by windows, as speech needs it to keep
its order: time is cut into windows of a few embeddings, and each window has one learnt query for
each of its embeddings, which attends to all frames of the window. What a query looks for is the
same in every window; what it finds is not.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiny_asr.config import ASRConfig
from tiny_asr.device import send
from tiny_asr.projectors.base import Projector, output_norm
from tiny_asr.shapes import attention_mask, frame_mask, stage

QUERIES = 3  # embeddings in a window: 0.3 s at the usual rate
HEADS = 16  # or fewer, where the width can't be cut into so many


class CrossAttentionProjector(Projector):
    """RMS norm, positions, cross-attention in windows, linear, GELU, linear, RMS norm."""

    def __init__(self, config: ASRConfig):
        super().__init__(config)
        dim, hidden = config.encoder_dim, config.projector_hidden_dim
        self.window = QUERIES * config.audio_downsample_rate  # frames
        self.heads = math.gcd(HEADS, hidden)
        self.input_norm = nn.RMSNorm(dim, eps=1e-6)
        self.positions = nn.Parameter(torch.randn(self.window, dim) * 0.1)
        self.queries = nn.Parameter(torch.randn(QUERIES, hidden))
        self.keys = nn.Linear(dim, hidden, bias=False)  # a bias would shift all scores alike
        self.values = nn.Linear(dim, hidden, bias=False)
        self.linear1 = nn.Linear(hidden, hidden)
        self.linear2 = nn.Linear(hidden, config.llm_dim)
        self.output_norm = output_norm(config)

    @stage("audio_embeddings")
    def forward(self, encoder_output: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Translate encoder frames (B, T, encoder_dim), of which `lengths` (B,) are a clip's."""
        frames = self.frames(encoder_output, lengths)
        batch, time, dim = frames.shape
        if lengths is None:
            lengths = torch.full((batch,), encoder_output.shape[1])
        missing = -time % self.window
        windows = F.pad(frames, (0, 0, 0, missing)).reshape(-1, self.window, dim)  # (B*N, W, dim)
        own = frame_mask(send(lengths, frames.device), time + missing).reshape(-1, self.window)
        found = self._attend(self.input_norm(windows) + self.positions, own)
        found = found.reshape(batch, -1, found.shape[2])[:, : time // self.audio_downsample_rate]
        return self.output_norm(self.linear2(F.gelu(self.linear1(found))).float())

    def _attend(self, windows: Tensor, own: Tensor) -> Tensor:
        """What each query finds: windows (N, W, dim), own (N, W) -> (N, QUERIES, hidden)."""
        keys, values = (
            layer(windows).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, heads, W, -1)
            for layer in (self.keys, self.values)
        )
        queries = self.queries.unflatten(1, (self.heads, -1)).transpose(0, 1).to(keys.dtype)
        found = F.scaled_dot_product_attention(
            queries.expand(len(windows), -1, -1, -1),
            keys,
            values,
            attn_mask=attention_mask(own, keys.dtype),
        )
        return found.transpose(1, 2).flatten(2)
