"""Join short clips of real speech into long ones, so that training hears some of 12 to 28 s.

    python -m recipes.long

writes runs/prepare/long.parquet from the real training speech of the shared material
(TINY_ASR_SHARED, or ../shared beside the checkout): clips of one speaker one after the other, in
the order of the file, with their transcripts joined. A clip is in one of them at most: runs that
come out too short, and clips that no neighbour fits beside, are left out. Nothing is random.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import soundfile

from recipes.text import SHARED, WORK
from tiny_asr.data.dataset import load_data
from tiny_asr.data.utterance import Utterance
from tiny_asr.shapes import SAMPLE_RATE

SHORTEST = 12.0  # seconds
TARGETS = (16.0, 20.0, 24.0, 28.0)  # lengths aimed at, in turn, in seconds


def groups(clips: list[Utterance]) -> Iterator[list[Utterance]]:
    """Clips of one speaker, in order, in groups that last nearly as long as TARGETS say."""
    number, group, length = 0, [], 0.0
    for clip in clips:
        long_enough = len(group) > 1 and length >= SHORTEST
        target = TARGETS[number % len(TARGETS)] if long_enough else max(TARGETS)
        if length + clip.seconds > target:
            if long_enough:
                yield group
                number += 1
            group, length = [], 0.0
        group.append(clip)
        length += clip.seconds
    if len(group) > 1 and length >= SHORTEST:
        yield group


def joined(speaker: str, group: list[Utterance]) -> dict:
    """One row of the table: the clips of a group as one."""
    sound = np.concatenate([clip.load().numpy() for clip in group])
    file = io.BytesIO()
    soundfile.write(file, sound, SAMPLE_RATE, format="FLAC", compression_level=0.2)
    name = f"long-{group[0].id}"
    return {
        "id": name,
        "speaker": speaker,
        "text": " ".join(clip.text for clip in group),
        "seconds": len(sound) / SAMPLE_RATE,
        "audio": {"bytes": file.getvalue(), "path": f"{name}.flac"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Join short clips into long ones.")
    real = [SHARED / "speech" / f"train-{name}-voices.parquet" for name in ("many", "two")]
    parser.add_argument("--real", type=Path, nargs="+", default=real, help="speech with speakers")
    parser.add_argument("--out", type=Path, default=WORK / "long.parquet")
    a = parser.parse_args()
    speakers: dict[str, list[Utterance]] = {}
    for clip in load_data([str(path) for path in a.real]):
        speakers.setdefault(clip.groups.get("speaker", ""), []).append(clip)
    rows = [joined(name, group) for name, clips in speakers.items() for group in groups(clips)]
    a.out.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(pa.Table.from_pylist(rows), a.out, compression="none")
    hours, size = sum(row["seconds"] for row in rows) / 3600, a.out.stat().st_size / 1e6
    print(f"{a.out}: {len(rows)} clips of {len(speakers)} speakers, {hours:.2f} h, {size:.0f} MB")


if __name__ == "__main__":
    main()
