"""What products in 8 bits cost a trained pair: loss, gradient, and the errors after training on.

    python -m recipes.fp8_check medium --data runs/prepare/packs/dev.json --train 200 --compile
    python -m recipes.fp8_check tiny --data data/speech/dev.parquet --clips 16  # imitated on a CPU

The first `--clips` are the test: loss and the projector's gradient in float32, in the device's own
format, and in that with 8 bits. On the rest the projector is trained on, with and without, in the
same order; both are then tested without. Where there is no jiwer, the texts wait in `--out` for
`--score` on another machine.
"""

import argparse
import json
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from recipes.ears.bank import read_pack
from tiny_asr.audio import pad_batch
from tiny_asr.device import choose_device, send
from tiny_asr.fast.compiling import compile_layers
from tiny_asr.fast.fp8 import replace, use_fp8
from tiny_asr.model import ASRModel
from tiny_asr.shapes import MAX_SECONDS, SAMPLE_RATE


def clips_of(path: Path, limit: int | None) -> list[tuple[str, Tensor]]:
    """Texts and sounds (S,) of a pack (see `ears.pack`), or of what `tiny-asr evaluate` takes."""
    if path.suffix == ".json":
        texts, sounds = read_pack(path, workers=8)
        clips = zip(texts, (torch.from_numpy(sound / 32767).float() for sound in sounds))  # noqa: B905
    else:
        from tiny_asr.data.dataset import load_data  # wants pyarrow

        clips = ((clip.text, clip.load()) for clip in load_data(str(path), limit=limit))
    fit = (clip for clip in clips if clip[0] and len(clip[1]) < MAX_SECONDS * SAMPLE_RATE)
    return list(islice(fit, limit))


def batched(clips: list, size: int) -> list[list]:
    """So many of like length together, in an order that is always the same."""
    clips = sorted(clips, key=lambda clip: len(clip[1]))
    batches = [clips[first : first + size] for first in range(0, len(clips), size)]
    return [batches[place] for place in np.random.default_rng(0).permutation(len(batches))]


def loss_of(model: ASRModel, batch: list[tuple[str, Tensor]]) -> Tensor:
    """Nats a token."""
    texts, sounds = zip(*batch, strict=True)
    padded, samples = pad_batch(list(sounds), model.config.samples_per_embedding)
    with torch.no_grad():
        frames, lengths = model.encode_batch(padded, samples)
    labels, dtype = send(model.processor.labels(texts), model.device), model.encoder.dtype
    with torch.autocast(model.device.type, dtype, dtype is not torch.float32):
        return model(encoder_output=frames, encoder_lengths=lengths, labels=labels).loss


def gradient_of(model: ASRModel, batches: list[list]) -> tuple[float, Tensor]:
    """The mean loss of the batches, and its gradient for the projector as one vector."""
    losses = []
    for batch in batches:
        losses.append(loss_of(model, batch) / len(batches))
        losses[-1].backward()
    gradients = [p.grad.flatten() for p in model.audio_projector.parameters() if p.grad is not None]
    return sum(loss.item() for loss in losses), torch.cat(gradients).double().cpu()


