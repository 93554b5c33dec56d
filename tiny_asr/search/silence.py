"""Where nobody speaks, nothing is written.

A decoder that reads noise should end at once. Some do not quite dare: the end token is likely, and
a word a little likelier. Before the first word of speech the end is all but impossible, so there is
a wide gap to put a threshold in (as Whisper does with a token of its own, Radford et al. 2022).
"""

import torch
from torch import Tensor

UNLIKELY = -1e4  # a logit that loses to any other, in every dtype


def ended_where_silent(logits: Tensor, end_id: int, threshold: float | None) -> Tensor:
    """The first token's logits (B, V), with no choice but the end where it is likelier than
    `threshold`; as they came where that is None."""
    if threshold is None:
        return logits
    silent = logits.float().softmax(dim=-1)[:, end_id, None] > threshold
    others = torch.arange(logits.shape[1], device=logits.device) != end_id
    return logits.masked_fill(silent & others, UNLIKELY)
