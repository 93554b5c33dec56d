"""SwiGLUProjector: one half of the hidden layer decides how much of the other half passes.

The feed-forward layer of today's language models (Shazeer 2020, arXiv:2002.05202) as a projector,
between two RMS norms: down(silu(gate x) * up x). At the same hidden width it has half as many
weights again as the MLP.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from tiny_asr.config import ASRConfig
from tiny_asr.projector import stack_frames
from tiny_asr.projectors.base import Projector, output_norm
from tiny_asr.shapes import stage


class SwiGLUProjector(Projector):
    """Stack frames, RMS norm, SwiGLU without biases, RMS norm."""

    def __init__(self, config: ASRConfig):
        super().__init__(config)
        stacked_dim = config.audio_downsample_rate * config.encoder_dim
        self.input_norm = nn.RMSNorm(stacked_dim, eps=1e-6)
        self.gate = nn.Linear(stacked_dim, config.projector_hidden_dim, bias=False)
        self.up = nn.Linear(stacked_dim, config.projector_hidden_dim, bias=False)
        self.down = nn.Linear(config.projector_hidden_dim, config.llm_dim, bias=False)
        self.output_norm = output_norm(config)

    @stage("audio_embeddings")
    def forward(self, encoder_output: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Translate encoder frames (B, T, encoder_dim), of which `lengths` (B,) are a clip's."""
        stacked = stack_frames(self.frames(encoder_output, lengths), self.audio_downsample_rate)
        stacked = self.input_norm(stacked)
        hidden = self.down(F.silu(self.gate(stacked)) * self.up(stacked))
        return self.output_norm(hidden.float())
