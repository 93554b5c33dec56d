"""Data sets that everybody measures on, by a short name: `--data librispeech:test-clean`.

The table is `named.csv`. All are parquet files on the hub, so that no code of theirs is run.
"""

import csv
import re
from pathlib import Path

_LINES = Path(__file__).with_name("named.csv").read_text(encoding="utf-8").splitlines()
# Name -> hub id with its configuration, split, column of the text.
NAMED: dict[str, tuple[str, str, str]] = {
    name: (hub_id, split, column)
    for name, hub_id, split, column in csv.reader(_LINES[3:])  # two of comment, the header
}


def is_name(source: str) -> bool:
    """Whether a source is meant as a name of this table: `set:part`, and no file here."""
    return re.fullmatch(r"[\w-]+:[\w-]+", source) is not None and not Path(source).exists()


def look_up(name: str) -> tuple[str, str, str]:
    """The hub id, the split and the column of the text; a ValueError lists the names there are."""
    if name not in NAMED:
        raise ValueError(
            f"there is no file {name!r} and no data set of that name; expected one of: "
            f"{', '.join(NAMED)}; or a hub id, owner/name:config, with its split"
        )
    return NAMED[name]
