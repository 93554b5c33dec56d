"""From phonemes to what is said when: how long each lasts, at what pitch, how loud.

StyleTTS 2's prosody predictor and text encoder (Li et al. 2023), in the sizes of Kokoro-82M. B is
the batch, T are tokens, F frames of 25 ms, C the width (512), S the style (128).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from recipes.kokoro.layers import StyleBlock


def both_ways(inside: int, outside: int) -> nn.LSTM:
    """An LSTM that reads from both ends; each way gives half of the output."""
    return nn.LSTM(inside, outside // 2, batch_first=True, bidirectional=True)


def read(lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, inside), lengths (B,) on the CPU, to (B, T, outside), zeros behind each end."""
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


class TextEncoder(nn.Module):
    """What is said, for the vocoder: an embedding, three convolutions, an LSTM."""

    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.cnn = nn.ModuleList(
            nn.ModuleList([nn.Conv1d(width, width, 5, padding=2), nn.LayerNorm(width)])
            for _ in range(3)
        )
        self.lstm = both_ways(width, width)

    def forward(self, ids: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """ids (B, T), mask (B, T, 1) true up to each end, lengths (B,): (B, T, C)."""
        x = self.embedding(ids) * mask
        for convolution, norm in self.cnn:
            x = convolution(x.transpose(1, 2)).transpose(1, 2)
            x = F.leaky_relu(norm(x), 0.2) * mask
        return read(self.lstm, x, lengths)


class TextStyleNorm(nn.Module):
    """A layer norm whose gain and bias follow from the style."""

    def __init__(self, width: int, style: int):
        super().__init__()
        self.fc = nn.Linear(style, 2 * width)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, T, C), (B, S) to (B, T, C)."""
        gain, bias = self.fc(style)[:, None].chunk(2, 2)
        return (1 + gain) * F.layer_norm(x, x.shape[-1:], eps=1e-5) + bias


class DurationEncoder(nn.Module):
    """Three LSTMs, a style norm behind each, the style beside what each reads."""

    def __init__(self, width: int, style: int):
        super().__init__()
        pairs = ((both_ways(width + style, width), TextStyleNorm(width, style)) for _ in range(3))
        self.lstms = nn.ModuleList(layer for pair in pairs for layer in pair)

    def forward(self, x: Tensor, style: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, C), (B, S), mask (B, T, 1), lengths (B,): (B, T, C + S)."""
        wide = style[:, None].expand(-1, x.shape[1], -1)
        x = torch.cat([x, wide], 2) * mask
        for lstm, norm in zip(self.lstms[::2], self.lstms[1::2], strict=True):
            x = torch.cat([norm(read(lstm, x, lengths), style), wide], 2) * mask
        return x


class Prosody(nn.Module):
    """How long each token lasts, and the melody.

    A token's length is the sum of `longest` chances: that it lasts one frame more.
    """

    def __init__(self, width: int, style: int, longest: int):
        super().__init__()
        self.text_encoder = DurationEncoder(width, style)
        self.lstm, self.shared = (both_ways(width + style, width) for _ in range(2))
        self.duration_proj = nn.Linear(width, longest)
        self.F0, self.N = (
            nn.ModuleList(
                [
                    StyleBlock(width, width, style),
                    StyleBlock(width, width // 2, style, doubles=True),
                    StyleBlock(width // 2, width // 2, style),
                ]
            )
            for _ in range(2)
        )
        self.F0_proj, self.N_proj = (nn.Conv2d(width // 2, 1, 1) for _ in range(2))

    def durations(
        self, x: Tensor, style: Tensor, mask: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, T, C), (B, S), mask (B, T, 1), lengths (B,): the text for `melody`, (B, T, C + S),
        and frames of each token at speed 1, (B, T)."""
        text = self.text_encoder(x, style, mask, lengths)
        chances = torch.sigmoid(self.duration_proj(read(self.lstm, text, lengths)))
        return text, chances.sum(2)

    def melody(self, frames: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, C + S), (B, S): pitch in Hz and loudness, (B, 2F) each."""
        pitch = loudness = self.shared(frames)[0].transpose(1, 2)[:, :, None].contiguous()
        for pitch_block, loudness_block in zip(self.F0, self.N, strict=True):
            pitch, loudness = pitch_block(pitch, style), loudness_block(loudness, style)
        return self.F0_proj(pitch)[:, 0, 0], self.N_proj(loudness)[:, 0, 0]
