"""What a training step keeps in memory, predicted before the first one.

Nothing is kept for the gradients of frozen weights, as they have none, but each layer of the
decoder must remember its activations until the gradient passes through it on its way to the
projector. How many bytes those are is measured on one short clip, by asking PyTorch what it keeps;
they grow with the length of the batch. Where they would not fit, each layer keeps its input only,
and is computed a second time when the gradient comes by (Chen et al. 2016, arXiv:1604.06174).
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tiny_asr.decoder import most_columns
from tiny_asr.device import available_memory_bytes
from tiny_asr.fast.ready_caches import numbers_per_position, ready_bytes
from tiny_asr.shapes import ENCODER_FRAMES_PER_SECOND, SAMPLE_RATE

TEXT_TOKENS_PER_SECOND = 3.6  # of read English, with SmolLM3's tokenizer
SECONDS = 5.0  # of the clip that is measured
EVALUATED_SECONDS = 120.0  # of sound in a batch that `evaluate` writes the text of
SPARE = 0.8  # of the free memory: what is computed at the moment needs room as well


def kept_for_backward(module: nn.Module, compute: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """What `compute` returns, and the bytes of activations that autograd keeps to go back from it.

    The weights and buffers of `module` are there anyway, and not counted.
    """
    # A storage is told by its own address, since on torch's meta device it has no data.
    weights = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = compute()
    return output, sum(kept.values())


def kept_bytes_per_second(model) -> float:
    """Bytes that a training step keeps for the gradient, for each second of audio in its batch.

    Args:
        model: an `ASRModel`, or one that `bench.plan` makes on torch's meta device; one clip of
            random numbers goes through projector and decoder.
    """
    config, device = model.config, model.device
    rate = config.audio_downsample_rate
    frames = round(SECONDS * ENCODER_FRAMES_PER_SECOND) // rate * rate
    encoder_output = torch.randn(1, frames, config.encoder_dim, device=device)
    labels = torch.ones(1, round(SECONDS * TEXT_TOKENS_PER_SECOND), dtype=torch.int64)

    def step() -> Tensor:
        audio = model.audio_projector(encoder_output)
        lengths = torch.tensor([frames // config.audio_downsample_rate])
        logits = model.decoder.text_logits(audio, lengths, labels.to(device))
        return logits.float().logsumexp(-1).sum()

    return kept_for_backward(model, step)[1] / SECONDS


def ready_bytes_between_steps(model) -> int:
    """Bytes of the key-value caches that lie ready on a GPU once a run has been evaluated."""
    decoder, config = model.decoder, model.config
    audio = round(SECONDS * SAMPLE_RATE / config.samples_per_embedding)
    return ready_bytes(
        numbers_per_position(decoder.language_model),
        decoder.token_embeddings.element_size(),
        rows=math.ceil(EVALUATED_SECONDS / SECONDS),
        columns=most_columns(decoder.prompt_length, audio),
    )


def free_bytes(device: torch.device) -> int:
    """What a GPU has left, with what PyTorch holds in reserve."""
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return available_memory_bytes(device) + reserve


def make_it_fit(model, batch_seconds: float) -> str:
    """See whether a batch fits into the memory of the GPU, and save memory where it would not.

    Args:
        batch_seconds: padded seconds of audio in one process's share of a batch.
    Returns:
        A line that says what was found and done.
    """
    need = kept_bytes_per_second(model) * batch_seconds + ready_bytes_between_steps(model)
    free = free_bytes(model.device)
    line = (
        f"memory: a step of {batch_seconds:g} s and caches keep {need / 2**30:.1f} GiB of "
        f"{free / 2**30:.0f}"
    )
    if need < SPARE * free:
        return line
    compute_twice(model.decoder)
    return f"{line}: too many, so each layer keeps its input only and is computed twice"


def compute_twice(decoder) -> None:
    """Let each layer of a `TextDecoder` keep its input only."""
    for layer in decoder.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
