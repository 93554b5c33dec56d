"""Speech as two plain files, for a training machine that reads no parquet.

    python -m recipes.ears.pack

writes NAME.json with the texts and lengths, NAME.bin with the sounds:

runs/prepare/packs/          from the shared material (TINY_ASR_SHARED, or ../shared beside the
                             checkout), encoded as they were: `novels` (LibriSpeech, and what was
                             overheard of it), `orders` (overheard), `studio` (two speakers),
                             `accents`, `dev` and `noise`; and `natural-test` from data/speech;
runs/prepare/kokoro/packs/   what recipes.kokoro.speak made, a pack for each of its files;
runs/prepare/robots/         what `recipes.speech bulk` made, likewise.

Twenty of the 230 speakers of `train-accents` are kept out of training: `accents-test`. Overheard is
speech without a transcript of which two Whispers write nearly the same (overhear.py). Noises in
which both hear words are left out.
"""

import argparse
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from recipes.ears.bank import decoded
from recipes.ears.splice import cuts
from recipes.text import CHECKOUT, SHARED, WORK
from tiny_asr.data.utterance import normalise_transcript
from tiny_asr.model import ASRModel

OUT = WORK / "packs"
HEARD = Path(__file__).with_name("overheard.json")  # what overhear.py wrote
SPOKEN = Path(__file__).with_name("spoken.json")  # and of noise
HELD_OUT_SPEAKERS, SEED = 20, 19
KINDS = {
    "novels": ("train-many-voices", "untranscribed"),
    "orders": ("untranscribed-orders",),
    "studio": ("train-two-voices",),
}
UNLIKE = 0.1  # at most, between the two Whispers: word errors of one against the other


def write(path: Path, rows: Iterable[tuple[str, bytes]], kind: str = "encoded", **more) -> None:
    """Write (text, sound) pairs. kind: encoded, or pcm16 (16 kHz, little-endian). more: lists of
    what else is known of each."""
    texts, sizes = [], []
    with open(path.with_suffix(".bin"), "wb") as file:
        for text, sound in rows:
            texts.append(text)
            sizes.append(file.write(sound))
    about = {"kind": kind, "texts": texts, "bytes": sizes, **more}
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


def agreed(heard: dict[str, list[str]]) -> dict[str, str]:
    """Of clips without a transcript, by id, the first Whisper's text where the second agrees."""
    import jiwer  # the machine that reads the packs has neither
    from whisper_normalizer.english import EnglishTextNormalizer

    level = EnglishTextNormalizer()
    return {
        name: base
        for name, (base, other) in heard.items()
        if normalise_transcript(base) and level(base)
        if jiwer.wer(level(base), level(other)) <= UNLIKE
    }


def spoken(heard: dict[str, list[str]]) -> set[str]:
    """The ids of noises in which somebody speaks after all: both Whispers write words."""
    return {name for name, texts in heard.items() if all(map(normalise_transcript, texts))}


def people(path: Path, rows: list[dict], model: ASRModel | None) -> None:
    """A pack of real people; where a model finds the words, with its speakers and where the clips
    can be cut (splice.py)."""
    if model is None:
        write(path, pairs(rows))
        return
    places = [
        cuts(model, decoded(sound) / np.float32(32768), text) if row["speaker"] else []
        for row, (text, sound) in zip(rows, pairs(rows), strict=True)
    ]
    write(path, pairs(rows), speakers=[row["speaker"] for row in rows], cuts=places)


def made(folder: Path, out: Path) -> None:
    """Each file of made speech, WAV in parquet, as a pack of bare samples."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.parquet")):
        rows = ((row["text"], samples(row["audio"]["bytes"])) for row in table(path))
        write(out / path.stem, rows, "pcm16")


def samples(wav: bytes) -> bytes:
    """A WAV file's samples, 16 bits each."""
    return soundfile.read(io.BytesIO(wav), dtype="int16")[0].astype("<i2").tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack speech for training.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--natural", type=Path, default=WORK / "kokoro" / "speech")
    parser.add_argument("--robots", type=Path, default=WORK / "bulk")
    parser.add_argument(
        "--model", help="a pair that finds words (tiny: 15 min), for new sentences of real people"
    )
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    model = ASRModel.from_pretrained(a.model) if a.model else None
    speech = SHARED / "speech"
    heard = agreed(json.loads(HEARD.read_text(encoding="utf-8"))) if HEARD.exists() else {}
    for name, files in KINDS.items():
        rows = (row for file in files for row in table(speech / f"{file}.parquet"))
        told = (row | {"text": row["text"] or heard.get(row["id"], "")} for row in rows)
        people(a.out / name, [row for row in told if row["text"]], model)
    accents = table(speech / "train-accents.parquet")
    out = held_out_speakers(accents)
    people(a.out / "accents", [row for row in accents if row["speaker"] not in out], model)
    write(a.out / "accents-test", pairs(row for row in accents if row["speaker"] in out))
    write(a.out / "dev", pairs(table(speech / "dev.parquet")))
    somebody = spoken(json.loads(SPOKEN.read_text(encoding="utf-8")))
    noises = table(WORK / "no-speech" / "train.parquet")
    write(a.out / "noise", pairs(row for row in noises if row["id"] not in somebody))
    bundled = table(CHECKOUT / "data" / "speech" / "test.parquet")
    never = (row for row in bundled if row["family"] == "kokoro never heard")
    write(a.out / "natural-test", pairs(never))
    made(a.natural, WORK / "kokoro" / "packs")
    made(a.robots, WORK / "robots")


if __name__ == "__main__":
    main()
