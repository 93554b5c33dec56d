"""Train projectors between a frozen encoder and frozen decoders, all of them at once.

    python -m recipes.ears.projectors --encoder DIR --out runs/prepare/projectors small medium=DIR

`small` joins the encoder to the tiny decoder, `NAME=DIR` to the language model in that folder. The
encoder hears each batch once for all of them. Writes OUT/NAME (a checkpoint) and OUT/log.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from recipes.ears.learn import Sound, Writer, add_arguments, minutes, train_for
from tiny_asr.config import ASRConfig
from tiny_asr.model import ASRModel


def main() -> None:
    parser = argparse.ArgumentParser(description="Train projectors on fresh sound throughout.")
    parser.add_argument("pairs", nargs="+", help="NAME (the tiny decoder) or NAME=DECODER")
    parser.add_argument("--encoder", required=True, help="the frozen encoder")
    parser.add_argument("--rate", type=int, default=4, help="encoder frames an embedding")
    parser.add_argument("--width", type=int, default=2048, help="between the two linear layers")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.1, help="of the encoder's output")
    add_arguments(parser)
    a = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast = device.type == "cuda"
    dtype = torch.bfloat16 if fast else torch.float32
    torch.manual_seed(a.seed)

    writers: dict[str, Writer] = {}
    for pair in a.pairs:
        name, _, decoder = pair.partition("=")
        config = ASRConfig(
            encoder=a.encoder, decoder=decoder or "bundled:tiny-decoder",
            audio_downsample_rate=a.rate, projector_hidden_dim=a.width,
        )  # fmt: skip
        model = ASRModel(config, dtype).to(device)
        writers[name] = Writer(model, a.ctc, a.weight_decay, a.learning_rate)
    first = next(iter(writers.values())).pair
    encoder = first.encoder
    sound = Sound(a, first.config.num_mel_bins, first.config.samples_per_embedding, device)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=fast)
    count = {"clips": 0, "hours": 0.0}

    def frames(heard):
        with torch.no_grad():
            return encoder(heard.heard, heard.mel_frames)

    def step(done: float) -> dict:
        heard, texts = sound.batch()
        count["clips"] += len(texts)
        count["hours"] += float(heard.lengths.sum()) / 16_000 / 3600
        output = F.dropout(frames(heard), a.dropout)
        found: dict = {"total": []}
        for name, writer in writers.items():
            with precision:
                loss, ctc = writer.losses(output, heard.encoder_frames, texts)
            found["total"].append(loss + writer.weight * ctc)
            found |= {f"{name}": loss, f"{name}_ctc": ctc}
        return found

    @torch.no_grad()
    def measure() -> dict[str, float]:
        rates = {"clips": count["clips"], "hours": round(count["hours"], 1)}
        for test in sound.tests:
            losses: dict[str, list[float]] = {name: [] for name in writers}
            for heard, texts in sound.test(test):
                output = frames(heard)
                for name, writer in writers.items():
                    with precision:
                        loss, _ = writer.losses(output, heard.encoder_frames, texts)
                    losses[name].append(loss.item())
            rates |= {f"{name}_{test}": round(float(np.mean(v)), 4) for name, v in losses.items()}
        return rates

    def save() -> None:
        for name, writer in writers.items():
            writer.pair.save_pretrained(a.out / name)

    train_for(
        minutes(a), step, [writer.optimizer for writer in writers.values()], measure, save,
        a.out / "log.csv", a.warmup, a.log_every,
    )  # fmt: skip
    print(f"saved {a.out}", flush=True)


if __name__ == "__main__":
    main()
