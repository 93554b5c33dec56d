"""Measure what quiet beside speech costs a pair, as the table in its model card.

    python -m recipes.quiet tiny
    python -m recipes.quiet small --encoder ../shared/weights/whisper-tiny.en

Thirty real clips and thirty made ones, each alone, with quiet before or after it, and joined five
by five into long files with a pause after each clip. The quiet is zeros, or white noise whose root
mean square lies 60 or 40 dB under full scale. WER as in `tiny-asr evaluate`, the 95 % bootstrap
interval over files, and how many transcripts were empty. Everything is seeded.
"""

import argparse
import platform
from collections.abc import Iterator

import torch

from recipes.text import CHECKOUT, SHARED
from tiny_asr.data.dataset import load_data
from tiny_asr.data.utterance import Utterance
from tiny_asr.evaluation.score import Row, score
from tiny_asr.model import ASRModel
from tiny_asr.shapes import SAMPLE_RATE

SETS = {  # clips of each value of a group
    "real": (SHARED / "speech" / "dev.parquet", "speaker"),
    "made": (CHECKOUT / "data" / "speech" / "test.parquet", "family"),
}
LEVELS = {"zeros": 0.0, "-60 dB": 10 ** (-60 / 20), "-40 dB": 10 ** (-40 / 20)}
EDGES, PAUSES = (1, 2, 4), (1, 2, 5)  # seconds
IN_A_FILE = 5


def choose(which: str, clips: int) -> list[Utterance]:
    """As many clips of each speaker or family, evenly over the file."""
    path, group = SETS[which]
    members: dict[str, list[Utterance]] = {}
    for clip in load_data(path):
        members.setdefault(clip.groups[group], []).append(clip)
    share = -(-clips // len(members))
    taken = ((m, min(share, len(m))) for m in members.values())
    chosen = (m[i * len(m) // most] for m, most in taken for i in range(most))
    return list(chosen)[:clips]


def quiet(level: str, seconds: float, seed: int) -> torch.Tensor:
    """Zeros or white noise, (S,)."""
    generator = torch.Generator().manual_seed(seed)
    return LEVELS[level] * torch.randn(int(seconds * SAMPLE_RATE), generator=generator)


def conditions(
    clips: list[torch.Tensor], texts: list[str]
) -> Iterator[tuple[str, list[torch.Tensor], list[str]]]:
    """What the table has a line for: its name, the files, what is said in each."""
    yield "clean", clips, texts
    for level in LEVELS:
        for seconds in EDGES:
            sounds = [quiet(level, seconds, seed) for seed in range(len(clips))]
            pairs = list(zip(sounds, clips, strict=True))
            yield f"{seconds} s of {level} before", [torch.cat(pair) for pair in pairs], texts
            yield f"{seconds} s of {level} after", [torch.cat(pair[::-1]) for pair in pairs], texts
    groups = [slice(i, i + IN_A_FILE) for i in range(0, len(clips), IN_A_FILE)]
    joined = [" ".join(texts[group]) for group in groups]
    yield "long files, joined", [torch.cat(clips[group]) for group in groups], joined
    for level in LEVELS:
        for seconds in PAUSES:
            parts = [torch.cat((c, quiet(level, seconds, i))) for i, c in enumerate(clips)]
            files = [torch.cat(parts[group]) for group in groups]
            yield f"long files, pauses of {seconds} s of {level}", files, joined


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what quiet beside speech costs a pair.")
    parser.add_argument("model", help="tiny or small, or a directory")
    parser.add_argument("--encoder", help="a local copy of the encoder")
    parser.add_argument("--clips", type=int, default=30, help="of each set")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    a = parser.parse_args()
    model = ASRModel.from_pretrained(a.model, encoder=a.encoder)
    print(f"{a.model} on {model.device} ({platform.machine()}), {model.dtype}")
    print("| speech | quiet | files | words | WER | interval | to clean | empty |")
    print("|---|---|---|---|---|---|---|---|")
    for which in a.sets:
        chosen, clean = choose(which, a.clips), None
        sounds, texts = [clip.load() for clip in chosen], [clip.text for clip in chosen]
        for name, files, said in conditions(sounds, texts):
            heard = model.transcribe(files, SAMPLE_RATE, batch_size=16)
            rows = [
                Row(str(i), text, written, len(file) / SAMPLE_RATE)
                for i, (file, text, written) in enumerate(zip(files, said, heard, strict=True))
            ]
            r = score(rows, seconds_elapsed=None, device=str(model.device), dtype="float32")
            clean = r.wer.value if clean is None else clean
            wer, low, high, more = (
                100 * x for x in (r.wer.value, r.wer.low, r.wer.high, r.wer.value - clean)
            )
            print(
                f"| {which} | {name} | {len(files)} | {r.words} | {wer:.1f} % | "
                f"{low:.1f} to {high:.1f} % | {more:+.1f} | {round(r.empty.value * len(files))} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
