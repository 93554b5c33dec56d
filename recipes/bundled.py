"""The data set that travels with the course: data/speech/{train,dev,test}.parquet, Ogg/Opus.

Kokoro's natural voices read what training has not heard: other sentences than those of
`recipes.kokoro.speak`, and in the test those of the books that are put aside, in voices that
training hears and in six that it never hears. The test has two families of robots besides, as they
are heard nowhere in training: flite's `rms`, and espeak-ng's Scottish English with every variant.

The robots' clips are the same bytes again with the same versions of the tools; Kokoro's breath
differs from one kind of device to another. `python -m recipes.speech bundled` runs this.
"""

import argparse
import json
import zlib
from collections.abc import Iterator
from itertools import count, islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from recipes.clips import LONGEST, NOT_SPOKEN_AS_WRITTEN, finish, opus
from recipes.kokoro.batches import synthesise
from recipes.kokoro.speak import ORDER_SEED, sentences, speaker, to_say
from recipes.kokoro.voices import HELD_OUT, heard_voice, plain, speed
from recipes.kokoro.weights import convert
from recipes.voices import family_voice, speak
from tiny_asr.device import choose_device
from tiny_asr.shapes import SAMPLE_RATE

NEVER = "kokoro never heard"


class Part(NamedTuple):
    """A family of voices in one of the files.

    clips: how many. seconds: the shortest and the longest. number: with the seed, it decides what
    is drawn. words: of a text, fewest and most. tries: texts that are read aloud, of which so many
    as needed are taken; 0 for the robots, which read one after the other until there are enough.
    """

    split: str
    family: str
    clips: int
    seconds: tuple[float, float]
    number: int
    words: tuple[int, int]
    tries: int = 0


