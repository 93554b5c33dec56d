"""ConvolutionProjector: each embedding sees a little more than its own frames.

A stack of frames ends where the clock says, which is in the middle of a sound as often as not. A
convolution whose kernel is longer than its stride also reads the neighbours on both sides. What
lies beyond a clip's own end is 0 for it, in a batch as alone.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from tiny_asr.config import ASRConfig
from tiny_asr.projectors.base import Projector, output_norm
from tiny_asr.shapes import stage

NEIGHBOURS = 2  # frames (40 ms) on either side


class ConvolutionProjector(Projector):
    """A convolution over time, its stride the downsample rate; GELU, linear, RMS norm."""

    def __init__(self, config: ASRConfig):
        super().__init__(config)
        rate = config.audio_downsample_rate
        self.convolution = nn.Conv1d(
            config.encoder_dim,
            config.projector_hidden_dim,
            kernel_size=rate + 2 * NEIGHBOURS,
            stride=rate,
            padding=NEIGHBOURS,
        )
        self.linear = nn.Linear(config.projector_hidden_dim, config.llm_dim)
        self.output_norm = output_norm(config)

    @stage("audio_embeddings")
    def forward(self, encoder_output: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Translate encoder frames (B, T, encoder_dim), of which `lengths` (B,) are a clip's."""
        frames = self.frames(encoder_output, lengths).transpose(1, 2)
        hidden = F.gelu(self.convolution(frames)).transpose(1, 2)
        return self.output_norm(self.linear(hidden).float())
