"""All sound that training hears, on the device, and what is drawn from it.

A row of a batch is a little scene: quiet, somebody speaks, quiet; or two people, one after the
other; or nobody at all. `Bank.draw` plans scenes, `batches` puts those of like length together.
"""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from recipes.ears.splice import spliced
from tiny_asr.shapes import SAMPLE_RATE

LONGEST = 28.0  # seconds of a scene
NOBODY, TWO = 0.09, 0.2  # shares of the scenes
# Quiet before, between and after words: (share, shortest, longest) in seconds.
QUIET = ((0.58, 0.0, 0.35), (0.32, 0.35, 1.5), (0.10, 1.5, 5.0))
# Few widths of batches, in samples: a GPU's libraries plan each new shape of a convolution or an
# FFT anew, which takes longer than a step. Multiples of 4 and of 5 encoder frames.
WIDTHS = np.array([5, 7, 9, 11, 13, 15, 18, 22, 26, 31, 37, 44, 52, 60, 70]) * 6400


def decoded(sound: bytes) -> np.ndarray:
    """An encoded clip as int16 at 16 kHz, (S,)."""
    samples, rate = soundfile.read(io.BytesIO(sound), dtype="float32", always_2d=True)
    wave = torch.from_numpy(samples.mean(axis=1))
    if rate != SAMPLE_RATE:
        wave = torchaudio.functional.resample(wave, rate, SAMPLE_RATE)
    return (wave.clamp(-1, 1) * 32767).round().to(torch.int16).numpy()


def read_pack(path: Path, workers: int, new: float = 0.0) -> tuple[list[str], list[np.ndarray]]:
    """Texts and clips (S,) int16 of what pack.py wrote. new: how many sentences are made for each
    clip of its pieces, see splice.py."""
    about = json.loads(path.with_suffix(".json").read_text("utf-8"))
    whole = np.fromfile(path.with_suffix(".bin"), np.uint8)
    ends = np.cumsum(about["bytes"])
    parts = [whole[end - size : end] for end, size in zip(ends, about["bytes"], strict=True)]
    if about["kind"] == "pcm16":
        return about["texts"], [part.view(np.int16) for part in parts]
    with ThreadPoolExecutor(workers) as pool:
        clips = list(pool.map(lambda part: decoded(part.tobytes()), parts))
    if not (new and "cuts" in about):
        return about["texts"], clips
    made = spliced(
        clips, about["texts"], about["speakers"], about["cuts"], round(new * len(clips)),
        np.random.default_rng(len(clips)),
    )  # fmt: skip
    texts, sounds = zip(*zip(about["texts"], clips, strict=True), *made, strict=True)
    return list(texts), list(sounds)


@dataclass
class Scenes:
    """Plans of N scenes. Times are in samples at 16 kHz, at the speed at which they are heard.

    clips: (N, 2) places in the bank, -1 for none. starts: (N, 2) where they begin in the scene.
    lengths: (N,) of the scenes. width: of their batch.
    """

    clips: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    width: int | None = None

    def take(self, rows, width: int) -> "Scenes":
        """Some of them, for a batch."""
        return Scenes(self.clips[rows], self.starts[rows], self.lengths[rows], width)

    def __add__(self, other: "Scenes") -> "Scenes":
        mine, theirs = ((part.clips, part.starts, part.lengths) for part in (self, other))
        both = (np.concatenate(pair) for pair in zip(mine, theirs, strict=True))
        return Scenes(*both, self.width)

    def __len__(self) -> int:
        return len(self.lengths)


