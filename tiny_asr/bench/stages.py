"""How near to the hardware's limit: the work that must be done, over what the machine can do.

No program can be faster than its matrix products at the machine's best rate, or than reading its
weights once at the rate of its memory. Both rates are measured here, in the same run; the work is
counted from the sizes of the models. Then each stage is timed alone and compared with that floor.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import NamedTuple

import torch

from tiny_asr.bench.flops import Work
from tiny_asr.decoder import choose_token
from tiny_asr.fast.activations import TEXT_TOKENS_PER_SECOND
from tiny_asr.model import ASRModel
from tiny_asr.shapes import SAMPLE_RATE

STEPS = 48  # tokens in a measurement of writing
# The largest matrix, and the bytes copied.
LARGEST = {"cpu": (2048, 1 << 28), "mps": (4096, 1 << 28), "cuda": (8192, 1 << 31)}


class Ceilings(NamedTuple):
    """What this machine can do: floating-point operations and bytes, a second."""

    flops: float
    bytes: float

    def floor(self, flops: float, bytes: float = 0.0) -> float:
        """The seconds that so much work takes at least."""
        return max(flops / self.flops, bytes / self.bytes)


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measure a large matrix product, and a copy (which reads each byte and writes it)."""
    size, count = LARGEST[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = fastest(lambda: a @ b, device)
    source = torch.zeros(count // 4, device=device)
    target = torch.empty_like(source)
    copy = fastest(lambda: target.copy_(source), device)
    return Ceilings(2 * size**3 / product, 2 * count / copy)


def fastest(run: Callable, device: torch.device, rounds: int = 10) -> float:
    """The shortest of some runs, seconds."""
    return min(timed(run, device) for _ in range(rounds))


def timed(run: Callable, device: torch.device) -> float:
    """Seconds until the work is done, and not only queued."""
    started = now(device)
    run()
    return now(device) - started


def now(device: torch.device) -> float:
    """The time, seconds, when all that was queued on a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def work_of(model: ASRModel) -> Work:
    """The work of a model that is loaded, at its precision."""
    width = model.decoder.token_embeddings.element_size()
    return Work(model.config, model.decoder.prompt_length, width)


def row(
    stage: str, batch: int, unit: str, count: float, seconds: float, floor: float, **more
) -> dict:
    """One line of the table: `count` units in so many seconds, of which the floor is a share."""
    rates = {"per_second": count / seconds, "floor_per_second": count / floor}
    about = {"stage": stage, "batch": batch, "unit": unit}
    return about | rates | {"of_floor": floor / seconds} | more


def describe(row: dict) -> str:
    """One line for a terminal."""
    name = f"{row['stage']}, batch {row['batch']}"
    return (
        f"{name:<29}{row['per_second']:>9.1f} {row['unit']}/s, {row['of_floor']:.0%} of the floor"
    )


def tokens_of(seconds: float) -> int:
    """What a transcript has, as English has with SmolLM3's tokenizer: 3.6 tokens a second."""
    return round(TEXT_TOKENS_PER_SECOND * seconds)


@contextmanager
def _writing_to_the_limit(model: ASRModel) -> Iterator[None]:
    """No token ends a transcript."""
    end, model.decoder.end_id = model.decoder.end_id, -1
    try:
        yield
    finally:
        model.decoder.end_id = end


@torch.no_grad()
def stages(
    model: ASRModel,
    limits: Ceilings,
    batches: list[int],
    seconds: float,
    say: Callable[[str], None] = print,
) -> list[dict]:
    """The encoder, reading of the prompt, writing and all of them together, each at some sizes.

    A transcript has `tokens_of(seconds)` tokens; the end token ends nothing.

    Args:
        batches: clips side by side.
        seconds: of each clip; the sound is noise, and the text is not looked at.
    """
    device, rate = model.device, model.config.audio_downsample_rate
    work, tokens = work_of(model), tokens_of(seconds)
    multiple = model.config.samples_per_embedding
    samples = round(seconds * SAMPLE_RATE / multiple) * multiple
    rows = []
    for batch in batches:
        waveforms, lengths = torch.randn(batch, samples) * 0.05, torch.full((batch,), samples)
        encoder_output, frames = model.encode_batch(waveforms, lengths)
        audio = model.audio_projector(encoder_output, frames)
        spliced = model.decoder.splice(audio, frames // rate)
        width = spliced.mask.shape[1]
        own = model.decoder.prompt_length + frames // rate
        token = spliced.embeddings[:, -1:]

        def listen(waveforms=waveforms, lengths=lengths):
            model.encode_batch(waveforms, lengths)

        def read(cache, embeddings=spliced.embeddings, own=own):
            cache.read_prompt(embeddings, own)

        def write(cache, following=token, width=width):
            cache.column.fill_(width - 1)
            for _ in range(STEPS):
                following = model.decoder.embed(choose_token(cache.read(following))[:, None])

        def all_of_it(waveforms=waveforms):
            with _writing_to_the_limit(model):
                model.generate(list(waveforms), max_new_tokens=tokens, end_loops=False)

        with model.decoder.kv_cache(batch, width + STEPS) as cache:
            times = [
                _timing(run, device)
                for run in (listen, partial(read, cache), partial(write, cache))
            ]
        times.append(_timing(all_of_it, device))
        flops, moved = work.write(batch, width + STEPS / 2)
        a_step = limits.floor(flops, moved)
        encode = limits.floor(work.encode(seconds) * batch)
        prompt = limits.floor(work.read_prompt(seconds) * batch)
        together = encode + prompt + tokens * a_step
        for (stage, unit, count, floor), (taken, peak) in zip(
            (
                ("encoder", "clips", batch, encode),
                ("prompt", "clips", batch, prompt),
                ("writing", "tokens", batch * STEPS, STEPS * a_step),
                ("transcription", "s of sound", batch * seconds, together),
            ),
            times,
            strict=True,
        ):
            rows.append(row(stage, batch, unit, count, taken, floor, peak_gib=peak))
            say(describe(rows[-1]))
    return rows


def _timing(run: Callable, device: torch.device) -> tuple[float, float | None]:
    """Median seconds of three runs after a first, and the most memory that they took, GiB."""
    run()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return median(timed(run, device) for _ in range(3)), peak_gib(device)


def peak_gib(device: torch.device) -> float | None:
    """The most memory that tensors took, GiB; None elsewhere."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
