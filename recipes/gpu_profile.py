"""Where the time of training and of writing goes: by kinds of kernels, beside the work counted.

    python -m recipes.gpu_profile                                     # the pair tiny, here
    python -m recipes.gpu_profile full --random-weights --compile --out profile.json

Each measurement runs some steps under torch.profiler, and the same ones without it, for the time.
The floor is what `tiny_asr.bench.flops` counts over what the machine can do; idle is the time of a
step in which no kernel runs (on a CPU: in which Python runs). Writing is measured on each way that
a step can take: see `tiny_asr.fast.gpu_step`.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile

from tiny_asr.bench.random_pair import write_random_pair
from tiny_asr.bench.stages import Ceilings, ceilings, now, timed, tokens_of, work_of
from tiny_asr.decoder import choose_token
from tiny_asr.device import choose_device
from tiny_asr.fast.compiling import compile_layers
from tiny_asr.fast.fp8 import use_fp8
from tiny_asr.fast.gpu_step import WAY
from tiny_asr.model import ASRModel
from tiny_asr.shapes import SAMPLE_RATE

KINDS = {  # parts of a kernel's or operation's name, the first kind that fits
    "attention": ("attend", "flash", "fmha", "attention", "mem_eff"),
    "products": ("gemm", "nvjet", "cutlass", "gemv", "splitk", "::mm", "addmm", "::bmm", "conv"),
    "copies": ("memcpy", "memset", "copy", "clone", "::cat", "index_put", "::fill_"),
}
OTHER = "elementwise"  # norms, sums, activations; also products of one row that inductor makes
SECONDS = 12.0  # of each clip


def kind_of(name: str) -> str:
    """The kind of a kernel (or, on a CPU, of an operation)."""
    name = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(p in name for p in parts)), OTHER)


def by_kind(run: Callable, steps: int, device: torch.device) -> dict:
    """Milliseconds of one of the steps that `run` makes: in all, of each kind, and idle."""
    run()
    whole = min(timed(run, device) for _ in range(3))
    gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as found:
        run()
        now(device)
    kinds, kernels = dict.fromkeys((*KINDS, OTHER), 0.0), 0
    names: dict[str, float] = {}
    for event in found.key_averages():
        time = event.self_device_time_total if gpu else event.self_cpu_time_total
        if time > 0 and (not gpu or event.device_type != torch.autograd.DeviceType.CPU):
            kinds[kind_of(event.key)] += time / 1000 / steps
            names[event.key[:90]] = time / 1000 / steps
            kernels += event.count
    whole *= 1000 / steps
    longest = dict(sorted(names.items(), key=lambda pair: -pair[1])[:8])
    idle = max(0.0, whole - sum(kinds.values()))
    return {"ms": whole, **kinds, "idle": idle, "kernels": kernels / steps, "longest": longest}


def writing(model: ASRModel, limits: Ceilings, rows: int, steps: int) -> dict:
    """One more token for each of so many clips of 12 s."""
    decoder, device = model.decoder, model.device
    width = decoder.prompt_length + round(10 * SECONDS)
    embeddings = decoder.some_embeddings(width)[:width].expand(rows, -1, -1)
    width = embeddings.shape[1]
    decoder.ready_caches.ready.clear()  # one that was recorded on another way
    with torch.no_grad(), decoder.kv_cache(rows, width + steps) as cache:
        cache.read_prompt(embeddings, torch.full((rows,), width))

        def run() -> None:
            cache.column.fill_(width)
            token = embeddings[:, -1:]
            for _ in range(steps):
                token = decoder.embed(choose_token(cache.read(token))[:, None])

        found = by_kind(run, steps, device)
    found["step"] = type(cache.lean).__name__ if cache.lean else "library"
    floor = limits.floor(*work_of(model).write(rows, width + steps / 2))
    return found | {"floor": 1000 * floor, "per_second": 1000 * rows / found["ms"]}


def training(model: ASRModel, limits: Ceilings, clips: int, steps: int) -> dict:
    """Log-mel, encoder, projector and decoder there, and the last two back, for clips of 4 to 20 s,
    12 on average; no loading, no optimiser."""
    device, tokens, multiple = model.device, tokens_of(SECONDS), model.config.samples_per_embedding
    seconds = torch.linspace(4, 2 * SECONDS - 4, clips) if clips > 1 else torch.full((1,), SECONDS)
    lengths = (seconds * SAMPLE_RATE / multiple).long() * multiple
    waveforms = 0.05 * torch.randn(clips, int(lengths.max()))
    labels = torch.randint(5, 500, (clips, tokens), device=device)

    def run() -> None:
        for _ in range(steps):
            frames, own = model.encode_batch(waveforms, lengths)
            with torch.autocast(device.type, model.dtype, model.dtype is not torch.float32):
                output = model(encoder_output=frames, encoder_lengths=own, labels=labels)
            output.loss.backward()
            model.audio_projector.zero_grad()

    work = work_of(model)
    flops = sum(
        work.encode(length) + work.train_projector(length) + work.train_decoder(length, tokens)
        for length in seconds.tolist()
    )
    found = by_kind(run, steps, device)
    return found | {"floor": 1000 * limits.floor(flops), "per_second": 1000 * clips / found["ms"]}


def table(rows: dict[str, dict]) -> str:
    """Milliseconds of a step, for a terminal of 80 columns."""
    columns = ("ms", "floor", *KINDS, OTHER, "idle", "kernels")
    titles = ("all", "floor", "attend", "matrix", "copies", "others", "idle", "count")
    lines = [f"{'one step, ms':<19}" + "".join(f"{title:>7}" for title in titles)]
    for name, row in rows.items():
        shown = (f"{row[c]:>7.{0 if c == 'kernels' else 2}f}" for c in columns)
        lines.append(f"{name[:19]:<19}" + "".join(shown))
    return "\n".join(lines)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description="Where the time goes.")
    parser.add_argument("model", nargs="?", default="tiny", help="a pair, or a directory")
    parser.add_argument("--random-weights", action="store_true", help="of the model's sizes")
    parser.add_argument("--compile", action="store_true", help="compile the layers")
    parser.add_argument("--fp8", action="store_true", help="frozen matrices in 8 bits; to train")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 16, 128])
    parser.add_argument("--ways", nargs="+", default=["lean", "plain", "library"])
    parser.add_argument("--clips", type=int, default=34, help="in a training step; 0: none")
    parser.add_argument("--steps", type=int, default=16, help="of writing")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="a JSON file, written again after each part")
    a = parser.parse_args()
    device, dtype, _ = choose_device(a.device)
    with TemporaryDirectory() as folder:
        name = a.model
        if a.random_weights:
            name = str(write_random_pair(f"{folder}/pair", a.model, device, dtype))
        model = ASRModel.from_pretrained(name, device=str(device), dtype=dtype)
    if a.fp8:
        print(use_fp8(model), flush=True)
    if a.compile:
        compile_layers(model)
    limits, rows = ceilings(device, dtype), dict[str, dict]()

    def keep(name: str, row: dict) -> None:
        rows[name] = row
        print(f"{name}: {row['ms']:.2f} ms, {row['per_second']:.0f}/s", flush=True)
        if a.out is not None:
            a.out.write_text(json.dumps(rows, indent=2))

    for number, way in enumerate(a.ways if device.type == "cuda" else a.ways[:1]):
        WAY["step"] = way
        for batch in a.batch:
            keep(f"write {batch} {way}", writing(model, limits, batch, a.steps))
        if number == 0 and a.clips:  # the rest matters less, should the time run out
            keep(f"train {a.clips}", training(model, limits, a.clips, 2))
    print(table(rows))


if __name__ == "__main__":
    main()
