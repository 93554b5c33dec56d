"""AudioProjector: the one part that is trained.

The encoder speaks in frames of `encoder_dim`, 50 a second; the decoder reads embeddings of
`llm_dim`. The projector bridges that gap. It stacks neighbouring frames, so that the decoder has a
fifth of the positions to read, and maps each stack into the decoder's embedding space with two
linear layers. This is the recipe of SLAM-ASR (Ma et al. 2024), the simplest known to work with both
sides frozen.

Its output is normalised to the loudness (RMS) of the decoder's own token embeddings. Without that
its loudness is left to chance: far too quiet, and the frozen decoder passes hardly any gradient
back; far too loud, and it drowns what stands beside it. Notebook 03 measures how far that is.
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tiny_asr.config import ASRConfig
from tiny_asr.hub import seeded
from tiny_asr.shapes import stage

PREFIX = "audio_projector."  # of its weights' names in a checkpoint


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


class AudioProjector(nn.Module):
    """Stack frames, linear, GELU, linear, and an RMS norm that sets the output's scale.

    Its parameters stay in float32 whatever the frozen models use: trained in float16 they turn
    into NaN.
    """

    def __init__(self, config: ASRConfig):
        super().__init__()
        self.audio_downsample_rate = config.audio_downsample_rate
        stacked_dim = config.audio_downsample_rate * config.encoder_dim
        self.linear1 = nn.Linear(stacked_dim, config.projector_hidden_dim)
        self.activation = nn.GELU()
        self.linear2 = nn.Linear(config.projector_hidden_dim, config.llm_dim)
        norm = (
            nn.RMSNorm(config.llm_dim, eps=1e-6) if config.projector_output_norm else nn.Identity()
        )
        self.output_norm = norm

    @classmethod
    def fresh(cls, config: ASRConfig, seed: int, token_embeddings: Tensor) -> "AudioProjector":
        """One with random weights that depend on `seed` alone, as loud as the tokens."""
        with seeded(seed):
            projector = cls(config)
        projector.set_output_scale(token_embeddings)
        return projector

    def save(self, file: Path) -> None:
        """Write the weights, by their names in a whole recogniser."""
        tensors = {PREFIX + key: value.contiguous() for key, value in self.state_dict().items()}
        save_file(tensors, file, metadata={"format": "pt"})

    def load(self, file: Path) -> None:
        """Read what `save` wrote. Raises ValueError if it is damaged, or of another shape."""
        try:
            state = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file} is damaged ({error}); copy or save it again") from error
        came = {key: tuple(value.shape) for key, value in state.items()}
        expected = {PREFIX + key: tuple(v.shape) for key, v in self.state_dict().items()}
        if came != expected:
            raise ValueError(
                f"{file} does not fit this model: it holds {came}, expected {expected}; was it "
                "trained with another encoder, decoder or projector shape?"
            )
        self.load_state_dict({key.removeprefix(PREFIX): value for key, value in state.items()})

    def set_output_scale(self, token_embeddings: Tensor) -> None:
        """Make the output as loud as the decoder's token embeddings (N, llm_dim) are on average."""
        if isinstance(self.output_norm, nn.RMSNorm):
            rms = token_embeddings.detach().float().pow(2).mean().sqrt()
            nn.init.constant_(self.output_norm.weight, rms.item())

    @stage("audio_embeddings")
    def forward(self, encoder_output: Tensor) -> Tensor:
        """Translate encoder frames (B, T, encoder_dim) for the decoder; always float32 weights.

        Under autocast the two matrix products run in the autocast dtype, the norm in float32.
        """
        self._check(encoder_output)
        frames = encoder_output.to(self.linear1.weight.dtype)
        stacked = stack_frames(frames, self.audio_downsample_rate)
        hidden = self.linear2(self.activation(self.linear1(stacked)))
        return self.output_norm(hidden.float())

    def _check(self, encoder_output: Tensor) -> None:
        dim = self.linear1.in_features // self.audio_downsample_rate
        if encoder_output.ndim != 3 or encoder_output.shape[2] != dim:
            raise ValueError(
                f"encoder output of shape {tuple(encoder_output.shape)} came; expected (B, T, "
                f"{dim}), as model.encode gives it"
            )
