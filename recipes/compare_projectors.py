"""Train every kind of projector on the same clips for as long, and compare: a table.

    python -m recipes.compare_projectors --model tiny --utterances 6000
    python -m recipes.compare_projectors --model medium --data SPEECH.parquet MORE.parquet \
        --eval-data DEV.parquet --utterances 250000 --hidden-dim 2048 --out runs/projectors

The encoder's outputs are cached once and used by all. Each projector starts from the same seed,
hears the same batches in the same order at the same rates, and its last weights are evaluated (none
is chosen by the clips that it is measured on). What is equal is the number of utterances; numbers
of parameters and seconds stand beside the result. A projector whose line is in the table already is
left out, so a comparison that was interrupted goes on where it stopped.

Writes OUT/projectors.csv, OUT/projectors.md, and a run's folder for each.
"""

import argparse
import csv
import shutil
from pathlib import Path

from recipes.text import CHECKOUT
from tiny_asr.config import ASRConfig
from tiny_asr.data.dataset import load_data
from tiny_asr.device import choose_device
from tiny_asr.evaluation.score import evaluate
from tiny_asr.model import ASRModel
from tiny_asr.projectors.registry import PROJECTORS
from tiny_asr.training.log import read_log
from tiny_asr.training.settings import TrainingSettings
from tiny_asr.training.trainer import Trainer

SPEECH = CHECKOUT / "data" / "speech"
COLUMNS = (
    "projector", "parameters", "utterances", "loss", "wer", "wer_low", "wer_high", "seconds",
    "model", "clips", "learning_rate", "seed", "device",
)  # fmt: skip


def compare(name: str, a: argparse.Namespace) -> dict:
    """Train one kind of projector and measure it: a line of the table."""
    out, choice = a.out / name, choose_device(a.device, a.dtype)
    if out.exists():  # broken off: of unlike lengths nothing can be compared
        shutil.rmtree(out)
    config = ASRConfig.from_pretrained(a.model, encoder=a.encoder, decoder=a.decoder)
    config = config.with_parts(projector=name)
    config.fresh_projector = True
    config.projector_hidden_dim = a.hidden_dim or config.projector_hidden_dim
    model = ASRModel.from_pretrained(
        a.model, config=config, dtype=choice.dtype, device=choice.device
    )
    settings = TrainingSettings(
        data=a.data,
        out=str(out),
        model=a.model,
        encoder=a.encoder,
        decoder=a.decoder,
        projector=name,
        fresh=True,
        limit=a.limit,
        max_utterances=a.utterances,
        batch_seconds=a.batch_seconds,
        learning_rate=a.learning_rate,
        warmup_utterances=min(1000, a.utterances // 10),
        eval_every=a.utterances,
        save_every=a.utterances,
        log_every=max(1, a.utterances // 40),
        cache=str(a.cache or a.out / "cache"),
        seed=a.seed,
        device=a.device,
        dtype=a.dtype,
        compile=a.compile,
    )
    trainer = Trainer(settings, model=model)
    state = trainer.train()
    result = evaluate(model, load_data(a.eval_data, limit=a.eval_limit))
    return {
        "projector": name,
        "parameters": sum(weight.numel() for weight in model.audio_projector.parameters()),
        "utterances": state.utterances,
        "loss": round(read_log(out / "log.csv")[-1]["loss"], 4),
        "wer": round(result.wer.value, 4),
        "wer_low": round(result.wer.low, 4),
        "wer_high": round(result.wer.high, 4),
        "seconds": round(state.seconds),
        "model": a.model,
        "clips": result.utterances,
        "learning_rate": a.learning_rate,
        "seed": a.seed,
        "device": result.device,
    }


def markdown(rows: list[dict]) -> str:
    """The table for a page, the best first."""
    lines = ["| projector | parameters | loss | WER | 95 % interval |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: float(row["wer"])):
        million, loss = int(row["parameters"]) / 1e6, float(row["loss"])
        wer, low, high = (100 * float(row[key]) for key in ("wer", "wer_low", "wer_high"))
        interval = f"{low:.1f} to {high:.1f}"
        lines.append(
            f"| `{row['projector']}` | {million:.2f} M | {loss:.2f} | {wer:.1f} % | {interval} |"
        )
    about = rows[0]
    lines += [
        "",
        f"`{about['model']}`, {about['utterances']} utterances at {about['learning_rate']}, seed "
        f"{about['seed']}; WER on {about['clips']} clips; {about['device']}.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Compare all kinds of projectors.")
    parser.add_argument("--model", default="tiny", help="a pair, a directory or a hub id")
    parser.add_argument("--encoder", help="a local copy of the encoder, say")
    parser.add_argument("--decoder", help="a local copy of the decoder, say")
    parser.add_argument("--data", nargs="+", default=[str(SPEECH / "train.parquet")])
    parser.add_argument("--eval-data", default=str(SPEECH / "dev.parquet"))
    parser.add_argument("--projectors", nargs="+", default=list(PROJECTORS), choices=PROJECTORS)
    parser.add_argument("--utterances", type=int, default=40_000, help="seen by each of them")
    parser.add_argument("--limit", type=int, help="the first so many clips to train on only")
    parser.add_argument("--eval-limit", type=int, help="... to evaluate on only")
    parser.add_argument("--hidden-dim", type=int, help="of all of them; the model's, if not given")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--compile", action="store_true", help="for long runs on a GPU")
    parser.add_argument("--cache", type=Path, help="of encoder outputs; OUT/cache")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "runs" / "projectors")
    a = parser.parse_args(arguments)
    a.out.mkdir(parents=True, exist_ok=True)
    table, rows = a.out / "projectors.csv", []
    if table.is_file():
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    for name in a.projectors:
        if any(row["projector"] == name for row in rows):
            print(f"{name}: is in {table} already; delete its line to do it again")
            continue
        rows.append(compare(name, a))
        with open(table, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        (a.out / "projectors.md").write_text(markdown(rows), encoding="utf-8")
    print(markdown(rows))


if __name__ == "__main__":
    main()
