"""Many utterances through the network: in batches, of which the vocoder needs no masks.

The text's part runs on padded batches with masks. Then each utterance's last token, a pause, is
made longer, up to the next of about 75 lengths (6 % at most), and utterances of equal length form
the vocoder's batches; what was added is cut off again. Few lengths also keep cuDNN's plans in its
cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes.kokoro.model import Kokoro
from recipes.kokoro.vocoder import FRAME, RATE
from tiny_asr.shapes import SAMPLE_RATE

TEXTS = 128  # in a batch of the text's part
FRAMES = 6000  # at most, in a batch of the vocoder: 150 s of sound


@dataclass(frozen=True)
class Utterance:
    """What to say: token ids without the 0 at either end, a voice's styles (510, 2S), a speed."""

    tokens: Sequence[int]
    styles: np.ndarray
    speed: float

    @property
    def style(self) -> np.ndarray:
        """The voice's style for a text of this length, (2S,)."""
        return self.styles[min(len(self.tokens), len(self.styles)) - 1]


@dataclass(frozen=True)
class Planned:
    """An utterance between the network's two parts.

    place: among the utterances given.
    total: its frames. frames: of each token, (T,).
    melody_text, text: (T, C + S) and (T, C). style: (2S,).
    """

    place: int
    total: int
    frames: Tensor
    melody_text: Tensor
    text: Tensor
    style: Tensor


def common_length(frames: int) -> int:
    """The least of the vocoder's lengths that is not below: 16 of them between a power of two and
    the next, and multiples of four below 64."""
    step = max(4, (1 << frames.bit_length()) >> 5)
    return -(-frames // step) * step


def plan(model: Kokoro, utterances: Sequence[Utterance]) -> Iterator[Planned]:
    """The text's part, shortest texts first.

    Raises ValueError if an utterance has no token, or more than the network can read.
    """
    device, most = model.bert_encoder.weight.device, model.config.most_tokens - 2
    order = sorted(range(len(utterances)), key=lambda place: len(utterances[place].tokens))
    for start in range(0, len(order), TEXTS):
        places = order[start : start + TEXTS]
        group = [utterances[place] for place in places]
        lengths = torch.tensor([len(one.tokens) + 2 for one in group])
        if not 2 < lengths.min() <= lengths.max() <= most + 2:
            raise ValueError(
                f"a text of {lengths.min() - 2} to {lengths.max() - 2} tokens; expected 1 to {most}"
            )
        ids = pad_sequence([torch.tensor([0, *one.tokens, 0]) for one in group], batch_first=True)
        styles = torch.from_numpy(np.stack([one.style for one in group])).to(device)
        speeds = torch.tensor([one.speed for one in group], device=device)
        melody_text, text, frames = model.plan(ids.to(device), lengths, styles, speeds)
        for row, total in enumerate(frames.sum(1).tolist()):
            own = slice(0, int(lengths[row]))
            parts = (part[row, own].clone() for part in (frames, melody_text, text))
            yield Planned(places[row], total, *parts, styles[row])


def decode(
    model: Kokoro, batch: Sequence[Planned], length: int, breath: torch.Generator | None
) -> Tensor:
    """Utterances of at most `length` frames to sound, (B, 400 * length) float32 at 16 kHz."""
    frames = [torch.cat([one.frames[:-1], one.frames[-1:] + length - one.total]) for one in batch]
    sound = model.speak(
        pad_sequence([one.melody_text for one in batch], batch_first=True),
        pad_sequence([one.text for one in batch], batch_first=True),
        pad_sequence(frames, batch_first=True),
        torch.stack([one.style for one in batch]),
        breath,
    )
    return torchaudio.functional.resample(sound, RATE, SAMPLE_RATE)


def synthesise(
    model: Kokoro,
    utterances: Sequence[Utterance],
    breath: torch.Generator | None = None,
    frames: int = FRAMES,
) -> list[Tensor]:
    """Speak them all.

    Args:
        breath: draws the voices' noise, on the network's device; None for none.
        frames: at most so many in a batch of the vocoder: less needs less memory.

    Returns:
        The sounds in the order of the utterances, (S,) float32 at 16 kHz on the CPU. A sound begins
        and ends with the voice's own pause, and has its level (peaks mostly 0.2 to 0.6).
    """
    waiting: dict[int, list[Planned]] = {}
    for planned in plan(model, utterances):
        waiting.setdefault(common_length(planned.total), []).append(planned)
    sounds: dict[int, Tensor] = {}
    for length, group in sorted(waiting.items()):
        size = max(1, frames // length)
        for start in range(0, len(group), size):
            batch = group[start : start + size]
            for one, sound in zip(batch, decode(model, batch, length, breath).cpu(), strict=True):
                sounds[one.place] = sound[: one.total * FRAME * SAMPLE_RATE // RATE].clone()
    return [sounds[place] for place in range(len(utterances))]
