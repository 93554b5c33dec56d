"""A projector's first training, with fresh sound in every batch and nothing but files on the CPU.

    python -m recipes.first_projector small --encoder ../shared/weights/whisper-tiny.en

writes `pair`, a checkpoint for `tiny-asr train` to go on from (`model: runs/prepare/first/pair`,
`fresh: false`), and `log.csv`. Encoder and decoder are frozen, as always. What differs from
`tiny-asr train` is the sound: it is changed as the tiny encoder's was (`encoder.py`: noise, echo,
masks, bands, speeds, other throats), a whole batch at once on the device. So no clip is heard twice
alike, where a cache holds two versions; the few hours of real speech are else learnt by heart.
"""

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from recipes.encoder import SAMPLE_RATE, Listening, Sources, add_sound_arguments
from recipes.steps import set_learning_rate, share_done
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
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then at the latest")
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
    listening = Listening(sources.noise, bins, torch.Generator(device).manual_seed(a.seed))
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

    @torch.no_grad()
    def measure(dev) -> float:
        """The loss on real speech of speakers never trained on."""
        losses = []
        for rows, *waveforms in dev.in_order():
            sound = listening(*waveforms, False)
            losses += [loss_of(sound, [dev.texts[r] for r in rows], 0.0).item()] * len(rows)
        return float(np.mean(losses))

    began, recent, clips, seconds, done = time.time(), [], 0, 0.0, 0.0
    with open(a.out / "log.csv", "w", newline="") as file:
        log = csv.writer(file, lineterminator="\n")
        log.writerow(("step", "clips", "hours", "seconds", "loss", "loss_dev"))
        for step in range(a.steps):
            source = sources.silent
            while source is sources.silent:  # nothing to write for it
                source = sources.draw(rng)
            rows, *waveforms = source.batch(a.batch_seconds, rng)
            clips += len(rows)
            seconds += float(source.lengths[rows].sum()) / SAMPLE_RATE
            sound = listening(*waveforms, True)
            loss = loss_of(sound, [source.texts[r] for r in rows], a.dropout)
            loss.backward()
            recent.append(loss.detach())
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            done = share_done(step, a.steps, began, a.minutes)
            set_learning_rate(optimizer, a.learning_rate, step, a.warmup, done)
            optimizer.step()
            optimizer.zero_grad()
            if (step + 1) % a.log_every and done < 1:
                continue
            row = {"step": step + 1, "clips": clips, "hours": round(seconds / 3600, 1)}
            row["seconds"] = round(time.time() - began, 1)
            row["loss"] = round(torch.stack(recent).mean().item(), 4)
            row["loss_dev"] = round(measure(sources.dev), 4)
            log.writerow(row.values())
            file.flush()
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            recent = []
            pair.save_pretrained(a.out / "pair")
            if done >= 1:
                break
    print(f"saved {a.out / 'pair'}", flush=True)


if __name__ == "__main__":
    main()
