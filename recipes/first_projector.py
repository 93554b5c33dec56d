"""A projector's first training, with fresh sound in every batch and nothing but files on the CPU.

    python -m recipes.first_projector small --encoder ../shared/weights/whisper-tiny.en

writes `pair`, a checkpoint for `tiny-asr train` to go on from (`model: runs/prepare/first/pair`,
`fresh: false`), and `log.csv`. Encoder and decoder are frozen, as always. What differs from
`tiny-asr train` is the sound: it is changed as the tiny encoder's was (`encoder.py`: noise, echo,
masks, bands, speeds, other throats), a whole batch at once on the device. So no clip is heard twice
alike, where a cache holds two versions; the few hours of real speech are else learnt by heart.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from recipes.encoder import SAMPLE_RATE, Listening, Sources, add_sound_arguments
from recipes.steps import fit
from recipes.text import WORK
from tiny_asr.model import ASRModel


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a projector with fresh sound throughout.")
    parser.add_argument("model", help="the pair: tiny, small, or a checkpoint's directory")
    parser.add_argument("--encoder", help="a local copy of the encoder")
    parser.add_argument("--fresh", action="store_true", help="begin with new random weights")
    parser.add_argument("--out", type=Path, default=WORK / "first", help="(%(default)s)")
    add_sound_arguments(parser)
    parser.add_argument("--steps", type=int, default=40000)
    parser.add_argument("--batch-seconds", type=float, default=800.0)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.1, help="of the encoder's output")
    parser.add_argument("--log-every", type=int, default=250, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(a.seed)

    began = time.time()
    pair = ASRModel.from_pretrained(a.model, encoder=a.encoder, device=device, dtype=dtype)
    if a.fresh:
        pair.reset_projector(a.seed)
    sources = Sources.load(a, pair.processor.tokenizer, device)
    print(f"hours {sources.hours()}, ready after {time.time() - began:.0f} s", flush=True)
    bins = pair.encoder.whisper.num_mel_bins
    listening = Listening(sources.noise, bins, a.seed)
    weights = list(pair.audio_projector.parameters())
    optimizer = torch.optim.AdamW(
        weights, betas=(0.9, 0.98), weight_decay=a.weight_decay, fused=device.type == "cuda"
    )
    rng = np.random.default_rng(a.seed)

    def loss_of(sound, texts: list[str], dropout: float) -> torch.Tensor:
        """Nats a token."""
        with torch.no_grad():
            frames = pair.encoder(sound.student, 2 * sound.encoder_frames)
        labels = pair.processor.labels(texts).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            frames = F.dropout(frames, dropout)
            lengths = sound.encoder_frames
            return pair(encoder_output=frames, encoder_lengths=lengths, labels=labels).loss

    heard = {"clips": 0, "hours": 0.0}

    def step(number: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        source = sources.silent
        while source is sources.silent:  # nothing to write for it
            source = sources.draw(rng)
        rows, *waveforms = source.batch(a.batch_seconds, rng)
        heard["clips"] += len(rows)
        heard["hours"] += float(source.lengths[rows].sum()) / SAMPLE_RATE / 3600
        loss = loss_of(listening(*waveforms, True), [source.texts[r] for r in rows], a.dropout)
        return loss, {"loss": loss}

    @torch.no_grad()
    def measure() -> dict[str, float]:
        """The loss on real speech of speakers never trained on."""
        losses = []
        for rows, *waveforms in sources.dev.in_order():
            sound = listening(*waveforms, False)
            texts = [sources.dev.texts[r] for r in rows]
            losses += [loss_of(sound, texts, 0.0).item()] * len(rows)
        found = {"clips": heard["clips"], "hours": round(heard["hours"], 1)}
        return found | {"loss_dev": round(float(np.mean(losses)), 4)}

    fit(
        step, measure, lambda: pair.save_pretrained(a.out / "pair"), optimizer=optimizer,
        steps=a.steps, learning_rate=a.learning_rate, warmup=a.warmup, log=a.out / "log.csv",
        columns=("step", "clips", "hours", "seconds", "loss", "loss_dev"), log_every=a.log_every,
    )  # fmt: skip
    print(f"saved {a.out / 'pair'}", flush=True)


if __name__ == "__main__":
    main()