class Bank:
    """Clips of several sources, each with its share of the scenes.

    Args:
        sources: {name: (packs, share)}; shares are relative.
        new: sentences made for each clip of real people, of their clips' pieces.
    """

    def __init__(
        self,
        sources: dict[str, tuple[list[Path], float]],
        device,
        workers: int = 16,
        new: float = 0.0,
    ):
        texts: list[str] = []
        clips: list[np.ndarray] = []
        self.ranges, self.shares, self.names = [], [], list(sources)
        for name, (packs, share) in sources.items():
            first = len(texts)
            for pack in packs:
                more, sounds = read_pack(pack, workers, new)
                fits = [1600 < len(s) <= (LONGEST - 0.5) * SAMPLE_RATE for s in sounds]
                texts += [text for text, ok in zip(more, fits, strict=True) if ok]
                clips += [sound for sound, ok in zip(sounds, fits, strict=True) if ok]
            self.ranges.append((first, len(texts)))
            self.shares.append(share if len(texts) > first else 0.0)
            hours = sum(map(len, clips[first:])) / SAMPLE_RATE / 3600
            print(f"{name}: {len(texts) - first} clips, {hours:.2f} h", flush=True)
        self.texts = texts
        self.lengths = np.array([len(clip) for clip in clips])
        starts = np.cumsum(self.lengths) - self.lengths
        self.samples = torch.empty(int(self.lengths.sum()), dtype=torch.int16, device=device)
        for first in range(0, len(clips), 20000):
            part = torch.from_numpy(np.concatenate(clips[first : first + 20000]))
            self.samples[starts[first] : starts[first] + len(part)] = part.to(device)
        self.starts = torch.from_numpy(starts).to(device)

    def _clips(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, 2): clips of one source each, the second to follow the first."""
        share = np.array(self.shares) / sum(self.shares)
        source = rng.choice(len(share), count, p=share)
        first, end = np.array(self.ranges).T
        spread = (end - first)[source][:, None]
        return first[source][:, None] + (rng.random((count, 2)) * spread).astype(int)

    def draw(self, count: int, speed: float, rng: np.random.Generator) -> Scenes:
        """Plan scenes in which everybody speaks `speed` times as fast."""
        clips = self._clips(count, rng)
        sizes = np.ceil(self.lengths[clips] / speed).astype(int)
        before, between, after = (_quiet(count, rng) for _ in range(3))
        two = rng.random(count) < TWO
        longest = int(LONGEST * SAMPLE_RATE)
        two &= before + sizes.sum(1) + between + after < longest
        clips[~two, 1], sizes[~two, 1], between[~two] = -1, 0, 0
        room = np.maximum(longest - sizes.sum(1) - between, 0)
        squeeze = np.minimum(1.0, room / np.maximum(before + after, 1))
        before, after = (before * squeeze).astype(int), (after * squeeze).astype(int)
        starts = np.stack([before, before + sizes[:, 0] + between], 1)
        lengths = before + sizes.sum(1) + between + after
        nobody = rng.random(count) < NOBODY
        clips[nobody] = -1
        lengths[nobody] = (rng.uniform(0.6, 15.0, nobody.sum()) * SAMPLE_RATE).astype(int)
        return Scenes(clips, starts, np.clip(lengths, 3200, longest))

    def text(self, clips: np.ndarray) -> str:
        """What is said in a scene of these clips."""
        return " ".join(self.texts[clip] for clip in clips if clip >= 0)


def _quiet(count: int, rng: np.random.Generator) -> np.ndarray:
    share, low, high = np.array(QUIET).T
    kind = rng.choice(len(share), count, p=share)
    return (rng.uniform(low[kind], high[kind]) * SAMPLE_RATE).astype(int)


def batches(
    bank: Bank, seconds: float, speeds: tuple[float, ...], rng: np.random.Generator
) -> Iterator[tuple[Scenes, float]]:
    """Endless batches of scenes of like length, about so many seconds of sound in each, all of one
    speed. Batches of a width have one size."""
    waiting: dict[tuple[float, int], Scenes] = {}
    while True:
        speed = float(rng.choice(speeds))
        scenes = bank.draw(int(16 * seconds / 6), speed, rng)
        fits = np.searchsorted(WIDTHS, scenes.lengths)
        full = []
        for place in np.unique(fits):
            width, key = int(WIDTHS[place]), (speed, int(place))
            more = scenes.take(np.flatnonzero(fits == place), width)
            queue = waiting[key] + more if key in waiting else more
            size = max(1, int(seconds * SAMPLE_RATE / width))
            while len(queue) >= size:
                full.append(queue.take(slice(None, size), width))
                queue = queue.take(slice(size, None), width)
            waiting[key] = queue
        for place in rng.permutation(len(full)):
            yield full[place], speed
