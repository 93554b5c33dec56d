"""A text that goes round in circles, seen and ended.

A language model that has lost the sound may write the same words again and again: what it reads
last makes them likelier each time, and it goes on until its limit. So a row ends when its last
tokens repeat those before them so often that speech does not explain it, and one copy is kept.

How often is that? A word nine times, a phrase of 10 tokens five times, a longer one four times. In
8000 transcripts of read speech and 100 000 sentences of novels, cut into tokens by two tokenizers,
no text comes near: the longest repeat has 14 tokens ("daisy mutlar daisy mutlar daisy mutlar").
"Ha ha ha", songs, numbers and spelled letters stay below it as well.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

LONGEST_PHRASE = 32  # tokens: of a longer one, no text of 30 s has enough copies


def enough(phrase: int) -> int:
    """How many repeated tokens behind its first copy make a loop of a phrase of so many tokens."""
    return max(20, min(8 * phrase, 40), 3 * phrase)


class Loops:
    """Watches the rows of a batch while they are written, without waiting for a GPU.

    A row whose newest token equals the one p places before it, and so on for m tokens, repeats m
    tokens with period p; `repeated` (B, LONGEST_PHRASE) has m for each p.
    """

    def __init__(self, rows: int, device: torch.device):
        phrases = range(1, LONGEST_PHRASE + 1)
        self.enough = torch.tensor([enough(phrase) for phrase in phrases], device=device)
        self.newest = torch.full((rows, LONGEST_PHRASE), -1, device=device)  # the last one first
        self.repeated = torch.zeros_like(self.newest)

    def add(self, token: Tensor) -> Tensor:
        """Each row's next token (B,) -> how many tokens of the row are repeats (B,), if it is in a
        loop now; else 0."""
        same = self.newest == token[:, None]
        self.repeated = (self.repeated + 1) * same
        self.newest = torch.cat([token[:, None], self.newest[:, :-1]], dim=1)
        return (self.repeated * (self.repeated >= self.enough)).amax(dim=1)

    def select(self, rows: Tensor) -> None:
        """Go on with other rows: `rows` (B,) says which of the old ones each new one continues."""
        self.newest, self.repeated = self.newest[rows], self.repeated[rows]


def _repeated(ids: Sequence[int]) -> dict[int, int]:
    """Each period p -> how many of the last tokens equal the one p places before them."""
    counts, size = {}, len(ids)
    for phrase in range(1, min(LONGEST_PHRASE, size - 1) + 1):
        first = size
        while first > phrase and ids[first - 1] == ids[first - 1 - phrase]:
            first -= 1
        counts[phrase] = size - first
    return counts


def kept(ids: Sequence[int], ended: bool = True) -> int:
    """How many of a row's first tokens are its text: where they end in a loop, up to the end of the
    phrase's first copy; else all.

    Args:
        ids: the row's tokens.
        ended: False while it is being written: how many are kept whatever comes.
    """
    repeated = _repeated(ids).items()
    return len(ids) - max(
        (m for phrase, m in repeated if not ended or m >= enough(phrase)), default=0
    )
