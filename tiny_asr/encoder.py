"""The frozen Whisper encoder, on inputs of any length up to 30 s.

The stock encoder insists on 3000 mel frames, so a 3 s clip is padded with 27 s of silence and costs
ten times what it must. Nothing in its weights asks for that: the convolutions slide, the positions
can be cut short, attention takes any length. This module runs the stock layers on just the frames
there are. In a batch of mixed lengths two things keep a clip's numbers the same as alone: the mel
is zeroed beyond each clip's own end, as the convolution pads it, and attention masks its keys (or,
on a GPU, never sees the padding, see `packing`).
(A clip has an even number of mel frames, so the second convolution, of stride 2, does not reach
beyond its end.)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from tiny_asr.device import send
from tiny_asr.fast.one_clip import OneClip
from tiny_asr.fast.packing import AVAILABLE, PACKED, Packing
from tiny_asr.shapes import attention_mask, frame_mask, keep, stage

HUB_PREFIX = {r"^model\.encoder\.": ""}  # where a whole Whisper checkpoint keeps its encoder


class EncoderOfCheckpoint(WhisperEncoder):
    """The stock encoder, loaded out of a whole Whisper checkpoint without a word on the rest."""

    _keys_to_ignore_on_load_unexpected = [r"^model\.decoder\.", r"^proj_out\."]  # noqa: RUF012


class AudioEncoder(nn.Module):
    """Whisper's encoder without its 30 s window.

    Args:
        whisper: the stock encoder with its weights. It is frozen here, and stays in eval mode.
        window: hear all of a 30 s window: what lies beyond a clip's own length is not masked.
    """

    def __init__(self, whisper: WhisperEncoder, window: bool = False):
        super().__init__()
        self.window = window
        self.whisper = whisper.requires_grad_(False).eval()
        self.one_clip = OneClip(whisper.layers)
        if AVAILABLE and whisper.config._attn_implementation == "sdpa":
            whisper.set_attn_implementation(PACKED)

    def train(self, mode: bool = True) -> "AudioEncoder":
        """Frozen means frozen: stay in eval mode whatever the model around it does."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights and of the output."""
        return self.whisper.conv1.weight.dtype

    @stage("encoder_output")
    def forward(self, log_mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Listen.

        Args:
            log_mel: (B, M, F) with F even and at most 3000.
            lengths: each clip's own length in mel frames (B,), None when all are F; best on the
                CPU, where looking at them does not wait for a GPU.
        """
        hidden, mask = self.embed(log_mel, None if self.window else lengths)
        packing = None
        if mask is not None and self._packs(hidden):
            packing = Packing(frame_mask(lengths.cpu() // 2, hidden.shape[1]), hidden.device)
            hidden, mask = packing.pack(hidden), None
        elif self._packs(hidden) and (heard := self.one_clip(hidden)) is not None:
            return self.whisper.layer_norm(heard)
        for layer in self.whisper.layers:
            hidden = layer(hidden, mask, **(packing.attention if packing else {}))
        hidden = self.whisper.layer_norm(hidden)
        return packing.unpack(hidden) if packing else hidden

    def _packs(self, hidden: Tensor) -> bool:
        """Whether clips can be packed: on a GPU since Ampere, in 16 bits, in heads of 8, 16, ..."""
        config = self.whisper.config
        if not hidden.is_cuda or config._attn_implementation != PACKED:
            return False
        head_dim = config.d_model // config.encoder_attention_heads
        fits = hidden.dtype in (torch.bfloat16, torch.float16) and head_dim % 8 == 0
        return fits and torch.cuda.get_device_capability(hidden.device) >= (8, 0)

    def embed(self, log_mel: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The two convolutions and the positions: what enters the first attention layer.

        Returns:
            (B, T, encoder_dim), and the layers' attention mask, None where no clip is padded.
        """
        self._check(log_mel)
        whisper, frames = self.whisper, log_mel.shape[-1]
        padded = lengths is not None and bool((lengths < frames).any())
        hidden = log_mel.to(self.dtype)
        if padded:
            lengths = send(lengths, hidden.device)
            hidden = hidden * frame_mask(lengths, frames)[:, None]
        hidden = F.gelu(whisper.conv1(hidden))
        hidden = F.gelu(whisper.conv2(keep("conv1", hidden)))
        hidden = keep("conv2", hidden).transpose(1, 2)
        hidden = hidden + whisper.embed_positions.weight[: hidden.shape[1]]
        if not padded:
            return hidden, None
        return hidden, attention_mask(frame_mask(lengths // 2, frames // 2), self.dtype)

    def _check(self, log_mel: Tensor) -> None:
        bins, longest = self.whisper.num_mel_bins, 2 * self.whisper.max_source_positions
        if log_mel.ndim != 3 or log_mel.shape[1] != bins:
            raise ValueError(
                f"a log-mel of shape {tuple(log_mel.shape)} came; expected (B, {bins}, F): this "
                f"encoder reads {bins} mel bins"
            )
        if log_mel.shape[2] % 2 or not 0 < log_mel.shape[2] <= longest:
            raise ValueError(
                f"{log_mel.shape[2]} mel frames came; expected an even number up to {longest} "
                "(30 s): pad the waveform with pad_batch, split longer audio first"
            )
