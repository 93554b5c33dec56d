"""Speech as two plain files, for a training machine that reads no parquet.

    python -m recipes.ears.pack

writes to runs/prepare/packs/, from the shared material (TINY_ASR_SHARED, or ../shared beside the
checkout), `real`, `accents`, `dev`, `noise`, and `untranscribed` where pseudo.py has written
transcripts; NAME.json holds the texts and lengths, NAME.bin the sounds, encoded as they were.

Twenty of the 230 speakers of `train-accents` are kept out of training: `accents-test`.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from recipes.text import SHARED, WORK
from tiny_asr.data.utterance import normalise_transcript

OUT = WORK / "packs"
HELD_OUT_SPEAKERS, SEED = 20, 19


def write(path: Path, rows: Iterable[tuple[str, bytes]], kind: str = "encoded") -> None:
    """Write (text, sound) pairs. kind: encoded, or pcm16 (16 kHz, little-endian)."""
    texts, sizes = [], []
    with open(path.with_suffix(".bin"), "wb") as file:
        for text, sound in rows:
            texts.append(text)
            sizes.append(file.write(sound))
    about = {"kind": kind, "texts": texts, "bytes": sizes}
    path.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")
    print(f"{path.name}: {len(texts)} clips, {sum(sizes) / 1e6:.1f} MB", flush=True)


def table(path: Path) -> list[dict]:
    """The rows of a parquet file, in its order."""
    import pyarrow.parquet  # the machine that reads the packs has none

    return pyarrow.parquet.read_table(path).to_pylist()


def held_out_speakers(rows: list[dict]) -> set[str]:
    """The speakers of `train-accents` that nothing is trained on."""
    speakers = sorted({row["speaker"] for row in rows})
    chosen = np.random.default_rng(SEED).choice(len(speakers), HELD_OUT_SPEAKERS, replace=False)
    return {speakers[place] for place in chosen}


def pairs(rows: Iterable[dict]) -> Iterator[tuple[str, bytes]]:
    """Transcripts as the pairs write them, and sounds."""
    for row in rows:
        yield normalise_transcript(row["text"] or ""), row["audio"]["bytes"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack speech for training.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--pseudo", type=Path, default=WORK / "pseudo.jsonl")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    speech = SHARED / "speech"
    names = ("train-many-voices", "train-two-voices")
    write(a.out / "real", pairs(row for n in names for row in table(speech / f"{n}.parquet")))
    accents = table(speech / "train-accents.parquet")
    out = held_out_speakers(accents)
    write(a.out / "accents", pairs(row for row in accents if row["speaker"] not in out))
    write(a.out / "accents-test", pairs(row for row in accents if row["speaker"] in out))
    write(a.out / "dev", pairs(table(speech / "dev.parquet")))
    write(a.out / "noise", pairs(table(WORK / "no-speech" / "train.parquet")))
    if a.pseudo.is_file():
        said = {row["id"]: row["text"] for row in map(json.loads, open(a.pseudo, encoding="utf-8"))}
        names = ("untranscribed", "untranscribed-orders")
        rows = [row for n in names for row in table(speech / f"{n}.parquet")]
        kept = [row | {"text": said[row["id"]]} for row in rows if said.get(row["id"])]
        write(a.out / "untranscribed", pairs(kept))


if __name__ == "__main__":
    main()
