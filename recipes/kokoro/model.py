"""Kokoro-82M: phonemes, a style and a speed to sound at 24 kHz, many utterances at once.

Our own code of a published network: the structure of Kokoro-82M v1.0 (hexgrad, Apache-2.0; its
package `kokoro` 0.9.4), which is StyleTTS 2 (Li et al. 2023) without diffusion, speaking through an
iSTFTNet (Kaneko et al. 2022). Its text is read by PL-BERT, an ALBERT of phonemes. The parts' names
are those of the published weights. B is the batch, T are tokens, F frames of 25 ms.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertModel

from recipes.kokoro.prosody import Prosody, TextEncoder
from recipes.kokoro.vocoder import Decoder, Source


@dataclass(frozen=True)
class KokoroConfig:
    """Sizes; the defaults are Kokoro-82M's.

    tokens: phonemes. most_tokens: of an utterance, with the 0 at either end.
    width: of text and sound. style: of each half of a voice's style.
    longest: frames that a token can last at speed 1.
    bert_*: of PL-BERT.
    """

    tokens: int = 178
    most_tokens: int = 512
    width: int = 512
    style: int = 128
    longest: int = 50
    bert_embedding: int = 128
    bert_width: int = 768
    bert_ffn: int = 2048
    bert_heads: int = 12
    bert_layers: int = 12


class Kokoro(nn.Module):
    """The network, in float32; `lighten` makes the vocoder faster on a GPU."""

    def __init__(self, config: KokoroConfig | None = None):
        super().__init__()
        self.config = config = config or KokoroConfig()
        bert = AlbertConfig(
            vocab_size=config.tokens,
            max_position_embeddings=config.most_tokens,
            embedding_size=config.bert_embedding,
            hidden_size=config.bert_width,
            intermediate_size=config.bert_ffn,
            num_attention_heads=config.bert_heads,
            num_hidden_layers=config.bert_layers,
        )
        self.bert = AlbertModel(bert, add_pooling_layer=False)
        self.bert_encoder = nn.Linear(config.bert_width, config.width)
        self.text_encoder = TextEncoder(config.tokens, config.width)
        self.predictor = Prosody(config.width, config.style, config.longest)
        self.decoder = Decoder(config.width, config.style)
        self.source = Source()
        self.requires_grad_(False).eval()

    def lighten(self, dtype: torch.dtype) -> "Kokoro":
        """Let the vocoder compute in `dtype`, channels last; source and spectra stay in float32.

        On one H200, float16 sounds like float32 (log spectra r 0.998); bfloat16 doesn't (0.99).
        """
        self.decoder.to(dtype=dtype, memory_format=torch.channels_last)
        return self

    @torch.inference_mode()
    def plan(
        self, ids: Tensor, lengths: Tensor, styles: Tensor, speeds: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is said when.

        Args:
            ids: (B, T), padded with 0.
            lengths: (B,), on the CPU.
            styles: (B, 2S), sound and prosody.
            speeds: (B,).

        Returns:
            The text for the melody, (B, T, C + S), and for the sound, (B, T, C); frames of each
            token, (B, T), 0 behind an end.
        """
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths.to(ids.device)[:, None]
        _, prosody = styles.chunk(2, 1)
        x = self.bert_encoder(self.bert(ids, attention_mask=mask.long()).last_hidden_state)
        column = mask[:, :, None]
        melody_text, durations = self.predictor.durations(x, prosody, column, lengths)
        frames = torch.round(durations / speeds[:, None]).clamp(min=1).long() * mask
        return melody_text, self.text_encoder(ids, column, lengths), frames

    @torch.inference_mode()
    def speak(
        self,
        melody_text: Tensor,
        text: Tensor,
        frames: Tensor,
        styles: Tensor,
        breath: torch.Generator | None,
    ) -> Tensor:
        """What `plan` returned for utterances of the same number of frames F, to sound.

        Args:
            breath: draws the voices' noise, on their device; None for none, as in the ONNX file.

        Returns:
            (B, 600F) float32 at 24 kHz.

        Raises:
            ValueError: if their frames differ: a vocoder without masks would hear the padding.
        """
        ends = frames.cumsum(1)
        totals = sorted(set(ends[:, -1].tolist()))
        if len(totals) != 1:
            raise ValueError(f"utterances of {totals} frames in one batch; expected one length")
        places = torch.arange(totals[0], device=frames.device).expand(len(frames), -1).contiguous()
        token = torch.searchsorted(ends, places, right=True)[:, :, None]  # of each frame

        def stretched(x: Tensor) -> Tensor:
            return x.gather(1, token.expand(-1, -1, x.shape[2]))

        sound, prosody = styles.chunk(2, 1)
        pitch, loudness = self.predictor.melody(stretched(melody_text), prosody)
        hum = self.source(pitch, breath)
        text = stretched(text).transpose(1, 2)
        return self.source.sound(self.decoder(text, pitch, loudness, sound, hum))
