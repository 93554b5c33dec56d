"""Makes speech to train and test the tiny pair: two synthesisers read the novels.

    python -m recipes.speech bulk --hours 100 --workers 16 --out runs/prepare/bulk

writes raw training speech in shards, each usable as soon as it appears, and

    python -m recipes.speech bundled

the data set that travels with the course: data/speech/{train,dev,test}.parquet, Ogg/Opus. The test
has sentences of the five books of text.py that nothing is trained on, in voices that training hears
and in two families of voices that it never hears: flite's `rms`, and espeak-ng's Scottish English
with every variant.

Needs the transcripts of text.py, and `flite` and `espeak-ng` (Debian and Ubuntu: apt install flite
espeak-ng); FLITE and ESPEAK may name them. A clip follows from the seed and its number alone: the
same versions of the tools write the same bytes again, whatever the number of workers.
"""

import argparse
import io
import json
import math
import os
import re
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import count, islice
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import soundfile
import torch

from recipes.text import CHECKOUT, WORK
from recipes.voices import Voice, check_synthesisers, family_voice, heard_voice, speak
from tiny_asr.shapes import SAMPLE_RATE

# What is spoken must be what is written: no digits, no Roman numerals (espeak-ng says "roman
# four"), no abbreviations ("mr" without its full stop).
NOT_SPOKEN_AS_WRITTEN = re.compile(
    r"\d|(?<!\S)(?:[ivx]{2,}|x?l[ivx]+|xl|[b-df-hj-np-tv-xz]{2,})(?!\S)"
)
# How many words a clip has, lowest and highest, and how often.
LENGTHS = [((1, 4), 0.08), ((5, 28), 0.74), ((29, 46), 0.12), ((47, 84), 0.06)]
MEAN_SECONDS = 6.6  # of a clip so drawn
LONGEST = 28.0  # seconds

QUIET = 0.01  # of the peak: what is below it at either end is silence
MARGIN = (0.05, 0.4)  # seconds of silence at either end
PEAK_DB = (-20, -1)  # full scale is 0
# Shortest and longest speech of a text, in seconds: a constant and so much a letter.
SHORTEST, LONGEST_FOR = (0.0, 0.03), (0.2, 0.12)

# The bundled data set: split, family of voices, clips, shortest and longest in seconds.
PARTS = [
    ("train", "heard", 1500, (2, 4)),
    ("dev", "heard", 200, (2, 6)),
    ("test", "heard", 336, (2, 6)),
    ("test", "flite rms", 336, (2, 6)),
    ("test", "espeak-ng scotland", 336, (2, 6)),
]
SENTENCE_WORDS = {4: (5, 13), 6: (5, 19)}  # for clips of at most so many seconds
OPUS_LEVEL = 0.957  # libsndfile's compression level: about 16 kbit/s
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
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def finish(samples: np.ndarray, letters: int, rng: np.random.Generator) -> np.ndarray:
    """Give a clip random silence at its ends and a random level: (S,) int16.

    Raises ValueError if it is too long, or lasts unlike `letters` letters.
    """
    loud = np.flatnonzero(np.abs(samples) > QUIET * np.abs(samples).max())
    start, stop = loud[0], loud[-1] + 1
    before, after = (int(rng.uniform(*MARGIN) * SAMPLE_RATE) for _ in range(2))
    level = 10 ** (rng.uniform(*PEAK_DB) / 20)
    shortest, longest = (fixed + each * letters for fixed, each in (SHORTEST, LONGEST_FOR))
    if not shortest < (stop - start) / SAMPLE_RATE < longest:
        raise ValueError("length unlike its text")
    if stop - start + before + after > LONGEST * SAMPLE_RATE:
        raise ValueError("too long")
    inside = samples[max(0, start - before) : stop + after]
    padded = np.pad(inside, (max(0, before - start), max(0, stop + after - len(samples))))
    return np.round(padded * (level * 32767 / np.abs(samples).max())).astype(np.int16)


class BookText:
    """The transcripts of text.py, mapped into memory: one a line, an empty line after each book."""

    def __init__(self, path: Path):
        self.data = np.asarray(np.memmap(path, np.uint8, "r"))
        self.ends = np.flatnonzero(self.data == ord("\n"))

    def line(self, index: int) -> str:
        """A sentence; empty between two books."""
        start = self.ends[index - 1] + 1 if index else 0
        return self.data[start : self.ends[index]].tobytes().decode()

    def sentence(self, words: int, rng: np.random.Generator) -> str:
        """A random sentence of about so many words. Raises ValueError if none is found."""
        for _ in range(100_000):
            text = self.line(rng.integers(len(self.ends)))
            if abs(len(text.split()) - words) <= words / 10:
                return text
        raise ValueError(f"no sentence of {words} words")

    def span(self, words: int, rng: np.random.Generator) -> str:
        """So many consecutive words from anywhere; fewer at the end of a book."""
        while True:
            start = rng.integers(len(self.data))
            running = self.data[start : start + 30 * (words + 2)].tobytes().decode()
            inside = running.split("\n\n")[0].split()[1:-1][:words]
            if inside:
                return " ".join(inside)


