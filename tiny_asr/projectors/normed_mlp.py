"""NormedMLPProjector: an MLP whose hidden layer is normalised before its activation."""

from torch import Tensor, nn
from torch.nn import functional as F

from tiny_asr.config import ASRConfig
from tiny_asr.projector import stack_frames
from tiny_asr.projectors.base import Projector, output_norm
from tiny_asr.shapes import stage


class NormedMLPProjector(Projector):
    """Stack frames, linear, RMS norm, GELU, linear, RMS norm; no biases."""

    def __init__(self, config: ASRConfig):
        super().__init__(config)
        stacked_dim = config.audio_downsample_rate * config.encoder_dim
        self.linear1 = nn.Linear(stacked_dim, config.projector_hidden_dim, bias=False)
        self.hidden_norm = nn.RMSNorm(config.projector_hidden_dim, eps=1e-6)
        self.linear2 = nn.Linear(config.projector_hidden_dim, config.llm_dim, bias=False)
        self.output_norm = output_norm(config)

    @stage("audio_embeddings")
    def forward(self, encoder_output: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Translate encoder frames (B, T, encoder_dim), of which `lengths` (B,) are a clip's."""
        stacked = stack_frames(self.frames(encoder_output, lengths), self.audio_downsample_rate)
        hidden = self.hidden_norm(self.linear1(stacked).float())
        return self.output_norm(self.linear2(F.gelu(hidden)).float())
