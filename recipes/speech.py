"""Makes speech to train and test with: two synthesisers read the novels.

    python -m recipes.speech bulk --hours 35 --workers 16 --out runs/prepare/bulk

writes raw training speech in shards, each usable as soon as it appears, and

    python -m recipes.speech bundled

the data set that travels with the course (bundled.py).

Needs the transcripts of text.py, and `flite` and `espeak-ng` (Debian and Ubuntu: apt install flite
espeak-ng); FLITE and ESPEAK may name them. A clip follows from the seed and its number alone: the
same versions of the tools write the same bytes again, whatever the number of workers.
"""

import argparse
import io
import math
import os
import time
from collections import Counter
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile
import torch

from recipes.bundled import bundled
from recipes.clips import NOT_SPOKEN_AS_WRITTEN, finish
from recipes.kokoro.weights import MODEL
from recipes.text import CHECKOUT, WORK
from recipes.voices import Voice, check_synthesisers, heard_voice, speak
from tiny_asr.shapes import SAMPLE_RATE

# How many words a clip has, lowest and highest, and how often.
LENGTHS = [((1, 4), 0.08), ((5, 28), 0.74), ((29, 46), 0.12), ((47, 84), 0.06)]
MEAN_SECONDS = 6.6  # of a clip so drawn


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


def check_made(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exit with advice where an input is missing."""
    work = arguments.work
    needed = {"text/train.txt": "recipes/text.py"}
    if arguments.command == "bundled":
        needed["text/heldout.tsv"] = "recipes/text.py"
        names = ("novels.txt", "everyday.txt", "heldout.txt")
        needed |= {f"kokoro/{name}": "recipes/kokoro/texts.py" for name in names}
    for name, program in needed.items():
        if not (work / name).is_file():
            parser.error(f"no {name} in {work}; run {program}, or name --work")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make synthetic speech.")
    commands = parser.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--work", type=Path, default=WORK, help="the folder of text/ and kokoro/")
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
    two.add_argument("--kokoro", type=Path, default=MODEL, help="the voice model's folder")
    two.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N: for Kokoro")
    arguments = parser.parse_args()
    check_made(arguments, parser)
    check_synthesisers()
    torch.set_num_threads(1)
    if arguments.command == "bulk":
        bulk(arguments, arguments.work / "text" / "train.txt")
        return
    try:
        bundled(arguments)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
