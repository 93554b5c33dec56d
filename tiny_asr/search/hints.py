"""Hints: words that are likely to be said, such as the names in a meeting.

A name that no training text held is written as the common word that sounds like it. Who knows the
names can say so: each token that goes on with one of the words is made a little likelier (shallow
fusion, Zhao et al. 2019, "Shallow-fusion end-to-end contextual biasing"). A word that is begun and
not finished gives its bonus back, so that it never pays to write half of one. The words are spelled
in the tokenizer's own pieces, as they begin a text and as they go on with it, and kept as a tree:
each node is what has been written of some word, its children are the tokens that may follow.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

BONUS = 1.0  # nats for each token of a word: as much again, and words come that nobody said
MOST_WORDS = 1000


class Hints:
    """The tree of the words, and where in it the rows of a batch are; nothing waits for a GPU.

    Args:
        words: to prefer; each may hold spaces. Their own case and lower case both count.
        tokenizer: the decoder's.
        rows: B, on this device.
        bonus: nats for each token of a word; 0 or more.
    """

    def __init__(
        self,
        words: Sequence[str],
        tokenizer,
        rows: int,
        device: torch.device | str,
        bonus: float = BONUS,
    ):
        if isinstance(words, str):
            raise ValueError(f"hints came as the text {words!r}; expected a list of words")
        if any(not word.strip() for word in words):
            raise ValueError("a blank hint came; expected words: leave it out")
        if len(words) > MOST_WORDS:
            raise ValueError(f"{len(words)} hints came; expected at most {MOST_WORDS}")
        # Node 0 is any place between two words or within another one, node 1 the text's start.
        children: list[dict[int, int]] = [{}, {}]
        depth, whole = [0, 0], [False, False]
        plain = [word.strip() for word in words]
        for form in [*plain, *map(str.lower, plain)]:
            for node, text in ((0, f" {form}"), (1, form)):
                for token in tokenizer(text, add_special_tokens=False).input_ids:
                    if token not in children[node]:
                        children[node][token] = len(children)
                        children.append({})
                        depth.append(depth[node] + 1)
                        whole.append(False)
                    node = children[node][token]
                whole[node] = True
        self.bonus_per_token = bonus
        self.earned = bonus * torch.tensor(depth, device=device)
        self.whole = torch.tensor(whole, device=device)
        self.first = torch.tensor([*children[0]], device=device)  # tokens that begin a word
        widest = max(map(len, children))
        rest = [[-1] * (widest - len(nodes)) for nodes in children]
        pairs = list(zip(children, rest, strict=True))
        self.tokens = torch.tensor([[*nodes, *none] for nodes, none in pairs], device=device)
        self.goals = torch.tensor(
            [[*nodes.values(), *none] for nodes, none in pairs], device=device
        )
        self.separates = torch.tensor(separates(tokenizer), device=device)
        self.node = torch.ones(rows, dtype=torch.int64, device=device)

    def __call__(self, logits: Tensor) -> Tensor:
        """The scores (B, V) of the next token, with each one's bonus."""
        return logits + self.bonus(logits.shape[1])

    def bonus(self, width: int) -> Tensor:
        """What to add to the scores of the next token (B, width) of each row."""
        node = self.node[:, None]
        # What does not go on with a word gives back what was earned, but behind a whole one.
        stays = self.whole[node] & pad(self.separates, (0, width - len(self.separates)))
        bonus = torch.where(stays, 0.0, -self.earned[node])
        bonus[:, self.first] += self.bonus_per_token  # another word begins
        bonus = pad(bonus, (0, 1))  # a column for the children that are not there
        places = self.tokens[self.node] % (width + 1)
        return bonus.scatter(1, places, self.bonus_per_token)[:, :width]

    def add(self, token: Tensor) -> None:
        """Each row's next token (B,)."""
        self.node = self._next(self.node, token, self._next(torch.zeros_like(self.node), token, 0))

    def _next(self, node: Tensor, token: Tensor, otherwise: Tensor | int) -> Tensor:
        """The child of each node that a token leads to, or another node where there is none."""
        fits = self.tokens[node] == token[:, None]
        goal = (self.goals[node] * fits).sum(dim=1)
        return torch.where(fits.any(dim=1), goal, otherwise)

    def select(self, rows: Tensor) -> None:
        """Go on with other rows: `rows` (B,) says which of the old ones each new one continues."""
        self.node = self.node[rows]


@lru_cache(maxsize=4)
def separates(tokenizer) -> list[bool]:
    """Of each token, whether a word is over before it: it begins with a space or punctuation, or is
    a special token."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    return [
        number in special or not piece or piece[0] in "\u0120\u2581" or not piece[0].isalnum()
        for number, piece in enumerate(pieces)
    ]
