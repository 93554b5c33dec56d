"""Train projectors between a frozen encoder and frozen decoders, all of them at once.

    python -m recipes.ears.projectors --encoder DIR --out runs/prepare/projectors small medium=DIR

`small` joins the encoder to the tiny decoder, `NAME=DIR` to the language model in that folder;
after NAME, `:KIND` and `:KIND:WIDTH` choose another projector (`heard:convolution:1408`). The
encoder hears each batch once for all of them. Writes OUT/NAME (a checkpoint) and OUT/log.csv.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.ears.learn import Run, Writer, add_arguments
from recipes.ears.scene import Heard
from tiny_asr.config import ASRConfig
from tiny_asr.model import ASRModel

# Of the scenes. A frozen encoder learns nothing by heart, so people may be heard oftener.
SHARES = {
    "natural": 0.42, "novels": 0.20, "orders": 0.07, "studio": 0.05, "accents": 0.20,
    "robots": 0.06,
}  # fmt: skip


class Training(Run):
    """The frozen encoder, a writer for each pair, and a step in which all of them learn."""

    def __init__(self, a: argparse.Namespace):
        super().__init__(a)
        self.writers = dict(map(self.writer, a.pairs))
        first = next(iter(self.writers.values())).pair
        self.encoder = first.encoder
        self.listen(SHARES, first.config.num_mel_bins, first.config.samples_per_embedding)
        self.optimizers = [writer.optimizer for writer in self.writers.values()]

    def writer(self, pair: str) -> tuple[str, Writer]:
        """The name and the writer of NAME[:KIND[:WIDTH]][=DECODER]."""
        a, (name, _, decoder) = self.arguments, pair.partition("=")
        name, kind, width = (*name.split(":"), "", "")[:3]
        config = ASRConfig(
            encoder=a.encoder, decoder=decoder or "bundled:tiny-decoder",
            audio_downsample_rate=a.rate, projector_type=kind or "mlp",
            projector_hidden_dim=int(width or a.width),
        )  # fmt: skip
        model = ASRModel(config, self.dtype).to(self.device)
        if begins := dict(one.split("=", 1) for one in a.init).get(name):
            model.audio_projector.load(Path(begins) / "model.safetensors")
        return name, Writer(model, a.ctc, a.weight_decay, a.learning_rate)

    def frames(self, heard: Heard) -> Tensor:
        """The encoder's output, (B, T, encoder_dim)."""
        with torch.no_grad():
            return self.encoder(heard.heard, heard.mel_frames)

    def step(self, done: float) -> dict:
        """The losses of the next batch."""
        heard, texts = self.next_batch()
        output = F.dropout(self.frames(heard), self.arguments.dropout)
        found: dict = {"total": []}
        for name, writer in self.writers.items():
            with self.precision:
                loss, ctc = writer.losses(output, heard.encoder_frames, texts)
            found["total"].append(loss + writer.weight * ctc)
            found |= {name: loss, f"{name}_ctc": ctc}
        return found

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Nats a token of each pair on each test, and how much was heard so far."""
        rates = self.heard_so_far()
        for test in self.sound.tests:
            losses: dict[str, list[float]] = {name: [] for name in self.writers}
            for heard, texts in self.sound.test(test):
                output = self.frames(heard)
                for name, writer in self.writers.items():
                    with self.precision:
                        loss, _ = writer.losses(output, heard.encoder_frames, texts)
                    losses[name].append(loss.item())
            rates |= {f"{name}_{test}": round(float(np.mean(v)), 4) for name, v in losses.items()}
        return rates

    def save(self) -> None:
        """A checkpoint of each pair."""
        for name, writer in self.writers.items():
            writer.pair.save_pretrained(self.arguments.out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train projectors on fresh sound throughout.")
    parser.add_argument("pairs", nargs="+", help="NAME (the tiny decoder) or NAME=DECODER")
    parser.add_argument("--init", nargs="*", default=[], metavar="NAME=FOLDER", help="begin there")
    parser.add_argument("--encoder", required=True, help="the frozen encoder")
    parser.add_argument("--rate", type=int, default=4, help="encoder frames an embedding")
    parser.add_argument("--width", type=int, default=2048, help="between the two linear layers")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.1, help="of the encoder's output")
    add_arguments(parser)
    Training(parser.parse_args()).train()


if __name__ == "__main__":
    main()
