"""Measure a trained pair, and write what its model card says: results.csv.

    python -m recipes.measure tiny
    python -m recipes.measure small --encoder DIR  # a local copy of whisper-base

Each line of `data/models/NAME-asr/results.csv` is one `tiny-asr evaluate`, or one group of it:
synthetic test speech by family, real speech by speaker, accents of speakers who are kept out of
training (recipes.ears.pack), clips in which nobody speaks by kind, and those of them in which two
Whispers hear nobody either (recipes.ears.overhear), real speech with noise mixed in and in one
piece (without `piece_seconds`), and the shuffled-audio control. The speed at batch 1 comes from
`tiny-asr benchmark`.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path

import pyarrow.compute
import pyarrow.parquet
import torch

from recipes.ears.pack import SPOKEN, held_out_speakers, spoken
from recipes.text import CHECKOUT, SHARED, WORK
from tiny_asr.data.dataset import SpeechData, load_data, noise_utterances
from tiny_asr.evaluation.score import Result, evaluate
from tiny_asr.model import ASRModel

COLUMNS = (
    "data", "group", "clips", "words", "wer", "wer_low", "wer_high", "substitutions", "deletions",
    "insertions", "empty", "empty_low", "empty_high", "rtfx", "device",
)  # fmt: skip


def lines(name: str, result: Result, group: str | None) -> list[dict]:
    """A result as lines of the table: the whole of it, then one for each value of a group."""
    rows = []
    for value, about in {"all": result, **result.groups.get(group, {})}.items():
        kept = {column: field for column, field in vars(about).items() if column in COLUMNS}
        for rate in ("wer", "empty"):
            of = getattr(about, rate)
            kept |= {rate: of.value, f"{rate}_low": of.low, f"{rate}_high": of.high}
        rows.append(kept | {"data": name, "group": value, "clips": about.utterances})
    return [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def kept_out(path: Path, limit: int | None) -> SpeechData:
    """The clips of those speakers that nothing is trained on."""
    table = pyarrow.parquet.read_table(path)
    chosen = held_out_speakers(table.select(["speaker"]).to_pylist())
    own = table.filter(pyarrow.compute.is_in(table["speaker"], pyarrow.array(sorted(chosen))))
    with tempfile.TemporaryDirectory() as folder:
        pyarrow.parquet.write_table(own, f"{folder}/kept-out.parquet")
        return load_data(f"{folder}/kept-out.parquet", limit=limit)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a trained pair.")
    parser.add_argument("model", help="tiny, small or medium, or a directory")
    parser.add_argument("--encoder", help="a local copy of the encoder")
    parser.add_argument("--decoder", help="a local copy of the decoder")
    parser.add_argument("--limit", type=int, help="clips of each data set, to try it out")
    parser.add_argument("--brief", action="store_true", help="no added noise, no exchanged audio")
    parser.add_argument("--out", type=Path, help="results.csv of the model's folder")
    a = parser.parse_args()
    torch.set_num_threads(2)
    model = ASRModel.from_pretrained(a.model, encoder=a.encoder, decoder=a.decoder)
    real, silent = SHARED / "speech" / "dev.parquet", WORK / "no-speech"
    noise = noise_utterances(silent / "noise.parquet").load_all()

    def real_speech():
        return load_data(real, limit=a.limit)

    def synthetic():
        return load_data(CHECKOUT / "data" / "speech" / "test.parquet", limit=a.limit)

    def nobody():
        return noise_utterances(silent / "test.parquet", limit=a.limit)

    def quite_nobody():
        somebody, clips = spoken(json.loads(SPOKEN.read_text(encoding="utf-8"))), nobody()
        return SpeechData([clip for clip in clips if clip.id not in somebody], name=clips.name)

    def accents():
        return kept_out(SHARED / "speech" / "train-accents.parquet", a.limit)

    runs = [
        ("real dev", "speaker", real_speech, {}),
        ("accents, 20 speakers kept out", None, accents, {}),
        ("nobody speaks", "kind", nobody, {}),
        ("nobody speaks, as two Whispers hear", None, quite_nobody, {}),
        ("synthetic test", "family", synthetic, {}),
    ]
    if not a.brief:
        runs.append(("real dev, in one piece", None, real_speech, {"piece_seconds": None}))
        for snr in (20, 10, 0):
            options = {"noise": noise, "snr_db": snr}
            runs.append((f"real dev, {snr} dB SNR", None, real_speech, options))
        runs.append(("real dev, shuffled audio", None, real_speech, {"shuffled_audio": True}))
    out = a.out or CHECKOUT / "data" / "models" / f"{a.model}-asr" / "results.csv"
    with open(out, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        usual = model.config.piece_seconds
        for name, group, data, options in runs:
            model.config.piece_seconds = options.pop("piece_seconds", usual)
            result = evaluate(model, data(), **options)
            for row in lines(name, result, group):
                table.writerow(row)
                print("  ".join(f"{k} {v}" for k, v in row.items() if v not in (None, "")))
            file.flush()


if __name__ == "__main__":
    main()
