"""Find what CTC needs beside a trained projector: the vector that stands for no token, and a scale.

    python -m recipes.ears.blank tiny
    python -m recipes.ears.blank medium --encoder DIR --decoder DIR --batch 4

Both are trained along with the projector (learn.py) and are not kept there; found again they fit
the mean of weights that is bundled. Encoder, projector and decoder stay as they are. A few hundred
clips of real people are enough, none of them of a speaker who is kept out of training. Writes
ctc.safetensors beside the projector; `tiny_asr.search.ctc` says what it is for.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from recipes.ears.learn import TokenCTC
from recipes.ears.pack import held_out_speakers
from recipes.text import CHECKOUT, SHARED
from tiny_asr.data.dataset import load_data
from tiny_asr.hub import PAIRS
from tiny_asr.model import ASRModel
from tiny_asr.search.ctc import FILE, CTCHead, save_head

SPEECH = ("train-many-voices", "train-accents")


def clips_of(name: str, count: int, seconds: float) -> list:
    """So many clips of a file, drawn from those that are short enough and not kept out."""
    data = list(load_data(SHARED / "speech" / f"{name}.parquet"))
    out = held_out_speakers([clip.groups for clip in data]) if name == "train-accents" else set()
    usable = [c for c in data if c.seconds < seconds and c.groups["speaker"] not in out]
    return random.sample(usable, min(count, len(usable)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Find CTC's blank and scale for a trained pair.")
    parser.add_argument("model", help="tiny, small or medium, or a directory")
    parser.add_argument("--encoder", help="a local copy of the encoder")
    parser.add_argument("--decoder", help="a local copy of the decoder")
    parser.add_argument("--clips", type=int, default=400, help="of each of two files")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16, help="clips in a step")
    a = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    started = time.monotonic()
    model = ASRModel.from_pretrained(a.model, encoder=a.encoder, decoder=a.decoder)
    pairs = []
    for clip in (c for name in SPEECH for c in clips_of(name, a.clips, model.config.max_seconds)):
        embeddings, _ = model._listen([clip.load()])
        labels = model.processor.labels([clip.text])[0].tolist()
        pairs.append((embeddings[0], labels[:-1]))
    print(f"{len(pairs)} clips heard in {time.monotonic() - started:.0f} s", flush=True)
    search = TokenCTC(model.decoder.token_embeddings)
    optimizer = torch.optim.Adam(search.parameters(), lr=0.03)
    rates = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, a.steps)
    for step in range(a.steps):
        heard, texts = zip(*random.sample(pairs, a.batch), strict=True)
        lengths = torch.tensor([len(one) for one in heard])
        loss = search(pad_sequence(list(heard), batch_first=True), lengths, list(texts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        if step % 20 == 0 or step == a.steps - 1:
            scale = search.scale.exp().item()
            print(f"step {step}: {loss.item():.3f} nats a token, scale {scale:.1f}", flush=True)
    head = CTCHead(model.decoder.token_embeddings)
    head.blank = normalize(search.nothing.detach(), dim=0)
    head.scale = search.scale.detach().exp()
    bundled = CHECKOUT / "data" / "models" / f"{a.model}-asr"
    file = (bundled if a.model in PAIRS else Path(a.model)) / FILE
    save_head(head, file)
    print(f"{file} after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
