"""What untranscribed speech says, as two Whispers write it: it counts where they nearly agree.

    python -m recipes.ears.overhear --models FOLDER

reads the shared `untranscribed*.parquet`, and writes recipes/ears/overheard.json: for each clip's
id what whisper-base and whisper-tiny.en write, each with its own decoder, greedily, through
`faster-whisper` (pip install faster-whisper). `get/real.py` of the shared material writes both
models to FOLDER. Stopped and started again, it goes on; 867 clips take about an hour of one core.

    python -m recipes.ears.overhear --models FOLDER --noise

hears the recordings of noise (no_speech.py) in the same way, and writes recipes/ears/spoken.json:
in some of them somebody speaks, far away. Training leaves those out where both Whispers write
words (pack.py), and measure.py says what a pair writes in the others.
"""

import argparse
import io
import json
from pathlib import Path

import soundfile

from recipes.ears.pack import HEARD, SPOKEN, agreed, spoken, table
from recipes.text import SHARED, WORK

MODELS = ("whisper-base-ct2", "whisper-tiny.en-ct2")
SAVE_EVERY = 20


def listen(models: list, samples) -> list[str]:
    """The texts of one clip, a model after the other."""
    how = {"language": "en", "beam_size": 1, "without_timestamps": True}
    return ["".join(part.text for part in m.transcribe(samples, **how)[0]).strip() for m in models]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write down what untranscribed speech says.")
    parser.add_argument("--models", type=Path, required=True, help=f"holds {' and '.join(MODELS)}")
    parser.add_argument("--noise", action="store_true", help="is there speech in the noise?")
    parser.add_argument("--out", type=Path, help=f"{HEARD.name}; of noise {SPOKEN.name}")
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    out = a.out or (SPOKEN if a.noise else HEARD)
    from faster_whisper import WhisperModel

    how = {"device": "cpu", "compute_type": "int8", "cpu_threads": a.threads}
    models = [WhisperModel(str(a.models / name), **how) for name in MODELS]
    heard = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    if a.noise:
        files = [WORK / "no-speech" / f"{part}.parquet" for part in ("test", "train")]
        rows = [row for file in files for row in table(file) if row["kind"] == "real"]
    else:
        files = sorted((SHARED / "speech").glob("untranscribed*"), key=lambda file: len(file.name))
        rows = [row for file in files for row in table(file)]
    for number, row in enumerate(rows, 1):
        if row["id"] not in heard:
            samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
            assert rate == 16_000, f"{row['id']} has {rate} Hz; expected 16 000"
            heard[row["id"]] = listen(models, samples)
        if number % SAVE_EVERY == 0 or number == len(rows):
            part = out.with_suffix(".part")
            part.write_text(json.dumps(heard, indent=0, ensure_ascii=False), encoding="utf-8")
            part.replace(out)
            found = len(spoken(heard) if a.noise else agreed(heard))
            print(f"{number} of {len(rows)}: words of both in {found}", flush=True)


if __name__ == "__main__":
    main()
