"""Compiled layers: fewer, larger kernels for the same computation.

Between two matrix products a layer does many small things (norm, rotary positions, activation,
sums), each of which reads and writes all of its input. `torch.compile` makes one kernel of what
lies between two products. Only the layers are compiled, and each kind of them once: they do nearly
all the work, and the code around them may look at its data as it likes. Lengths are left open, so
that another batch needs no other code.
"""

from collections.abc import Callable

import torch

from tiny_asr.kv_cache import KVCache

MOST_VARIANTS = 64  # of one layer's code: with and without gradients, positions, a cache, ...
# Makes the products of one row itself, and tries their kernels in many shapes: they read the
# weights faster than the library's, but to try takes minutes for all the other code.
TUNED: dict[str, str | int | bool | Callable] = {"coordinate_descent_tuning": True}


def compile_layers(model) -> None:
    """Compile the layers of encoder and decoder; the code is made when they first run.

    Args:
        model: an `ASRModel`; changed in place. Its numbers stay the same but for rounding.
    """
    limits = torch._dynamo.config
    name = "recompile_limit" if hasattr(limits, "recompile_limit") else "cache_size_limit"
    setattr(limits, name, MOST_VARIANTS)  # the second is what torch 2.6 calls it
    for layer in model.encoder.whisper.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    for number, layer in enumerate(model.decoder.layers):
        layer.forward = _compiled(layer.forward, number)


def _compiled(forward: Callable, number: int) -> Callable:
    """A layer of the decoder. It is handed its own part of the cache, so that its code is the same
    for all numbers; to write one row's next token it has code of its own."""
    usual = torch.compile(forward, dynamic=True)
    tuned = torch.compile(forward, dynamic=True, options=TUNED)

    def run(hidden_states: torch.Tensor, *args, **kwargs):
        # Some models hand the cache over by name, others by position.
        caches = [given for given in (*args, *kwargs.values()) if isinstance(given, KVCache)]
        code = usual
        for cache in caches:
            if number < len(cache.buffers):
                cache.layer = cache.buffers[number]
            if len(hidden_states) == 1 and not cache.reading_prompt:
                code = tuned
        return code(hidden_states, *args, **kwargs)

    setattr(run, "tuned", TUNED)  # noqa: B010 (see `gpu_step`)
    return run
