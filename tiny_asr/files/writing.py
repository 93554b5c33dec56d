"""Files that are written whole or not at all, so that a full disk spoils nothing that was there."""

import os
from pathlib import Path

PARTIAL = ".partial"


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Replace a text file: whoever reads it finds the old text or the new one, whole.

    A link stays one, and what it leads to is replaced. `errors` are those of `str.encode`. Raises
    OSError.
    """
    path = Path(os.path.realpath(path))
    partial = path.with_name(path.name + PARTIAL)
    try:
        partial.write_text(text, "utf-8", errors, newline="")
        flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Make sure that what was written to a file or folder is on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows can't open a folder, and need not
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
