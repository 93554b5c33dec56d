"""How near to the hardware's limit: the work that must be done, over what the machine can do.

No program can be faster than its matrix products at the machine's best rate, or than reading its
weights once at the rate of its memory. Both rates are measured here, in the same run; the work is
counted from the sizes of the models. Then each stage is timed alone and compared with that floor.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import torch
from torch import nn

from tiny_asr.audio import SAMPLE_RATE
from tiny_asr.decoder import choose_token
from tiny_asr.footprint import TEXT_TOKENS_PER_SECOND
from tiny_asr.model import ASRModel

STEPS = 48  # tokens in a measurement of writing
LARGEST = {"cpu": (2048, 1 << 28), "cuda": (8192, 1 << 31)}  # matrix, bytes copied


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
    return time.perf_counter()


class Work:
    """The floating-point operations (FLOPs) and bytes of each stage, by the models' sizes.

    A matrix of N weights costs 2 N FLOPs for each position that it is applied to. Attention of the
    encoder is counted, as its T are many; the decoder's is not, nor norms and activations. Backward
    through a frozen matrix costs as much as forward, and through a trained one twice as much.
    """

    def __init__(self, model: ASRModel):
        config, decoder = model.config, model.decoder
        self.encoder, self.rate = config.encoder_config, config.audio_downsample_rate
        self.encoder_weights = matrices(model.encoder.whisper.layers)
        self.layers = matrices(decoder.layers)
        self.head = decoder.token_embeddings.numel()
        self.projector = matrices(model.audio_projector)
        self.prompt, self.width = decoder.prompt_length, decoder.token_embeddings.element_size()
        text = config.decoder_config
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        self.position_bytes = 2 * text.num_hidden_layers * heads * head_dim * self.width

    def positions(self, seconds: float, tokens: int = 0) -> float:
        """Positions of the decoder for a clip: prompt, audio embeddings and text."""
        return self.prompt + 50 * seconds / self.rate + tokens

    def encode(self, seconds: float) -> float:
        """FLOPs of the encoder for one clip."""
        e, frames = self.encoder, 50 * seconds
        convolutions = 2 * 3 * e.d_model * (2 * e.num_mel_bins + e.d_model) * frames
        attention = 4 * frames**2 * e.d_model * e.encoder_layers
        return convolutions + 2 * self.encoder_weights * frames + attention

    def train(self, seconds: float, tokens: int) -> float:
        """FLOPs of projector and decoder for one clip, there and back."""
        decoder = 4 * self.layers * self.positions(seconds, tokens) + 4 * self.head * tokens
        return decoder + 6 * self.projector * 50 * seconds / self.rate

    def read_prompt(self, seconds: float) -> float:
        """FLOPs of reading prompt and audio."""
        return 2 * self.layers * self.positions(seconds) + 2 * self.head

    def write(self, batch: int, positions: float) -> tuple[float, float]:
        """FLOPs and bytes of one more token for each of a batch: all weights are read once, and
        each row's keys and values."""
        weights = self.layers + self.head
        return 2 * weights * batch, weights * self.width + batch * positions * self.position_bytes


def matrices(module: nn.Module) -> int:
    """Weights of the linear layers inside."""
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


def row(
    stage: str, batch: int, unit: str, count: float, seconds: float, floor: float, **more
) -> dict:
    """One line of the table: `count` units in so many seconds, of which the floor is a share."""
    rates = {"per_second": count / seconds, "floor_per_second": count / floor}
    return {
        "stage": stage,
        "batch": batch,
        "unit": unit,
        **rates,
        "of_floor": floor / seconds,
    } | more


def describe(row: dict) -> str:
    """One line for a terminal."""
    name = f"{row['stage']}, batch {row['batch']}"
    return (
        f"{name:<29}{row['per_second']:>9.1f} {row['unit']}/s, {row['of_floor']:.0%} of the floor"
    )


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

    A transcript has 3.6 tokens a second, as English has with SmolLM3's tokenizer; the end token
    ends nothing.

    Args:
        batches: clips side by side.
        seconds: of each clip; the sound is noise, and the text is not looked at.
    """
    device, work, rate = model.device, Work(model), model.config.audio_downsample_rate
    tokens = round(TEXT_TOKENS_PER_SECOND * seconds)
    multiple = model.config.samples_per_embedding
    samples = round(seconds * SAMPLE_RATE / multiple) * multiple
    rows = []
    for batch in batches:
        waveforms, lengths = torch.randn(batch, samples) * 0.05, torch.full((batch,), samples)
        encoder_output, frames = model.encode_batch(waveforms, lengths)
        spliced = model.decoder.splice(model.audio_projector(encoder_output), frames // rate)
        width = spliced.mask.shape[1]
        memory = model.decoder.memory(batch, width + STEPS)
        own = model.decoder.prompt_length + frames // rate
        memory.read_prompt(spliced.embeddings, own)
        token = spliced.embeddings[:, -1:]

        def listen(waveforms=waveforms, lengths=lengths):
            model.encode_batch(waveforms, lengths)

        def read(memory=memory, embeddings=spliced.embeddings, own=own):
            memory.read_prompt(embeddings, own)

        def write(memory=memory, following=token, width=width):
            memory.column.fill_(width - 1)
            for _ in range(STEPS):
                following = model.decoder.embed(choose_token(memory.read(following))[:, None])

        def all_of_it(waveforms=waveforms):
            with _writing_to_the_limit(model):
                model.generate(list(waveforms), max_new_tokens=tokens)

        times = {}
        for run in (listen, read, write, all_of_it):
            run()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            times[run.__name__] = median(timed(run, device) for _ in range(3)), peak_gib(device)
        flops, moved = work.write(batch, width + STEPS / 2)
        a_step = limits.floor(flops, moved)
        encode = limits.floor(work.encode(seconds) * batch)
        prompt = limits.floor(work.read_prompt(seconds) * batch)
        for stage, unit, count, name, floor in (
            ("encoder", "clips", batch, "listen", encode),
            ("prompt", "clips", batch, "read", prompt),
            ("writing", "tokens", batch * STEPS, "write", STEPS * a_step),
            ("transcription", "s of sound", batch * seconds, "all_of_it",
             encode + prompt + tokens * a_step),
        ):  # fmt: skip
            taken, peak = times[name]
            rows.append(row(stage, batch, unit, count, taken, floor, peak_gib=peak))
            say(describe(rows[-1]))
    return rows


def peak_gib(device: torch.device) -> float | None:
    """The most memory that tensors took, GiB; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