def train(model: ASRModel, batches: list[list], steps: int, rate: float) -> dict[str, Tensor]:
    """The projector's weights after so many steps."""
    optimizer = torch.optim.AdamW(model.audio_projector.parameters(), lr=rate, betas=(0.9, 0.95))
    for batch in islice(cycle(batches), steps):
        loss_of(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.audio_projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.audio_projector.state_dict()


def score(found: dict) -> None:
    """Add the WER after both trainings, and its difference with a 95 % interval."""
    from tiny_asr.evaluation.score import Row, paired_bootstrap  # wants jiwer
    from tiny_asr.evaluation.score import score as measure

    results = {}
    for name, run in found["trained"].items():
        pairs = enumerate(zip(found["references"], run["texts"], strict=True))
        rows = [Row(str(number), *pair, seconds=1.0) for number, pair in pairs]
        results[name] = measure(rows, seconds_elapsed=None, device="", dtype=name)
        run["wer"] = results[name].wer.value
    found["wer_difference"] = vars(paired_bootstrap(results["fp8"], results["plain"]))


def report(found: dict, out: Path) -> None:
    """Write all, print the numbers as JSON and as a table."""
    if "trained" in found:
        try:
            score(found)
        except ImportError as error:
            print(f"{error}: no errors counted here; expected jiwer: use --score elsewhere")
    out.write_text(json.dumps(found, indent=2), encoding="utf-8")
    print(json.dumps({k: v for k, v in found.items() if k not in ("references", "trained")}))
    for name, row in found["tested"].items():
        print(f"{name:<9}loss {row['loss']:.4f}, gradient off by {row['off']:.2%}, "
              f"cosine {row['cosine']:.5f}")  # fmt: skip
    for name, run in found.get("trained", {}).items():
        print(f"trained {name:<9}loss {run['loss']:.4f}, WER {run.get('wer', float('nan')):.2%}")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description="What 8 bits cost.")
    parser.add_argument("model", nargs="?", default="tiny", help="a pair, or a directory")
    parser.add_argument("--encoder", help="a local copy of the encoder")
    parser.add_argument("--decoder", help="a local copy of the decoder")
    parser.add_argument("--data", type=Path, default=Path("data/speech/dev.parquet"))
    parser.add_argument("--limit", type=int, help="the first so many clips only")
    parser.add_argument("--clips", type=int, default=64, help="to test on")
    parser.add_argument("--batch", type=int, default=16, help="clips")
    parser.add_argument("--train", type=int, default=0, help="steps")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--compile", action="store_true", help="in training")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("fp8.json"))
    parser.add_argument("--score", action="store_true", help="only count the errors in --out")
    a = parser.parse_args()
    if a.score:
        report(json.loads(a.out.read_text(encoding="utf-8")), a.out)
        return
    device, own, _ = choose_device(a.device)
    clips = clips_of(a.data, a.limit if a.train else a.clips)
    test, rest = clips[: a.clips], batched(clips[a.clips :], a.batch)
    tests, tested, trained = batched(test, a.batch), dict[str, dict](), dict[str, dict]()

    def load(dtype: torch.dtype, fp8: bool = False) -> ASRModel:
        parts = {"encoder": a.encoder, "decoder": a.decoder}
        model = ASRModel.from_pretrained(a.model, **parts, dtype=dtype, device=str(device))
        if fp8 and device.type == "cuda":
            print(use_fp8(model))
        elif fp8:  # imitated
            replace(model.encoder.whisper.layers, False), replace(model.decoder.layers, True)
        return model

    exact = None
    for name, dtype in (("float32", torch.float32), ("plain", own), ("fp8", own)):
        loss, gradient = gradient_of(load(dtype, name == "fp8"), tests)
        exact = gradient if exact is None else exact
        off = ((gradient - exact).norm() / exact.norm()).item()
        cosine = torch.cosine_similarity(gradient, exact, dim=0).item()
        tested[name] = {"loss": loss, "off": off, "cosine": cosine}
    found = {"model": a.model, "data": str(a.data), "steps": a.train, "tested": tested}
    for name in ("plain", "fp8") if a.train else ():
        model = load(own, name == "fp8")
        if a.compile:
            compile_layers(model)
        weights, model = train(model, rest, a.train, a.learning_rate), load(own)
        model.audio_projector.load_state_dict(weights)
        with torch.no_grad():
            loss = sum(loss_of(model, batch).item() for batch in tests) / len(tests)
        texts = model.transcribe([sound for _, sound in test], SAMPLE_RATE)
        trained[name] = {"loss": loss, "texts": texts}
    if trained:
        found |= {"trained": trained, "references": [text for text, _ in test]}
    report(found, a.out)


if __name__ == "__main__":
    main()
