"""Notebook 06: the model that the student trained, its card, and what the card says."""

import sys
from pathlib import Path

from tqdm import tqdm

from tiny_asr.course.lesson_05_loop import Batches, train
from tiny_asr.data.dataset import load_data
from tiny_asr.evaluation.score import Comparison, Result
from tiny_asr.hub import BUNDLED, data_dir
from tiny_asr.model import ASRModel

MINUTE = 1000  # utterances


def left_by_lesson_05(folder: Path, pair: str, device: str) -> ASRModel:
    """The model in a folder; where there is none, one that is trained here, in about a minute."""
    if (folder / "model.safetensors").is_file():
        print(f"yours, from {folder.parent.name}/{folder.name}, as lesson 05 left it")
        return ASRModel.from_pretrained(str(folder), device=device)
    print("lesson 05 has left no model: here is one that is trained for a minute instead")
    model = ASRModel.from_pretrained(pair, device=device)
    model.reset_projector(seed=0)
    data = load_data(data_dir() / "speech" / "train.parquet", limit=MINUTE)
    with tqdm(total=MINUTE, unit="utterance", file=sys.stdout, leave=False) as bar:
        batches = Batches(model, data, MINUTE)
        train(model, batches, lambda loss: bar.update(batches.heard - bar.n))
    return model


def percent(rate: str | float | None, low=None, high=None) -> str:
    """0.3038 -> "30.4 %", with its interval if there is one; "-" for an empty field."""
    if rate in ("", None):
        return "-"
    ends = "" if low in ("", None) else f" ({100 * float(low):.1f} to {100 * float(high):.1f})"
    return f"{100 * float(rate):.1f} %{ends}"


def model_card(
    name: str,
    model: ASRModel,
    result: Result,
    data: str,
    empty: tuple[int, int],
    against: tuple[str, Comparison] | None = None,
) -> str:
    """A README.md for the hub: what the model is and how good, every number from the measurement.

    Args:
        name: of the repository.
        data: what `result` was measured on, in words.
        empty: transcripts that were empty, of so many clips in which nobody speaks.
        against: another model's name, and the difference to it on the same clips.
    """
    parts = (model.config.encoder, model.config.decoder)
    hub = "".join(f"- {part}\n" for part in parts if not part.startswith(BUNDLED))
    base = f"base_model:\n{hub}" if hub else ""
    untrained = f"\n**Untrained: {', '.join(model.untrained)}.**\n" if model.untrained else ""
    compared = ""
    if against is not None:
        gap = against[1]
        ends = f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
        compared = f"Minus `{against[0]}` on the same clips: {100 * gap.difference:+.1f} points "
        compared += f"({ends}).\n"
    edits = f"{result.substitutions} / {result.deletions} / {result.insertions}"
    wer = percent(result.wer.value, result.wer.low, result.wer.high)
    cells = (data, result.utterances, result.words, result.normalizer, wer, edits)
    return (
        Path(__file__)
        .with_name("model_card.md")
        .read_text("utf-8")
        .format(
            name=name,
            base=base,
            encoder=parts[0],
            decoder=parts[1],
            untrained=untrained,
            cells=" | ".join(map(str, cells)),
            compared=compared,
            dtype=result.dtype,
            shuffled=percent(result.wer_shuffled),
            empty=f"{empty[0]} of {empty[1]}",
        )
    )
