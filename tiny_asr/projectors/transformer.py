"""TransformerProjector: every embedding listens to the whole clip before it is handed over.

The other projectors see a moment at a time. Layers of self-attention (Vaswani et al. 2017) see all
of a clip's stacks, as the decoder of a Whisper would: most of its work is done here.
"""

from torch import Tensor, nn
from transformers.models.whisper.modeling_whisper import sinusoids

from tiny_asr.config import ASRConfig
from tiny_asr.device import send
from tiny_asr.projector import stack_frames
from tiny_asr.projectors.base import Projector, output_norm
from tiny_asr.shapes import ENCODER_FRAMES_PER_SECOND, frame_mask, stage

LAYERS, HEAD_WIDTH = 3, 64
LONGEST = 30 * ENCODER_FRAMES_PER_SECOND  # frames


class TransformerProjector(Projector):
    """Stack frames, linear, positions, layers of self-attention, linear, RMS norm."""

    positions: Tensor

    def __init__(self, config: ASRConfig):
        super().__init__(config)
        rate, hidden = config.audio_downsample_rate, config.projector_hidden_dim
        self.linear1 = nn.Linear(rate * config.encoder_dim, hidden)
        positions = sinusoids(-(-LONGEST // rate), hidden)
        self.register_buffer("positions", positions, persistent=False)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden, max(1, hidden // HEAD_WIDTH), 4 * hidden, dropout=0.0, activation="gelu",
                batch_first=True, norm_first=True,
            )
            for _ in range(LAYERS)
        )  # fmt: skip
        self.hidden_norm = nn.LayerNorm(hidden)
        self.linear2 = nn.Linear(hidden, config.llm_dim)
        self.output_norm = output_norm(config)

    @stage("audio_embeddings")
    def forward(self, encoder_output: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Translate encoder frames (B, T, encoder_dim), of which `lengths` (B,) are a clip's."""
        rate = self.audio_downsample_rate
        stacked = stack_frames(self.frames(encoder_output, lengths), rate)
        hidden = self.linear1(stacked)
        hidden = hidden + self.positions[: hidden.shape[1]].to(hidden.dtype)
        beyond = None
        if lengths is not None:
            own = send(-(-lengths // rate), hidden.device)
            beyond = ~frame_mask(own, hidden.shape[1])
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=beyond)
        return self.output_norm(self.linear2(self.hidden_norm(hidden)).float())
