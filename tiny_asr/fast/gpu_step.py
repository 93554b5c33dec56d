"""One step of writing on a GPU, in as few kernels as it takes.

A step reads all weights for a few rows, so that what stands between the matrix products costs as
much as they do. Here queries, keys and values come from one product, gate and up of the MLP from
another, attention is one kernel (`step_attention`), and what lies between two layers' attentions is
one function, compiled once for all layers when the model is (`compiling`).
"""

import logging
import os
from collections.abc import Callable
from functools import cache as once
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiny_asr.fast.graphs import RecordedStep
from tiny_asr.fast.lean_step import has_hooks, is_known, is_watched, rotate

log = logging.getLogger("tiny_asr")

# lean: as above; plain: with PyTorch's attention; library: the model's own step. To measure each.
WAY = {"step": os.environ.get("TINY_ASR_STEP", "lean"), "prompt": "recorded"}
FEW = 1024  # positions: to start the kernels of a prompt with more takes less time than they do
PROMPTS = 32  # columns: prompts are padded to whole ones of these before they are recorded


class GPUStep:
    """Reads one embedding a row, with the keys and values of a `KVCache`.

    Args:
        language_model: one that `fits_gpu`; its matrices become parts of joined ones.
    """

    def __init__(self, language_model: Any):
        body = language_model.model
        self.rotary, self.layers = body.rotary_emb, list(body.layers)
        self.tuned = tuning_of(self.layers[0])
        self.attend, self.prompts = torch_attention, dict[int, RecordedStep]()
        if WAY["step"] == "lean" and language_model.device.type == "cuda":
            try:
                from tiny_asr.fast.step_attention import attend

                self.attend = attend
            except ImportError as error:  # no triton
                log.warning("writing is slower here than it could be: %s", error)
        self.into, self.gate_up = [], []  # a norm and the matrix behind it
        for layer in self.layers:
            a, mlp = layer.self_attn, layer.mlp
            self.into.append((layer.input_layernorm, joined(a.q_proj, a.k_proj, a.v_proj)))
            self.gate_up.append(joined(mlp.gate_proj, mlp.up_proj))
        self.into.append((body.norm, language_model.lm_head.weight))

    def __call__(self, embedding: Tensor, cache) -> Tensor:
        """(B, 1, llm_dim) -> the logits (B, V) of what comes next; `cache.column` stays."""
        x = embedding[:, 0]
        cos, sin = (turn[:, 0].contiguous() for turn in self.rotary(x, cache.column[:, None]))
        between = _between
        if self.tuned is not None:
            between = _compiled(len(x) == 1, tuple(self.tuned.items()))
        norm, matrix = self.into[0]
        new = F.linear(rms_norm(x, norm.weight, norm.variance_epsilon), matrix)
        for number, (layer, (keys, values)) in enumerate(
            zip(self.layers, cache.buffers, strict=True)
        ):
            rope = bool(getattr(layer.self_attn, "use_rope", True))
            scale = layer.self_attn.scaling
            seen = self.attend(new, cos, sin, keys, values, cache.column, scale, rope)
            norm, matrix = self.into[number + 1]
            x, new = between(
                x, seen, layer.self_attn.o_proj.weight, layer.post_attention_layernorm.weight,
                self.gate_up[number], layer.mlp.down_proj.weight, norm.weight, matrix,
                norm.variance_epsilon,
            )  # fmt: skip
        return new

    def read_prompt(self, embeddings: Tensor, cache) -> Tensor:
        """(B, W, llm_dim) -> logits (B, V) after the last position, by the model's own layers,
        recorded; what a row is padded with, no position before it sees."""
        width = embeddings.shape[1]
        wide = min(-(-width // PROMPTS) * PROMPTS, cache.columns)
        padded = F.pad(embeddings, (0, 0, 0, wide - width))

        def read(x: Tensor) -> Tensor:
            turns = self.rotary(x, torch.arange(wide, device=x.device)[None])
            for layer in self.layers:
                x = layer(x, attention_mask=None, position_embeddings=turns, past_key_values=cache)
            return x

        if wide not in self.prompts:
            self.prompts[wide] = RecordedStep(read, padded, cache.column)
        norm, matrix = self.into[-1]
        last = self.prompts[wide](padded)[:, width - 1]
        return F.linear(rms_norm(last, norm.weight, norm.variance_epsilon), matrix)


def recorded_prompt(cache, embeddings: Tensor) -> Tensor | None:
    """The logits after a short prompt, by a step that is recorded; None where there is no such.

    Args:
        cache: a `KVCache` that has its buffers.
    """
    few = embeddings.shape[0] * embeddings.shape[1] <= FEW
    if not (few and isinstance(cache.lean, GPUStep) and WAY["prompt"] == "recorded"):
        return None
    try:
        return cache.lean.read_prompt(embeddings, cache)
    except Exception as error:
        log.warning("no prompt can be recorded here, so none will be: %s", error)
        WAY["prompt"] = "library"
        return None


def or_the_librarys(cache, record: Callable, embedding: Tensor) -> RecordedStep:
    """A `KVCache`'s step, recorded; where `GPUStep` fails, it says so, and takes the library's."""
    column = cache.column.clone()
    try:
        return record(cache._step, embedding, cache.column)
    except Exception as error:
        if not isinstance(cache.lean, GPUStep):
            raise
        log.warning("the lean step fails here, so the library's is taken: %s", error)
        cache.lean, WAY["step"] = None, "library"
        cache.column.copy_(column)
        return record(cache._step, embedding, cache.column)


def _between(x, seen, o, norm, gate_up, down, next_norm, next_matrix, eps: float):
    """From one attention to the next: what is added up (B, llm_dim), and the next products."""
    x = x + F.linear(seen, o)
    h = rms_norm(x, norm, eps)
    if len(x) == 1:  # compiled, two products of one row and what follows are one kernel
        gate, up = (F.linear(h, half) for half in gate_up.chunk(2))
    else:
        gate, up = F.linear(h, gate_up).chunk(2, dim=-1)
    x = x + F.linear(F.silu(gate) * up, down)
    return x, F.linear(rms_norm(x, next_norm, eps), next_matrix)


@once
def _compiled(one_row: bool, tuned: tuple):
    return torch.compile(_between, options=dict(tuned) if one_row else None)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean x^2 + eps) times weight; all but the weight in float32, as the models do."""
    wide = x.float()
    return weight * (wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()).to(x.dtype)


def torch_attention(
    new: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, column: Tensor,
    scale: float, rope: bool,
) -> Tensor:  # fmt: skip
    """What `step_attention.attend` does, by PyTorch's attention over all columns."""
    rows, kv_heads, columns, dim = keys.shape
    q, k, v = new.view(rows, -1, dim).tensor_split([-2 * kv_heads, -kv_heads], dim=1)
    if rope:
        turned = rotate(torch.cat([q, k], dim=1), cos[:, None], sin[:, None])
        q, k = turned.tensor_split([-kv_heads], dim=1)
    own = torch.arange(rows, device=column.device)
    keys[own, :, column], values[own, :, column] = k, v
    mask = torch.arange(columns, device=column.device) <= column[:, None]
    # Queries that share their keys come as if they were positions: no copies.
    shared = q.reshape(rows, kv_heads, -1, dim)
    mask = mask[:, None, None].expand(-1, -1, shared.shape[2], -1)
    seen = F.scaled_dot_product_attention(shared, keys, values, attn_mask=mask, scale=scale)
    return seen.reshape(rows, -1)


def joined(*linears: nn.Linear) -> Tensor:
    """One matrix (sum of out, in) of some with the same input, whose weights become parts of it: it
    takes no more memory."""
    weights = [linear.weight for linear in linears]
    first, place = weights[0], weights[0].data_ptr()
    rows = sum(map(len, weights))
    for weight in weights:
        if weight.data_ptr() != place or weight.untyped_storage().data_ptr() != first.data_ptr():
            break
        place += weight.nbytes
    else:  # they are already
        return nn.Parameter(first.as_strided((rows, first.shape[1]), first.stride()), False)
    whole = nn.Parameter(torch.cat([weight.detach() for weight in weights]), False)
    for weight, part in zip(weights, whole.split([len(w) for w in weights]), strict=True):
        weight.data = part.detach()
    return whole


def fits_gpu(language_model: Any, kinds: dict[str, int | None]) -> bool:
    """Whether a model is known, its matrices are plain ones, and nobody watches its layers; they
    may be compiled.

    Args:
        kinds: of attention, see `kinds_of_attention`; windows are not known here.
    """
    if not is_known(language_model, kinds):
        return False
    matrices = [
        module
        for layer in language_model.model.layers
        for module in layer.modules()
        if hasattr(module, "weight") and module.weight.ndim > 1
    ]
    plain = all(type(matrix) is nn.Linear and matrix.bias is None for matrix in matrices)
    watched = any(
        is_watched(module) if tuning_of(module) is None else has_hooks(module)
        for module in language_model.modules()
    )
    silu = language_model.config.hidden_act == "silu"
    return plain and silu and not watched and WAY["step"] != "library"


def tuning_of(layer: nn.Module) -> dict | None:
    """How the code of a compiled layer is tuned for one row; None: it is not compiled."""
    return getattr(layer.forward, "tuned", None)
