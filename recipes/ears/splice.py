"""New sentences in the voices of real people: pieces of their clips, put together otherwise.

Whoever trains on three hours of speech learns its sentences by heart. Between two words there is
often a moment that is nearly quiet; cut there, the pieces of a speaker's clips make sentences that
nobody said, in a real voice (compare Lam et al. 2021, arXiv:2104.01393, who exchange single words).
Sense they have none, which is the point: they can be written down only by listening.

`cuts` finds the moments, with the times that a trained pair gives to the words of the transcript.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from tiny_asr.model import ASRModel
from tiny_asr.search.words import words_of_piece
from tiny_asr.shapes import SAMPLE_RATE

FRAME = 80  # samples, 5 ms: how finely a quiet moment is looked for
AROUND = 0.03  # seconds beside the border of two words
QUIETER = 20.0  # dB below the clip's loud parts, or it is no moment to cut in
WORDS, PIECES = (3, 26), 7  # of a new sentence; words of a piece at most
LONGEST, PAUSE, PAUSES = 15.0, (0.05, 0.5), 0.25  # seconds; seconds; share of the joints
FADE = 64  # samples


class Cut(NamedTuple):
    """A place in a clip, in samples, and how many of its words are over there."""

    sample: int
    words: int


def cuts(model: ASRModel, waveform: np.ndarray, text: str) -> list[Cut]:
    """Where a clip (S,) at 16 kHz can be cut between the words of its transcript.

    The first and the last cut are its ends. None where the words can't be found in the sound.
    """
    tokens = torch.tensor(model.processor.tokenizer(text).input_ids)
    words = words_of_piece(model, torch.from_numpy(waveform), tokens)
    if len(words) != len(text.split()):
        return []
    size = len(waveform) // FRAME * FRAME
    power = np.square(waveform[:size].reshape(-1, FRAME)).mean(1)
    power = np.convolve(power, np.ones(5) / 5, "same")
    level = 10 * np.log10(np.maximum(power, 1e-10))
    least = np.quantile(level, 0.9) - QUIETER
    found, near = [Cut(0, 0)], AROUND * SAMPLE_RATE
    for number, (before, after) in enumerate(itertools.pairwise(words), 1):
        first = max(found[-1].sample, before.begin * SAMPLE_RATE, before.end * SAMPLE_RATE - near)
        first, last = int(first) // FRAME + 1, int(after.begin * SAMPLE_RATE + near) // FRAME
        if first < min(last, len(level)):
            quietest = first + int(level[first:last].argmin())
            if level[quietest] < least:
                found.append(Cut(quietest * FRAME, number))
    return [*found, Cut(len(waveform), len(words))]


def spliced(
    clips: Sequence[np.ndarray],
    texts: Sequence[str],
    speakers: Sequence[str],
    places: Sequence[Sequence[Sequence[int]]],
    count: int,
    rng: np.random.Generator,
) -> Iterator[tuple[str, np.ndarray]]:
    """New sentences (text, int16 samples) of the clips' pieces, each in one voice.

    Args:
        places: the `cuts` of each clip; one that has none is not used.
    """
    own: dict[str, list[int]] = defaultdict(list)
    for clip, (speaker, found) in enumerate(zip(speakers, places, strict=True)):
        if speaker and len(found) > 2:
            own[speaker].append(clip)
    usable = [clip for some in own.values() for clip in some]
    for _ in range(count if usable else 0):
        mine = own[speakers[rng.choice(usable)]]
        goal, words, sounds = rng.integers(*WORDS), [], []
        while len(words) < goal and sum(map(len, sounds)) < (LONGEST - 4) * SAMPLE_RATE:
            clip = rng.choice(mine)
            more, sound = _piece(clips[clip], texts[clip].split(), places[clip], rng)
            words += more
            sounds.append(sound)
            if rng.random() < PAUSES:
                sounds.append(np.zeros(int(rng.uniform(*PAUSE) * SAMPLE_RATE), np.int16))
        yield " ".join(words), np.concatenate(sounds)


def _piece(clip: np.ndarray, words: list[str], found, rng) -> tuple[list[str], np.ndarray]:
    """From one cut of a clip to a later one, its ends faded: the words and the samples."""
    first = int(rng.integers(len(found) - 1))
    most, last = rng.integers(1, PIECES + 1), first + 1
    while last + 1 < len(found) and found[last + 1][1] - found[first][1] <= most:
        last += 1
    (begin, said), (end, over) = found[first], found[last]
    sound = clip[begin:end].astype(np.float32)
    slope = np.linspace(0, 1, min(FADE, len(sound)), dtype=np.float32)
    sound[: len(slope)] *= slope
    sound[len(sound) - len(slope) :] *= slope[::-1]
    return words[said:over], sound.astype(np.int16)