@lru_cache(maxsize=1)
def book_text(path: Path) -> BookText:
    """`BookText`, opened once a process."""
    return BookText(path)


def bulk_clip(book: BookText, seed: int, number: int) -> tuple[np.ndarray, str, Voice]:
    """Clip `number`: samples (S,) int16 at 16 kHz, transcript, voice.

    Raises ValueError if it is to be dropped.
    """
    rng = np.random.default_rng([seed, number])
    lowest, highest = LENGTHS[rng.choice(len(LENGTHS), p=[share for _, share in LENGTHS])][0]
    words = int(rng.integers(lowest, highest + 1))
    while True:
        text = (book.sentence if rng.random() < 0.5 else book.span)(words, rng)
        if not NOT_SPOKEN_AS_WRITTEN.search(text):
            break
    voice = heard_voice(rng)
    return finish(speak(voice, text), len(text), rng), text, voice


def write_shard(task: tuple[Path, Path, int, int, int]) -> tuple[str, int, float, Counter]:
    """Make a shard from (text, folder, seed, size, index): its name, clips, seconds, dropped ones.

    A parquet file with the columns of the bundled ones, its sound as WAV: no time to compress it.
    """
    path, out, seed, size, index = task
    book, rows, dropped = book_text(path), [], Counter()
    for number in range(index * size, (index + 1) * size):
        try:
            samples, text, voice = bulk_clip(book, seed, number)
        except ValueError as error:
            dropped[str(error)] += 1
            continue
        wav = io.BytesIO()
        soundfile.write(wav, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        name = f"bulk-{number:07d}"
        rows.append(
            {
                "id": name,
                "text": text,
                "voice": voice.name,
                "engine": voice.engine,
                "seconds": len(samples) / SAMPLE_RATE,
                "audio": {"bytes": wav.getvalue(), "path": f"{name}.wav"},
            }
        )
    shard = out / f"{index:04d}.parquet"
    part = shard.with_suffix(".part")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), part, compression="none")
    os.replace(part, shard)
    return shard.name, len(rows), sum(row["seconds"] for row in rows), dropped


