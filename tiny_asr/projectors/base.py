"""Projector: what all projectors have in common, so that a new one is its layers and a `forward`.

A subclass makes its layers in `__init__`, `output_norm` last, and computes them in
`forward(encoder_output, lengths=None)`, which is decorated with `@stage("audio_embeddings")` so
that its shape is checked. `lengths` (B,) are each clip's own frames, None where all are T long.
Two things are asked of it: A is T / audio_downsample_rate, rounded up; and a clip gives the same
numbers in a batch as alone, so whatever looks beyond its own stack of frames must not see beyond
the clip's own end.
"""

from pathlib import Path
from typing import Self

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tiny_asr.config import ASRConfig
from tiny_asr.device import send
from tiny_asr.hub import seeded
from tiny_asr.shapes import frame_mask

PREFIX = "audio_projector."  # of its weights' names in a checkpoint


class Projector(nn.Module):
    """From encoder frames (B, T, encoder_dim) to audio embeddings (B, A, llm_dim).

    Its parameters stay in float32 whatever the frozen models use: trained in float16 they turn
    into NaN.
    """

    output_norm: nn.Module

    def __init__(self, config: ASRConfig):
        super().__init__()
        self.audio_downsample_rate = config.audio_downsample_rate
        self.encoder_dim = config.encoder_dim

    @classmethod
    def fresh(cls, config: ASRConfig, seed: int, token_embeddings: Tensor) -> Self:
        """One with random weights that depend on `seed` alone, as loud as the tokens."""
        with seeded(seed):
            projector = cls(config)
        projector.set_output_scale(token_embeddings)
        return projector

    def set_output_scale(self, token_embeddings: Tensor) -> None:
        """Make the output as loud as the decoder's token embeddings (N, llm_dim) are on average."""
        if isinstance(self.output_norm, nn.RMSNorm):
            rms = token_embeddings.detach().float().pow(2).mean().sqrt()
            nn.init.constant_(self.output_norm.weight, rms.item())

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

    def _check(self, encoder_output: Tensor) -> None:
        """Raise ValueError unless it is (B, T, encoder_dim)."""
        if encoder_output.ndim != 3 or encoder_output.shape[2] != self.encoder_dim:
            raise ValueError(
                f"encoder output of shape {tuple(encoder_output.shape)} came; expected (B, T, "
                f"{self.encoder_dim}), as model.encode gives it"
            )

    def frames(self, encoder_output: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encoder output in float32, 0 beyond each clip's own `lengths` (B,), and filled up with
        zeros to whole stacks (30 s of Whisper are 1500 frames, which not every rate divides)."""
        self._check(encoder_output)
        frames = encoder_output.float()
        if lengths is not None:
            own = frame_mask(send(lengths, frames.device), frames.shape[1])
            frames = frames * own[..., None]
        return F.pad(frames, (0, 0, 0, -frames.shape[1] % self.audio_downsample_rate))


def output_norm(config: ASRConfig) -> nn.Module:
    """What every projector ends with: an RMS norm that sets the loudness, where the config asks."""
    return nn.RMSNorm(config.llm_dim, eps=1e-6) if config.projector_output_norm else nn.Identity()
