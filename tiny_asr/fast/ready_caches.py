"""Key-value caches that lie ready on a GPU, with their recorded steps, and how large they are.

To record a step takes longer than to play it, so a cache is used again for a text of its size. It
is leased: two texts that are written at the same time never share one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tiny_asr.kv_cache import KVCache

COLUMNS_AT_A_TIME = 64  # a cache's length is rounded up to it, so that its size comes again
MOST_CACHES = 4  # that lie ready while nobody writes


class ReadyCaches:
    """What was written with and given back."""

    def __init__(self) -> None:
        self.ready: list[tuple[tuple, KVCache]] = []  # the longest unused first

    @contextmanager
    def lease(self, language_model, rows: int, columns: int) -> Iterator[KVCache]:
        """A cache for at least so many columns that is nobody else's until the block ends."""
        columns = whole_columns(columns)
        table = language_model.get_input_embeddings().weight
        key = (rows, columns, table.device, table.dtype, table.data_ptr())
        places = [place for place, (size, _) in enumerate(self.ready) if size == key]
        if places:
            _, cache = self.ready.pop(places[-1])
        else:
            self.ready = self.ready[1 - MOST_CACHES :]  # room for another, before it is made
            cache = KVCache(language_model, rows, columns, record=True)
        try:
            yield cache
        finally:
            self.ready = [*self.ready, (key, cache)][-MOST_CACHES:]


def whole_columns(columns: int) -> int:
    """Columns that a cache on a GPU has, to hold so many."""
    return -(-columns // COLUMNS_AT_A_TIME) * COLUMNS_AT_A_TIME


@torch.no_grad()
def numbers_per_position(language_model) -> int:
    """How many numbers a cache keeps of one position of one row; one on torch's meta device may be
    asked as well."""
    cache = KVCache(language_model, 1, 1)
    table = language_model.get_input_embeddings().weight
    cache.read_prompt(table[:1][None], torch.tensor([1]))
    return sum(tensor.numel() for pair in cache.buffers for tensor in pair)


def ready_bytes(numbers: int, width: int, rows: int, columns: int) -> int:
    """The bytes that lie ready on a GPU at most, when texts of one size are written there.

    Args:
        numbers: of a position, see `numbers_per_position`; width: the bytes of each.
        rows, columns: of a text's cache.
    """
    return MOST_CACHES * rows * whole_columns(columns) * numbers * width
