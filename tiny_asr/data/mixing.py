"""Several data sets as one: each with its own split and columns, and mixed by weight.

An epoch of a mixture never holds a clip twice. The set that has the fewest clips for its weight is
heard whole in each epoch. Of every other set an epoch has as many clips as its weight asks for, and
the next epoch goes on where this one ended, in an order that the seed decides, round and round.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from tiny_asr.data.named import is_name, look_up


@dataclass(frozen=True)
class Part:
    """One data set of several.

    data: its source, as `load_data` takes it, or a name of `NAMED`.
    weight: its share of an epoch's clips, against the others' weights; None: all of its clips.
    limit: its first so many usable clips only.
    split, audio_column, text_column: its own, where they differ from the others'.
    """

    data: str
    weight: float | None = None
    limit: int | None = None
    split: str | None = None
    audio_column: str = "audio"
    text_column: str = "text"

    @property
    def source(self) -> str:
        """What to read: the data, or what its name stands for."""
        return look_up(self.data)[0] if is_name(self.data) else self.data


def parts_of(
    source: str | Path | Sequence,
    split: str | None = None,
    audio_column: str = "audio",
    text_column: str = "text",
) -> list[Part]:
    """What a source stands for: one part for each item, names looked up.

    Args:
        source: a source, or several; each of them text, a path, or a mapping of `Part`'s fields.
        split, audio_column, text_column: of items that don't say their own.
    Raises ValueError for an unknown name or field, a weight or limit that is none.
    """
    common = {"split": split, "audio_column": audio_column, "text_column": text_column}
    items = [source] if isinstance(source, str | Path | Mapping) else list(source)
    parts = [_part(item if isinstance(item, Mapping) else {"data": item}, common) for item in items]
    if all(part.weight is None for part in parts):
        return parts
    if without := [part.data for part in parts if part.weight is None]:
        raise ValueError(
            f"{', '.join(without)} came without a weight beside sets that have one; expected a "
            "weight for each, or for none"
        )
    return parts


def _part(item: Mapping, common: dict) -> Part:
    known = [field.name for field in fields(Part)]
    if "data" not in item or (unknown := item.keys() - set(known)):
        what = f"with {', '.join(sorted(unknown))}" if "data" in item else "without data"
        raise ValueError(f"an item of data came {what}; expected {', '.join(known)}: {dict(item)}")
    own = {"data": str(item["data"])} | {k: v for k, v in item.items() if k != "data"}
    weight, limit = own.get("weight"), own.get("limit")
    if weight is not None and not (isinstance(weight, int | float) and 0 < weight < math.inf):
        raise ValueError(f"weight={weight!r} of {own['data']} came; expected a number above 0")
    if limit is not None and not (isinstance(limit, int) and limit >= 1):
        raise ValueError(f"limit={limit!r} of {own['data']} came; expected at least 1")
    if is_name(own["data"]):
        _, part_split, column = look_up(own["data"])
        if (given := own.get("split", common["split"])) is not None:
            raise ValueError(
                f"split={given!r} came with {own['data']!r}, which names its split; expected one "
                "of them: leave split out"
            )
        own = {"text_column": column} | own | {"split": part_split}
    return Part(**common | own)


@dataclass(frozen=True)
class Share:
    """A part of a mixture that was read: how many clips it has, and its weight."""

    name: str
    clips: int
    weight: float


def in_an_epoch(shares: Sequence[Share]) -> list[int]:
    """How many clips of each share an epoch holds."""
    whole = min(share.clips / share.weight for share in shares)
    return [min(share.clips, max(1, round(whole * share.weight))) for share in shares]


def epoch_of(shares: Sequence[Share], seed: int, epoch: int) -> np.ndarray:
    """The clips of one epoch, as indices into the shares' clips, one share after the other."""
    chosen, before = [], 0
    for number, (share, count) in enumerate(zip(shares, in_an_epoch(shares), strict=True)):
        order = np.random.default_rng([seed, number, share.clips]).permutation(share.clips)
        chosen.append(before + order[(epoch * count + np.arange(count)) % share.clips])
        before += share.clips
    return np.concatenate(chosen)