def bulk(arguments: argparse.Namespace, text: Path) -> None:
    """Write about so many hours of raw training speech, in shards."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    size, first = arguments.clips, arguments.first
    last = first + math.ceil(arguments.hours * 3600 / (MEAN_SECONDS * size))
    tasks = [(text, arguments.out, arguments.seed, size, index) for index in range(first, last)]
    started, clips, seconds, dropped = time.perf_counter(), 0, 0.0, Counter()
    with get_context("spawn").Pool(arguments.workers, torch.set_num_threads, (1,)) as pool:
        for name, more, length, lost in pool.imap_unordered(write_shard, tasks):
            clips, seconds, dropped = clips + more, seconds + length, dropped + lost
            rate = clips / (time.perf_counter() - started)
            print(f"{name}: {seconds / 3600:.2f} h so far, {rate:.0f} clips/s", flush=True)
    reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
    print(f"{clips} clips, {seconds / 3600:.2f} h; dropped {dropped.total()}: {reasons or '-'}")


def opus(samples: np.ndarray, serial: int) -> bytes:
    """Encode (S,) int16 as Ogg/Opus.

    libsndfile gives each file a serial number by the clock. It is written anew here, with the
    check sum of each page (RFC 3533, section 6; a CRC-32 like zlib's, its bits in reverse).
    """
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, "OPUS", format="OGG", compression_level=OPUS_LEVEL)
    encoded, pages, start = file.getvalue(), [], 0
    while start < len(encoded):
        segments = encoded[start + 27 : start + 27 + encoded[start + 26]]
        stop = start + 27 + len(segments) + sum(segments)
        head, rest = encoded[start : start + 14], encoded[start + 18 : stop]
        page = head + serial.to_bytes(4, "little") + rest[:4] + bytes(4) + rest[8:]
        crc = zlib.crc32(page.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
        crc_bytes = crc.to_bytes(4, "big").translate(REVERSED_BITS)
        pages.append(page[:22] + crc_bytes + page[26:])
        start = stop
    return b"".join(pages)


def bundled_clip(task: tuple[int, int, int, str]) -> dict | None:
    """A row of the data set from (seed, part, number, text), or None if it is not to be used."""
    seed, part, number, text = task
    split, family, _, (shortest, longest) = PARTS[part]
    rng = np.random.default_rng([seed, part, number])
    voice = family_voice(family, rng)
    try:
        samples = finish(speak(voice, text), len(text), rng)
    except ValueError:
        return None
    seconds = len(samples) / SAMPLE_RATE
    if not shortest <= seconds <= longest:
        return None
    name = f"{split}-{family.replace(' ', '-')}-{number:04d}"
    return {
        "id": name,
        "text": text,
        "voice": voice.name,
        "engine": voice.engine,
        "family": family,
        "heard": family == "heard",
        "seconds": seconds,
        "audio": {"bytes": opus(samples, zlib.crc32(name.encode())), "path": f"{name}.opus"},
    }


def heldout_sentences(work: Path, seed: int) -> list[str]:
    """The sentences of the books put aside, shuffled, without those that training has too."""
    lines = (work / "text" / "heldout.tsv").read_text("utf-8").splitlines()
    texts = dict.fromkeys(line.partition("\t")[2] for line in lines)
    with open(work / "text" / "train.txt", encoding="utf-8") as train:
        for line in train:
            texts.pop(line.rstrip("\n"), None)
    kept = list(texts)
    return [kept[i] for i in np.random.default_rng(seed).permutation(len(kept))]


def new_sentences(source: Iterable[str], used: set[str], longest: int) -> Iterator[str]:
    """The sentences for clips of at most `longest` seconds that are not `used`; then they are."""
    low, high = SENTENCE_WORDS[longest]
    for text in source:
        spoken = low <= len(text.split()) <= high and not NOT_SPOKEN_AS_WRITTEN.search(text)
        if spoken and text not in used:
            used.add(text)
            yield text


def schema() -> pa.Schema:
    """Of the three files. `datasets` finds its own types in it, and leaves the audio encoded."""
    features = {name: {"dtype": kind, "_type": "Value"} for name, kind in COLUMNS.items()}
    features["audio"] = {"sampling_rate": SAMPLE_RATE, "decode": False, "_type": "Audio"}
    fields = [(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()]
    about = json.dumps({"info": {"features": features}})
    return pa.schema([*fields, ("audio", AUDIO)], {"huggingface": about})


def bundled(arguments: argparse.Namespace, work: Path) -> None:
    """Write train.parquet, dev.parquet and test.parquet, and print what is in them."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    seed, book = arguments.seed, book_text(work / "text" / "train.txt")
    rng = np.random.default_rng(seed)
    training = map(book.line, rng.permutation(len(book.ends)))
    sources = dict.fromkeys(("train", "dev"), training)
    sources["test"] = iter(heldout_sentences(work, seed))
    rows: dict[str, list[dict]] = {split: [] for split in sources}
    used: set[str] = set()
    with ThreadPool(arguments.workers) as pool:  # threads: programs and C code do the work
        for part, (split, family, clips, (_, longest)) in enumerate(PARTS):
            kept, numbers = [], count()
            sentences = new_sentences(sources[split], used, longest)
            while len(kept) < clips:  # as many again as are missing
                texts = list(islice(sentences, clips - len(kept)))
                if not texts:
                    sys.exit(f"{len(kept)} clips of {split}, {family}; expected {clips}: add text")
                tasks = [(seed, part, next(numbers), text) for text in texts]
                kept += filter(None, pool.map(bundled_clip, tasks, chunksize=8))
            rows[split] += kept
            minutes = sum(row["seconds"] for row in kept) / 60
            audio = sum(len(row["audio"]["bytes"]) for row in kept) / 1e6
            voices = len({row["voice"] for row in kept})
            print(
                f"{split:5}  {family:18}  {len(kept):4} clips  {voices:3} voices  "
                f"{minutes:5.1f} min  {audio:5.2f} MB of Opus",
                flush=True,
            )
    for split, table in rows.items():
        path = arguments.out / f"{split}.parquet"
        pyarrow.parquet.write_table(pa.Table.from_pylist(table, schema()), path, compression="zstd")
        print(f"{path.name}: {len(table)} clips, {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make synthetic speech.")
    commands = parser.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--work", type=Path, default=WORK, help="the folder with text.py's text/")
    both.add_argument("--seed", type=int, default=0, help="another seed, other clips")
    both.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    one = commands.add_parser("bulk", parents=[both], help="raw training speech in shards")
    one.add_argument("--hours", type=float, default=100, help="about how much")
    one.add_argument("--out", type=Path, default=WORK / "bulk", help="the folder of shards")
    one.add_argument("--clips", type=int, default=1000, help="in a shard, the dropped ones too")
    one.add_argument("--first", type=int, default=0, help="the shard to begin with")
    two = commands.add_parser("bundled", parents=[both], help="the data set in the repository")
    bundle = CHECKOUT / "data" / "speech"
    two.add_argument("--out", type=Path, default=bundle, help="the folder of the three files")
    arguments = parser.parse_args()
    needed = ["train.txt"] if arguments.command == "bulk" else ["train.txt", "heldout.tsv"]
    for name in needed:
        if not (arguments.work / "text" / name).is_file():
            parser.error(
                f"no {name} in {arguments.work / 'text'}; run recipes/text.py, or name --work"
            )
    check_synthesisers()
    torch.set_num_threads(1)
    if arguments.command == "bulk":
        bulk(arguments, arguments.work / "text" / "train.txt")
    else:
        bundled(arguments, arguments.work)


if __name__ == "__main__":
    main()
