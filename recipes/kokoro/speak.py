"""Speak the sentences of texts.py in Kokoro's voices: speech to train on.

    python -m recipes.kokoro.speak --hours 60 --workers 12

writes parquet files of about two hours each to runs/prepare/kokoro/speech/, with the columns of
`recipes.speech bulk`, each usable as soon as it appears. What is there already is not made again. A
piece follows from its size, the seed and its number alone, whatever the number of workers (another
kind of device draws another noise of breath); voices.py draws the voices and the speeds.

Workers take turns at the GPUs that there are: twelve on two of NVIDIA's H200 made 60 h in 105 s. A
CPU takes hours: give it small pieces (--clips 100). Needs `pip install '.[recipes]'` and the
voice model's folder (--kokoro, TINY_ASR_KOKORO, or runs/prepare/kokoro/model):
kokoro-82m-int8.onnx and voices.bin.
"""

import argparse
import io
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import soundfile
import torch

from recipes.clips import LONGEST
from recipes.kokoro.batches import Utterance, synthesise
from recipes.kokoro.model import Kokoro
from recipes.kokoro.phonemes import Phonemes
from recipes.kokoro.texts import OUT
from recipes.kokoro.voices import Voice, heard_voice, load_tables, speed
from recipes.kokoro.weights import MODEL, VOICES, WHERE, convert, load
from tiny_asr.device import choose_device
from tiny_asr.shapes import SAMPLE_RATE

MEAN_SECONDS = 4.3  # of a clip
TOKENS = range(2, 331)  # how many phonemes a text may have
ORDER_SEED = 1919  # of the sentences; voices and speeds follow from it too


class Task(NamedTuple):
    """A piece to make: the texts' folder, the voice model's, the device; the seed, and which."""

    texts: Path
    kokoro: Path
    out: Path
    device: str
    seed: int
    clips: int
    piece: int


@lru_cache(maxsize=1)
def sentences(folder: Path) -> list[str]:
    """All lines, spoken TAB target, of texts.py's two files; read once a process."""
    names = ("novels.txt", "everyday.txt")
    return [line for name in names for line in (folder / name).read_text("utf-8").splitlines()]


@lru_cache(maxsize=1)
def speaker(folder: Path, device: str) -> tuple[Kokoro, dict[str, np.ndarray], Phonemes]:
    """The network, the voices' styles, and what reads the texts; made once a process."""
    model = load(folder).to(device)
    if device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        model.lighten(torch.float16)
    return model, load_tables(folder / VOICES), Phonemes()


def row(name: str, text: str, voice: Voice, samples: np.ndarray) -> dict:
    """A row of a piece: its sound (S,) int16 as WAV, no time to compress it."""
    wav = io.BytesIO()
    soundfile.write(wav, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return {
        "id": name,
        "text": text,
        "voice": f"kokoro/{voice.name}",
        "engine": "kokoro",
        "seconds": len(samples) / SAMPLE_RATE,
        "audio": {"bytes": wav.getvalue(), "path": f"{name}.wav"},
    }


def to_say(
    spoken: Sequence[str],
    voices: Sequence[Voice],
    speeds: Sequence[float],
    tables: dict[str, np.ndarray],
    phonemes: Phonemes,
) -> dict[int, Utterance]:
    """What the network says of these texts, by their places; too short and too long ones are left
    out."""
    tokens: dict[int, list[int]] = {}
    for language in ("en-us", "en-gb"):
        places = [place for place, voice in enumerate(voices) if voice.language == language]
        said = phonemes.tokens([spoken[place] for place in places], language)
        tokens.update(zip(places, said, strict=True))
    return {
        place: Utterance(tokens[place], voices[place].styles(tables), speeds[place])
        for place in range(len(spoken))
        if len(tokens[place]) in TOKENS
    }


def read_aloud(task: Task) -> tuple[list[dict], Counter]:
    """The rows of a piece, and why clips were dropped."""
    lines = sentences(task.texts)
    order = np.random.default_rng(task.seed).permutation(len(lines))
    mine = order[task.piece * task.clips : (task.piece + 1) * task.clips]
    spoken, targets = zip(*(lines[place].split("\t") for place in mine), strict=True)
    rng = np.random.default_rng([task.seed, task.piece])
    voices, speeds = zip(*((heard_voice(rng), speed(rng)) for _ in mine), strict=True)

    model, tables, phonemes = speaker(task.kokoro, task.device)
    kept = to_say(spoken, voices, speeds, tables, phonemes)
    dropped = Counter({"text too short or too long": len(mine) - len(kept)})
    breath = torch.Generator(task.device).manual_seed(int(rng.integers(2**62)))
    rows = []
    for place, sound in zip(kept, synthesise(model, list(kept.values()), breath), strict=True):
        if not sound.isfinite().all():
            dropped["not finite"] += 1
        elif len(sound) > LONGEST * SAMPLE_RATE:
            dropped["too long"] += 1
        else:
            samples = (sound.clamp(-1, 1) * 32767).round().to(torch.int16).numpy()
            name = f"kokoro-{task.piece:05d}-{place:04d}"
            rows.append(row(name, targets[place], voices[place], samples))
    return rows, +dropped


def begin(turns, device: str) -> None:
    """Begin a worker: one thread, and the next GPU in turn where `device` is any of them."""
    torch.set_num_threads(1)
    with turns.get_lock():
        turn, turns.value = turns.value, turns.value + 1
    if device == "cuda":
        torch.cuda.set_device(turn % torch.cuda.device_count())


def write_piece(task: Task) -> tuple[str, int, float, Counter]:
    """Make a piece: its name, clips, seconds, dropped clips."""
    rows, dropped = read_aloud(task)
    path = task.out / f"{task.piece:05d}.parquet"
    part = path.with_suffix(f".{os.getpid()}.part")
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), part, compression="none")
    os.replace(part, path)
    return path.name, len(rows), sum(row["seconds"] for row in rows), dropped


