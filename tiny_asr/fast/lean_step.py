"""One step of writing on a processor, without what the library does besides.

To read one token, a small language model multiplies for less than a millisecond, and `transformers`
spends several more on the way: for each layer some fifty small operations, masks and checks. Here
is the same computation with half as many, for the two kinds of models that the pairs have. Any
other model takes its own way.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KNOWN = ("LlamaForCausalLM", "SmolLM3ForCausalLM")  # RMS norm, rotary positions, gated MLP


class LeanStep:
    """Reads the next embeddings of each row, with the keys and values of a `KVCache`.

    Args:
        language_model: one that `fits`; its own modules do the products, whatever they are.
    """

    def __init__(self, language_model: Any):
        config, body = language_model.config, language_model.model
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.rotary, self.norm, self.head = body.rotary_emb, body.norm, language_model.lm_head
        self.layers = list(body.layers)

    def __call__(self, embeddings: Tensor, cache) -> Tensor:
        """(B, L, llm_dim) -> the logits (B * L, V) of what comes after each; `cache.column`, where
        each row's first one belongs, stays."""
        rows, count = embeddings.shape[:2]
        x, place = embeddings.flatten(0, 1), cache.column[:, None] + torch.arange(count)
        cos, sin = (part.flatten(0, 1)[:, None] for part in self.rotary(embeddings, place))
        first, last = int(cache.column.min()), int(cache.column.max())
        end, mask = last + count, None
        if first < last or count > 1:  # none may look beyond its own column
            mask = (torch.arange(end) <= place[..., None])[:, None]
        for layer, (keys, values) in zip(self.layers, cache.buffers, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            h = rms_norm(layer.input_layernorm, x)
            q = attention.q_proj(h).view(rows * count, self.heads, -1)
            k = attention.k_proj(h).view(rows * count, self.kv_heads, -1)
            v = attention.v_proj(h).view(rows, count, self.kv_heads, -1)
            if getattr(attention, "use_rope", True):  # SmolLM3 leaves it out in every fourth
                q, k = rotate(torch.cat([q, k], dim=1), cos, sin).split(
                    [self.heads, self.kv_heads], dim=1
                )
            q, k = q.unflatten(0, (rows, count)), k.unflatten(0, (rows, count))
            if first == last:
                keys[:, :, last:end], values[:, :, last:end] = k.transpose(1, 2), v.transpose(1, 2)
            else:
                keys[cache.rows[:, None], :, place], values[cache.rows[:, None], :, place] = k, v
            seen = F.scaled_dot_product_attention(
                q.transpose(1, 2),
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=mask,
                scale=attention.scaling,
                enable_gqa=self.heads > self.kv_heads,
            )
            x = x + attention.o_proj(seen.transpose(1, 2).reshape(rows * count, -1))
            h = rms_norm(layer.post_attention_layernorm, x)
            x = x + mlp.down_proj(mlp.act_fn(mlp.gate_proj(h)) * mlp.up_proj(h))
        return self.head(rms_norm(self.norm, x))


def rms_norm(norm: Any, x: Tensor) -> Tensor:
    """x / sqrt(mean x^2 + eps) times the norm's weight (Zhang and Sennrich 2019)."""
    scale = x.square().mean(-1, keepdim=True).add_(norm.variance_epsilon).rsqrt_()
    return (x * scale).mul_(norm.weight)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021) of heads (B, H, head_dim): two halves as one turn."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def fits(language_model: Any, kinds: dict[str, int | None]) -> bool:
    """Whether a model is known, in float32 on a CPU, and nobody watches or has changed its layers.

    Args:
        kinds: of attention, see `kinds_of_attention`; windows are not known here.
    """
    table = language_model.get_input_embeddings().weight
    if table.device.type != "cpu" or table.dtype is not torch.float32:
        return False
    return is_known(language_model, kinds) and not any(map(is_watched, language_model.modules()))


def is_known(language_model: Any, kinds: dict[str, int | None]) -> bool:
    """Whether its step is one of those written out here, and its attention has no windows."""
    return type(language_model).__name__ in KNOWN and list(kinds.values()) == [None]


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody has put a hook on a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_watched(module: nn.Module) -> bool:
    """Whether somebody has put a hook on a module, or changed what it does."""
    return has_hooks(module) or "forward" in vars(module)