PARTS = [
    Part("train", "kokoro heard", 1500, (2, 4), 0, (4, 12), 2600),
    Part("dev", "kokoro heard", 200, (2, 6), 1, (4, 17), 420),
    Part("test", "kokoro heard", 336, (2, 6), 2, (4, 17), 700),
    Part("test", NEVER, 336, (2, 6), 3, (4, 17), 700),
    Part("test", "flite rms", 336, (2, 6), 3, (5, 19)),
    Part("test", "espeak-ng scotland", 336, (2, 6), 4, (5, 19)),
]
READ_IN_TRAINING = 200_000  # of the sentences in the order of speak.py: at most those are
ROBOTS_SKIP = 399  # of their sentences: a family read them that this data set had before
DRAWS = 7  # seed of Kokoro's voices and speeds
COLUMNS = {  # and audio{bytes, path}
    "id": "string",
    "text": "string",
    "voice": "string",
    "engine": "string",
    "family": "string",
    "heard": "bool",
    "seconds": "float32",
}
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def schema() -> pa.Schema:
    """Of the three files. `datasets` finds its own types in it, and leaves the audio encoded."""
    features = {name: {"dtype": kind, "_type": "Value"} for name, kind in COLUMNS.items()}
    features["audio"] = {"sampling_rate": SAMPLE_RATE, "decode": False, "_type": "Audio"}
    fields = [(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()]
    about = json.dumps({"info": {"features": features}})
    return pa.schema([*fields, ("audio", AUDIO)], {"huggingface": about})


class Spoken(NamedTuple):
    """What a synthesiser said, (S,) float32, before it is finished."""

    samples: np.ndarray
    text: str
    voice: str
    number: int


def finished(part: Part, said: Spoken, rng: np.random.Generator) -> dict | None:
    """A row of the data set, or None if it does not last as it should."""
    try:
        samples = finish(said.samples, len(said.text), rng)
    except ValueError:
        return None
    seconds = len(samples) / SAMPLE_RATE
    if not part.seconds[0] <= seconds <= part.seconds[1]:
        return None
    name = f"{part.split}-{part.family.replace(' ', '-')}-{said.number:04d}"
    return {
        "id": name,
        "text": said.text,
        "voice": said.voice,
        "engine": said.voice.partition("/")[0],
        "family": part.family,
        "heard": part.family == "kokoro heard",
        "seconds": seconds,
        "audio": {"bytes": opus(samples, zlib.crc32(name.encode())), "path": f"{name}.opus"},
    }


# Natural voices


def to_read(part: Part, lines: Iterator[str], used: set[str]) -> list[tuple[str, str]]:
    """(spoken, text) of the next texts that fit and are not `used`; then they are."""
    low, high = part.words
    found: list[tuple[str, str]] = []
    while len(found) < part.tries:
        line = next(lines, None)
        if line is None:
            raise ValueError(f"{len(found)} texts for {part.family}; expected {part.tries}")
        spoken, text = line.split("\t")
        if low <= len(text.split()) <= high and text not in used:
            used.add(text)
            found.append((spoken, text))
    return found


def read_aloud(part: Part, texts: list[tuple[str, str]], seed: int, model) -> list[Spoken]:
    """What Kokoro says; texts of too many phonemes, and sound that is no number, are left out.

    Args:
        model: the network, the voices' styles, the phonemes (`speaker`), and the device.
    """
    network, tables, phonemes, device = model
    rng = np.random.default_rng([DRAWS + seed, part.number])
    voices, speeds = [], []
    for place in range(len(texts)):
        never = part.family == NEVER
        voices.append(plain(HELD_OUT[place % len(HELD_OUT)]) if never else heard_voice(rng))
        speeds.append(speed(rng))
    kept = to_say([spoken for spoken, _ in texts], voices, speeds, tables, phonemes)
    breath = torch.Generator(device).manual_seed(seed + part.number)
    found: list[Spoken] = []
    for i, sound in zip(kept, synthesise(network, list(kept.values()), breath), strict=True):
        if sound.isfinite().all() and len(sound) <= LONGEST * SAMPLE_RATE:
            whole = (sound.clamp(-1, 1) * 32767).round().to(torch.int16).numpy()
            samples = whole.astype(np.float32) / 32768
            found.append(Spoken(samples, texts[i][1], f"kokoro/{voices[i].name}", len(found)))
    return found


# Robots


def robots_sentences(work: Path, seed: int) -> Iterator[str]:
    """The sentences of the books put aside, shuffled, without those that training has too."""
    lines = (work / "text" / "heldout.tsv").read_text("utf-8").splitlines()
    texts = dict.fromkeys(line.partition("\t")[2] for line in lines)
    with open(work / "text" / "train.txt", encoding="utf-8") as train:
        for line in train:
            texts.pop(line.rstrip("\n"), None)
    kept = list(texts)
    for place in np.random.default_rng(seed).permutation(len(kept)):
        if not NOT_SPOKEN_AS_WRITTEN.search(kept[place]):
            yield kept[place]


def robot_clip(part: Part, seed: int, number: int, text: str) -> dict | None:
    """A row of the data set, or None if it is not to be used."""
    rng = np.random.default_rng([seed, part.number, number])
    voice = family_voice(part.family, rng)
    try:
        samples = speak(voice, text)
    except ValueError:
        return None
    return finished(part, Spoken(samples, text, voice.name, number), rng)


# Both


class Makers:
    """The texts that are left, and who reads them."""

    def __init__(self, a: argparse.Namespace):
        folder = a.work / "kokoro"
        lines = sentences(folder)
        order = np.random.default_rng(ORDER_SEED).permutation(len(lines))[READ_IN_TRAINING:]
        everyday = (lines[place] for place in order)
        aside = iter((folder / "heldout.txt").read_text("utf-8").splitlines())
        self.lines = {"train": everyday, "dev": everyday, "test": aside}
        low, high = next(part.words for part in PARTS if not part.tries)
        fitting = (t for t in robots_sentences(a.work, a.seed) if low <= len(t.split()) <= high)
        self.robots = islice(fitting, ROBOTS_SKIP, None)
        device = str(choose_device(a.device).device)
        convert(a.kokoro)
        self.model = (*speaker(a.kokoro, device), device)
        self.used: set[str] = set()
        self.seed = a.seed

    def naturals(self, part: Part, pool: ThreadPool) -> list[dict]:
        """The rows of a family of Kokoro's."""
        texts = to_read(part, self.lines[part.split], self.used)
        tasks = [
            (part, said, np.random.default_rng([self.seed, part.number, said.number]))
            for said in read_aloud(part, texts, self.seed, self.model)
        ]
        return list(filter(None, pool.starmap(finished, tasks, chunksize=8)))[: part.clips]

    def robot(self, part: Part, pool: ThreadPool) -> list[dict]:
        """The rows of a family of robots."""
        kept: list[dict] = []
        numbers = count()
        while len(kept) < part.clips:  # as many again as are missing
            texts = list(islice(self.robots, part.clips - len(kept)))
            if not texts:
                break
            tasks = [(part, self.seed, next(numbers), text) for text in texts]
            kept += filter(None, pool.starmap(robot_clip, tasks, chunksize=8))
        return kept


def bundled(arguments: argparse.Namespace) -> None:
    """Write train.parquet, dev.parquet and test.parquet, and print what is in them.

    Raises ValueError where text is missing, or the voice model.
    """
    makers = Makers(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict]] = {part.split: [] for part in PARTS}
    with ThreadPool(arguments.workers) as pool:  # threads: programs and C code do the work
        for part in PARTS:
            kept = (makers.naturals if part.tries else makers.robot)(part, pool)
            if len(kept) < part.clips:
                raise ValueError(
                    f"{len(kept)} clips of {part.split}, {part.family}; expected {part.clips}: "
                    "add text, or raise tries"
                )
            rows[part.split] += kept
            minutes = sum(row["seconds"] for row in kept) / 60
            audio = sum(len(row["audio"]["bytes"]) for row in kept) / 1e6
            voices = len({row["voice"] for row in kept})
            print(
                f"{part.split:5}  {part.family:18}  {len(kept):4} clips  {voices:3} voices  "
                f"{minutes:5.1f} min  {audio:5.2f} MB of Opus",
                flush=True,
            )
    for split, table in rows.items():
        path = arguments.out / f"{split}.parquet"
        pyarrow.parquet.write_table(pa.Table.from_pylist(table, schema()), path, compression="zstd")
        print(f"{path.name}: {len(table)} clips, {path.stat().st_size / 1e6:.2f} MB")
