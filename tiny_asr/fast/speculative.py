"""Speculative decoding on a CPU: the sound itself is the draft.

A small language model reads three tokens nearly as fast as one, since most of a step is not the
products, but all the small operations around them. So it pays to guess what will be written and to
read the guess along with the token before it (Leviathan et al. 2023). Usually a smaller model
guesses. Here a trained projector has done it: each audio embedding lies near the embedding of the
token that is said there, so the nearest tokens, one after another, are a rough draft of the text.

Nothing else is written than without: each token is still chosen from the decoder's own logits. A
guess that proves wrong was read in vain, and the next keys and values take its columns.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tiny_asr.fast.lean_step import LeanStep

GUESSES = 2  # tokens read along: each costs a little, and is worth less than the one before
CLEAR = 0.35  # the least cosine of an audio embedding and its nearest token: less is no guess
SEARCHED = 8  # tokens of the draft, from where the text is, in which its newest token is looked for


def rough_draft(decoder: Any, audio_embeddings: Tensor) -> list[int]:
    """The token nearest to each audio embedding (A, llm_dim), where one is near, without echoes.

    Embeddings are a tenth of a second apart, so a word is often heard twice, or its beginning or
    its end once more: of " ret", " returned" and "ed" only " returned" stays.
    """
    tokenizer, table = decoder.tokenizer, normalize(decoder.token_embeddings, dim=1)
    cosines, nearest = (normalize(audio_embeddings, dim=1) @ table.T).max(dim=1)
    clear = (cosines >= CLEAR) & ~torch.isin(nearest, torch.tensor(tokenizer.all_special_ids))
    draft: list[int] = []
    last = ""
    for token in nearest[clear].tolist():
        text = tokenizer.decode([token])
        if last.endswith(text):
            continue
        if last and text.startswith(last):
            draft.pop()
        draft.append(token)
        last = text
    return draft


class Speculative:
    """Reads one text's tokens, and some of a draft along with them.

    Args:
        decoder: a `TextDecoder`.
        cache: its `KVCache` of one row, which has read the prompt in a `LeanStep`'s way.
        draft: token ids.
        guesses: how many of them to read along.
    """

    def __init__(self, decoder: Any, cache: Any, draft: list[int], guesses: int = GUESSES):
        self.decoder, self.cache, self.draft, self.guesses = decoder, cache, draft, guesses
        self.place = 0  # in the draft: what comes after the text
        self.ahead: list[tuple[int, Tensor]] = []  # guesses, and the logits after each

    def read(self, token: Tensor) -> Tensor:
        """The text's next token (1,) -> the logits (1, V) of what comes after it."""
        newest = int(token)
        if self.ahead and self.ahead[0][0] == newest:
            logits = self.ahead.pop(0)[1]
            self.place += 1
        else:
            guessed = self._after(newest)
            ids = torch.tensor([[newest, *guessed]])
            logits, *others = self.cache.lean(self.decoder.embed(ids), self.cache)
            self.ahead = list(zip(guessed, others, strict=True))
        self.cache.column += 1
        return logits[None]

    def _after(self, newest: int) -> list[int]:
        """What the draft has after a token, if it has it near; else what it had before."""
        near = self.draft[self.place : self.place + SEARCHED]
        if newest in near:
            self.place += near.index(newest) + 1
        room = self.cache.columns - int(self.cache.column) - 1
        return self.draft[self.place : self.place + min(self.guesses, room)]


def next_steps(
    decoder: Any, cache: Any, audio_embeddings: Tensor, audio_lengths: Tensor, guesses: int
) -> Callable[[Tensor], Tensor]:
    """How each next token (B,) is read, for the logits (B, V) of what comes after it.

    Guesses need a cache of one text that is read step by step on a CPU; elsewhere a step is
    recorded, or the model's own, and takes one token.
    """
    by_steps = isinstance(cache.lean, LeanStep) and not cache.record
    if not guesses or len(cache.rows) > 1 or not by_steps:
        return lambda token: cache.read(decoder.embed(token[:, None]))
    draft = rough_draft(decoder, audio_embeddings[0, : int(audio_lengths[0])])
    return Speculative(decoder, cache, draft, guesses).read
