"""Attention of one new position a row, for a GPU: one kernel from the new queries, keys and values.

Each program has one row and one head of keys: it turns them to their position, stores the new key
and value, and reads each older key once for all queries that share it, and none beyond the row's
own column. (The library's step copies each key for each of its queries, and reads all columns.)
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

KEYS = 64  # that a program looks at together


@triton.jit
def _attend(
    new, cos, sin, keys, values, column, out, columns, kv_heads, scale,
    GROUP: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr, ROPE: tl.constexpr,
    KEYS: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0), tl.program_id(1)
    last = tl.load(column + row).to(tl.int32)  # this position
    g, d = tl.arange(0, 16), tl.arange(0, WIDE)  # a product has 16 rows at least
    real, queries = d < DIM, (g < GROUP)[:, None] & (d < DIM)[None, :]
    new += row * (GROUP + 2) * kv_heads * DIM
    old = (row.to(tl.int64) * kv_heads + head) * columns * DIM  # of this head's first key
    q_at = (head * GROUP + g)[:, None] * DIM
    k_at = (GROUP * kv_heads + head) * DIM
    v_at = k_at + kv_heads * DIM
    q = tl.load(new + q_at + d[None, :], mask=queries, other=0.0).to(tl.float32)
    k = tl.load(new + k_at + d, mask=real, other=0.0).to(tl.float32)
    v = tl.load(new + v_at + d, mask=real, other=0.0)
    if ROPE:
        first = d < DIM // 2
        other, sign = tl.where(first, d + DIM // 2, d - DIM // 2), tl.where(first, -1.0, 1.0)
        c = tl.load(cos + row * DIM + d, mask=real, other=0.0).to(tl.float32)
        s = tl.load(sin + row * DIM + d, mask=real, other=0.0).to(tl.float32) * sign
        q_other = tl.load(new + q_at + other[None, :], mask=queries, other=0.0).to(tl.float32)
        k_other = tl.load(new + k_at + other, mask=real, other=0.0).to(tl.float32)
        q, k = q * c[None, :] + q_other * s[None, :], k * c + k_other * s
    k, q = k.to(v.dtype), q.to(v.dtype)
    tl.store(keys + old + last * DIM + d, k, mask=real)
    tl.store(values + old + last * DIM + d, v, mask=real)
    # The new position comes first, from registers; then softmax goes on over the older ones.
    top = tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], 1) * scale
    total = tl.full([16], 1.0, tl.float32)
    seen = tl.zeros([16, WIDE], tl.float32) + v.to(tl.float32)[None, :]
    for start in range(0, last, KEYS):
        place = start + tl.arange(0, KEYS)
        at = old + place[:, None] * DIM + d[None, :]
        there = (place < last)[:, None] & real[None, :]
        k_old = tl.load(keys + at, mask=there, other=0.0)
        score = tl.dot(q, tl.trans(k_old), input_precision="ieee") * scale
        score = tl.where((place < last)[None, :], score, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        weight, less = tl.exp(score - higher[:, None]), tl.exp(top - higher)
        v_old = tl.load(values + at, mask=there, other=0.0)
        more = tl.dot(weight.to(v_old.dtype), v_old, input_precision="ieee")
        seen, total, top = seen * less[:, None] + more, total * less + tl.sum(weight, 1), higher
    seen = (seen / total[:, None]).to(v.dtype)
    tl.store(out + row * GROUP * kv_heads * DIM + q_at + d[None, :], seen, mask=queries)


def attend(
    new: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, column: Tensor,
    scale: float, rope: bool,
) -> Tensor:  # fmt: skip
    """What each row's new position sees (B, heads * head_dim); its key and value are stored.

    Args:
        new: queries, keys and values (B, (heads + 2 kv_heads) * head_dim) of the new position.
        cos, sin: of its rotary position (B, head_dim), used with `rope`.
        keys, values: buffers (B, kv_heads, N, head_dim); column: the new position's (B,).
    """
    rows, kv_heads, columns, dim = keys.shape
    heads = new.shape[1] // dim - 2 * kv_heads
    if heads // kv_heads > 16:
        raise ValueError(f"{heads} heads share {kv_heads}; expected at most 16 to share one")
    out = torch.empty(rows, heads * dim, dtype=new.dtype, device=new.device)
    _attend[(rows, kv_heads)](
        new, cos, sin, keys, values, column, out, columns, kv_heads, scale,
        GROUP=heads // kv_heads, DIM=dim, WIDE=max(16, triton.next_power_of_2(dim)), ROPE=rope,
        KEYS=KEYS, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out
