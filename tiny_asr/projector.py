"""AudioProjector: the one part that is trained.

The encoder speaks in frames of `encoder_dim`, 50 a second; the decoder reads embeddings of
`llm_dim`. The projector bridges that gap. It stacks neighbouring frames, so that the decoder has a
fifth of the positions to read, and maps each stack into the decoder's embedding space with two
linear layers. This is the recipe of SLAM-ASR (Ma et al. 2024), the simplest known to work with both
sides frozen.

Its output is normalised to the loudness (RMS) of the decoder's own token embeddings. Without that
its loudness is left to chance: far too quiet, and the frozen decoder passes hardly any gradient
back; far too loud, and it drowns what stands beside it. Notebook 03 measures how far that is.

Others to choose instead (`config.projector_type`) are in `projectors/`.
"""

from torch import Tensor, nn

from tiny_asr.config import ASRConfig
from tiny_asr.projectors.base import Projector, output_norm
from tiny_asr.shapes import stage


@stage("stacked_frames")
def stack_frames(encoder_output: Tensor, audio_downsample_rate: int) -> Tensor:
    """Lay `audio_downsample_rate` neighbouring frames side by side: less time, more width.

    Args:
        encoder_output: (B, T, encoder_dim), T a multiple of audio_downsample_rate.
    """
    batch, frames, dim = encoder_output.shape
    if frames == 0 or frames % audio_downsample_rate:
        raise ValueError(
            f"{frames} encoder frames came; expected a multiple of audio_downsample_rate = "
            f"{audio_downsample_rate}: pad the waveform to a multiple of "
            f"{320 * audio_downsample_rate} samples, as model.encode does"
        )
    stacks = frames // audio_downsample_rate
    return encoder_output.reshape(batch, stacks, audio_downsample_rate * dim)


class AudioProjector(Projector):
    """Stack frames, linear, GELU, linear, and an RMS norm that sets the output's scale.

    It is fresh, saved and loaded as every `Projector` is.
    """

    def __init__(self, config: ASRConfig):
        super().__init__(config)
        stacked_dim = config.audio_downsample_rate * config.encoder_dim
        self.linear1 = nn.Linear(stacked_dim, config.projector_hidden_dim)
        self.activation = nn.GELU()
        self.linear2 = nn.Linear(config.projector_hidden_dim, config.llm_dim)
        self.output_norm = output_norm(config)

    @stage("audio_embeddings")
    def forward(self, encoder_output: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Translate encoder frames (B, T, encoder_dim) for the decoder; always float32 weights.

        Under autocast the two matrix products run in the autocast dtype, the norm in float32.
        """
        self._check(encoder_output)
        frames = encoder_output.to(self.linear1.weight.dtype)
        stacked = stack_frames(frames, self.audio_downsample_rate)
        hidden = self.linear2(self.activation(self.linear1(stacked)))
        return self.output_norm(hidden.float())
