"""LinearProjector: the least that can be asked. How far does one matrix carry?"""

from torch import Tensor, nn

from tiny_asr.config import ASRConfig
from tiny_asr.projector import stack_frames
from tiny_asr.projectors.base import Projector, output_norm
from tiny_asr.shapes import stage


class LinearProjector(Projector):
    """Stack frames, RMS norm, one linear layer without a bias, RMS norm."""

    def __init__(self, config: ASRConfig):
        super().__init__(config)
        stacked_dim = config.audio_downsample_rate * config.encoder_dim
        self.input_norm = nn.RMSNorm(stacked_dim, eps=1e-6)
        self.linear = nn.Linear(stacked_dim, config.llm_dim, bias=False)
        self.output_norm = output_norm(config)

    @stage("audio_embeddings")
    def forward(self, encoder_output: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Translate encoder frames (B, T, encoder_dim), of which `lengths` (B,) are a clip's."""
        stacked = stack_frames(self.frames(encoder_output, lengths), self.audio_downsample_rate)
        return self.output_norm(self.linear(self.input_norm(stacked)).float())
