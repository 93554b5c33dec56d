"""How far off are the times of words? Clips whose words' borders are known, by two robots.

    python -m recipes.word_times tiny

Half of the clips are **apart**: words of a sentence, each spoken alone by flite or espeak-ng, with
pauses of 0.05 to 0.4 s between them and a little noise over all. The other half are **fluent**:
sentences of flite, which tells when each of its sounds begins and ends. The sentences are the
test's. A word counts if it was written as it was said; what is printed, in ms, is the median of the
errors and what nine of ten errors stay below. Two methods are compared: `transcribe(words=True)`,
and the decoder's attention, as lesson 07 draws it. Needs `flite` and `espeak-ng`.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow.parquet
import torch
from torch import Tensor

from recipes.clips import QUIET
from recipes.text import CHECKOUT
from recipes.voices import FLITE, UNHEARD_ESPEAK, UNHEARD_FLITE, check_synthesisers, espeak, speak
from recipes.voices import flite as flite_voice
from tiny_asr.audio import load_audio
from tiny_asr.course.lesson_06_word_times import by_attention
from tiny_asr.evaluation.score import align
from tiny_asr.model import ASRModel
from tiny_asr.search.words import Word
from tiny_asr.shapes import SAMPLE_RATE

PAUSE = (0.05, 0.4)  # seconds
NOISE_DB = (-50, -40)  # under the loudest sample
METHODS = ("words=True", "attention")


class Clip(NamedTuple):
    """A waveform (S,) at 16 kHz, and what is said in it when."""

    waveform: Tensor
    words: list[Word]


def finished(samples: np.ndarray, words: list[Word], rng: np.random.Generator) -> Clip:
    """A clip at a usual level, with a little noise."""
    samples = samples * (0.5 / np.abs(samples).max())
    samples = samples + 0.5 * 10 ** (rng.uniform(*NOISE_DB) / 20) * rng.normal(size=len(samples))
    return Clip(torch.from_numpy(samples).float(), words)


def apart(text: str, rng: np.random.Generator) -> Clip:
    """At most ten words of a text, each spoken alone, with pauses around them."""
    robots = flite_voice(UNHEARD_FLITE, rng), espeak(UNHEARD_ESPEAK, UNHEARD_ESPEAK, rng)
    voice, parts, words, place = robots[int(rng.integers(2))], [], [], 0
    for word in text.split()[:10]:
        sound = speak(voice, word)
        loud = np.flatnonzero(np.abs(sound) > QUIET * np.abs(sound).max())
        sound = sound[loud[0] : loud[-1] + 1]
        pause = np.zeros(int(rng.uniform(*PAUSE) * SAMPLE_RATE))
        begin = place + len(pause)
        place = begin + len(sound)
        words.append(Word(word, begin / SAMPLE_RATE, place / SAMPLE_RATE))
        parts += [pause, sound]
    parts.append(np.zeros(int(rng.uniform(*PAUSE) * SAMPLE_RATE)))
    return finished(np.concatenate(parts), words, rng)


def fluent(text: str, rng: np.random.Generator) -> Clip:
    """A sentence of flite, with the borders of its words. Raises ValueError where they can't be
    told: where a word has other sounds in the sentence than alone."""
    voice, words = ("rms", "slt", "awb")[int(rng.integers(3))], text.split()
    stretch = f"duration_stretch={rng.uniform(0.8, 1.2):.3f}"

    def said(*options: str) -> list[str]:
        command = [FLITE, "-voice", voice, "--setf", stretch, *options]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()

    alone = groupby(said("-ps", "-t", ", ".join(words), "none"), lambda sound: sound == "pau")
    sizes = [len(list(sounds)) for pause, sounds in alone if not pause]
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        ends = [pair.rsplit(":", 1) for pair in said("-psdur", "-t", text, file.name)]
        samples = load_audio(file.name).numpy()
    times = [0.0, *(float(end) for _, end in ends)]
    sounds = [n for n, (sound, _) in enumerate(ends) if sound != "pau"]
    if len(sizes) != len(words) or sum(sizes) != len(sounds):
        raise ValueError("borders unknown")
    lasts = np.cumsum(sizes)
    spans = [
        (times[sounds[b - n]], times[sounds[b - 1] + 1]) for b, n in zip(lasts, sizes, strict=True)
    ]
    return finished(samples, [Word(w, *span) for w, span in zip(words, spans, strict=True)], rng)


def clips(make, count: int, seed: int) -> Iterator[Clip]:
    """So many clips of one kind."""
    table = CHECKOUT / "data" / "speech" / "test.parquet"
    texts = pyarrow.parquet.read_table(table, columns=["text"])["text"].to_pylist()
    rng, made = np.random.default_rng(seed), 0
    for number in rng.permutation(len(texts)):
        try:
            clip = make(texts[number], rng)
        except ValueError:
            continue
        yield clip
        made += 1
        if made == count:
            return


def errors(said: list[Word], found: list[Word]) -> list[tuple[float, float]]:
    """Of each word that was written as it was said: how much too late it begins and ends, in s."""
    texts = [" ".join(word.text.strip() for word in words) for words in (said, found)]
    off, place, other = [], 0, 0
    for operation, _, _ in align(*texts, normaliser="none"):
        if operation == "equal":
            was, is_ = said[place], found[other]
            off.append((is_.begin - was.begin, is_.end - was.end))
        place += operation != "insert"
        other += operation != "delete"
    return off


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the times of words.")
    parser.add_argument("model", help="tiny, small or medium, or a directory")
    parser.add_argument("--encoder", help="a local copy of the encoder")
    parser.add_argument("--decoder", help="a local copy of the decoder")
    parser.add_argument("--clips", type=int, default=100, help="of each of the two kinds")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    check_synthesisers()
    model = ASRModel.from_pretrained(a.model, encoder=a.encoder, decoder=a.decoder)
    print("clips   method      words   begin: median  90 %   end: median  90 %   (ms)")
    for make in (apart, fluent):
        made = list(clips(make, a.clips, a.seed))
        waveforms, total = [c.waveform for c in made], sum(len(c.words) for c in made)
        timed = [text.words for text in model.transcribe(waveforms, SAMPLE_RATE, words=True)]
        looked = [by_attention(model, waveform) for waveform in waveforms]
        for method, found in zip(METHODS, (timed, looked), strict=True):
            pairs = zip(made, found, strict=True)
            off = np.abs([e for clip, words in pairs for e in errors(clip.words, words)]) * 1000
            median, most = np.median(off, axis=0), np.quantile(off, 0.9, axis=0)
            print(
                f"{make.__name__:7} {method:11} {len(off):4}/{total:<5} {median[0]:8.0f} "
                f"{most[0]:7.0f} {median[1]:12.0f} {most[1]:6.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
