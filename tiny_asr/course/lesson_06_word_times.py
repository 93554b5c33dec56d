"""When was each word said? Notebook 06's answer, from what the decoder looks at while it writes.

Attention on the audio, forced into the order of the words, gives times on a grid of one audio
embedding. Their error is measured against the edges of the sound itself.
"""

import numpy as np
import torch
from matplotlib.patches import Rectangle

from tiny_asr.course.drawing import page, waves
from tiny_asr.course.lesson_04_writing import gaze, heard
from tiny_asr.figures.style import AUDIO, MARK, TEXT, Picture, drawn
from tiny_asr.search.words import Word, in_order
from tiny_asr.shapes import SAMPLE_RATE


def edges(waveform: torch.Tensor, below_db: float = 35) -> tuple[float, float]:
    """Where the sound of a clean clip (S,) begins and ends, in s: frames this close to its peak."""
    power = waveform[: len(waveform) // 160 * 160].reshape(-1, 160).square().mean(dim=1)
    loud = (power > power.max() * 10 ** (-below_db / 10)).nonzero()[:, 0]
    return float(loud[0]) / 100, float(loud[-1] + 1) / 100


@torch.no_grad()
def attention_to_audio(model, waveform: torch.Tensor) -> tuple[list[str], np.ndarray]:
    """The words that a model writes of a clip (S,), and what each one looks at: (W, A). Attention
    of the upper half of the layers, averaged over heads and over a word's tokens, above its average
    over the audio: positive where the word looks more than elsewhere."""
    audio, _ = heard(model, [waveform])
    tokens = model.generate([waveform])[0]
    weights = gaze(model, audio, tokens)
    upper = weights[len(weights) // 2 :].mean(dim=0)
    written = tokens != model.decoder.end_id
    looks, size = upper[written].numpy(), audio.shape[1]
    words, rows = [], []
    for token, row in zip(tokens[written], looks, strict=True):
        piece = model.processor.tokenizer.decode(token)
        if not words or piece.startswith(" "):
            words.append("")
            rows.append(np.zeros(size))
        words[-1] += piece
        rows[-1] = rows[-1] + row - row.mean()
    return [word.strip() for word in words], np.reshape(rows, (len(words), size))


def _placed(model, waveform: torch.Tensor) -> tuple[list[str], np.ndarray, list[tuple]]:
    """Words, their attention, and (begin, end) of each; no times if there are too many words."""
    words, scores = attention_to_audio(model, waveform)
    step = model.config.samples_per_embedding / SAMPLE_RATE
    spans = in_order(scores) if 0 < len(words) <= scores.shape[1] else []
    return words, scores, [(first * step, last * step) for first, last in spans]


def by_attention(model, waveform: torch.Tensor) -> list[Word]:
    """What a model writes of a clip (S,), each word when it was looked at, in s. Empty where
    nothing was written, or more words than the clip has audio embeddings."""
    words, _, times = _placed(model, waveform)
    return [Word(word, *ends) for word, ends in zip(words, times, strict=False)]


@drawn
def times_picture(model, waveform: torch.Tensor) -> Picture:
    """A clip with each of its words where it was said, above the attention that told it."""
    words, scores, times = _placed(model, waveform)
    duration = len(waveform) / SAMPLE_RATE
    figure, (upper, lower) = page(
        1.7 + 0.2 * len(words), 2, 1, sharex=True, height_ratios=[1.2, 0.3 + 0.2 * len(words)]
    )
    height = float(waveform.abs().max())
    waves(upper, waveform, linewidth=0.4)
    for number, (word, (begin, end)) in enumerate(zip(words, times, strict=False)):
        upper.axvspan(begin, end, color=(TEXT, AUDIO)[number % 2], alpha=0.35, linewidth=0)
        upper.text((begin + end) / 2, (1.15, 1.45)[number % 2] * height, word, ha="center")
        look = {"fill": False, "edgecolor": MARK, "linewidth": 1.5}
        lower.add_patch(Rectangle((begin, number - 0.5), end - begin, 1, **look))
    upper.set(ylim=(-1.1 * height, 1.8 * height), yticks=[])
    upper.spines["left"].set_visible(False)
    step = model.config.samples_per_embedding / SAMPLE_RATE
    extent = (0, scores.shape[1] * step, len(words) - 0.5, -0.5)
    image = {"cmap": "Greys", "vmin": 0, "aspect": "auto", "interpolation": "nearest"}
    if words:
        lower.imshow(scores, extent=extent, **image)
    lower.set_yticks(range(len(words)), words)
    lower.set(xlabel="time in s", xlim=(0, duration))
    parts = (f"{w} {a:.1f} to {b:.1f}" for w, (a, b) in zip(words, times, strict=False))
    figure.alt = (
        f"{duration:.2f} s of sound with its words at their times, and below, "
        f"what each word looks at: a dark diagonal. In seconds: {', '.join(parts)}."
    )
    return figure