def main() -> None:
    parser = argparse.ArgumentParser(description="Speak sentences in Kokoro's voices.")
    parser.add_argument("--hours", type=float, default=100, help="about how much")
    parser.add_argument("--texts", type=Path, default=OUT, help="the folder that texts.py wrote")
    parser.add_argument("--kokoro", type=Path, default=MODEL, help="the voice model's folder")
    parser.add_argument("--out", type=Path, default=OUT / "speech", help="the folder of pieces")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--workers", type=int, default=1, help="processes; 6 share a GPU well")
    parser.add_argument("--clips", type=int, default=2000, help="in a piece, the dropped ones too")
    parser.add_argument("--first", type=int, default=0, help="the piece to begin with")
    parser.add_argument("--seed", type=int, default=ORDER_SEED, help="another seed, other speech")
    arguments = parser.parse_args()
    for name in ("novels.txt", "everyday.txt"):
        if not (arguments.texts / name).is_file():
            parser.error(f"no {name} in {arguments.texts}; run recipes.kokoro.texts, or --texts")
    if not (arguments.kokoro / VOICES).is_file():
        parser.error(f"no voice model in {arguments.kokoro}; {WHERE}")
    try:
        device = str(choose_device(arguments.device).device)
        convert(arguments.kokoro)  # once, not in each worker
        Phonemes()
    except ValueError as error:
        parser.error(str(error))
    size, lines = arguments.clips, len(sentences(arguments.texts))
    last = arguments.first + math.ceil(arguments.hours * 3600 / (MEAN_SECONDS * size))
    if last * size > lines:
        parser.error(
            f"{arguments.hours} h from piece {arguments.first} on need {last * size} sentences; "
            f"{arguments.texts} has {lines}"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    same = (arguments.texts, arguments.kokoro, arguments.out, device, arguments.seed, size)
    tasks = [
        Task(*same, piece)
        for piece in range(arguments.first, last)
        if not (arguments.out / f"{piece:05d}.parquet").is_file()
    ]
    print(f"{len(tasks)} pieces to make of {last - arguments.first}, on {device}", flush=True)
    started, clips, seconds, dropped = time.perf_counter(), 0, 0.0, Counter()
    context = get_context("spawn")
    turns = context.Value("i", 0)
    with context.Pool(arguments.workers, begin, (turns, device)) as pool:
        for name, more, length, lost in pool.imap_unordered(write_piece, tasks):
            clips, seconds, dropped = clips + more, seconds + length, dropped + lost
            rate = seconds / (time.perf_counter() - started)
            print(f"{name}: {seconds / 3600:.2f} h so far, {rate:.0f} x real time", flush=True)
    reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
    print(f"{clips} clips, {seconds / 3600:.2f} h; dropped {dropped.total()}: {reasons or '-'}")


if __name__ == "__main__":
    main()
