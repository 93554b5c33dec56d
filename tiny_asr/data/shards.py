"""Tar shards, as WebDataset has them: thousands of clips in one file, read where they lie.

Members that belong together follow one another and share their name up to the first dot: `17.flac`
and `17.txt`, or `17.json` with the text and other columns. Only where each clip begins is kept, so
that ten thousand hours need the memory of their texts.
"""

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

from tiny_asr.data.utterance import Member


def shard_rows(path: Path, audio: str, text: str, suffixes: set[str]) -> Iterator[dict]:
    """The clips of a shard as `{column: value}`, the audio as a `Member`.

    Args:
        audio, text: names of these columns.
        suffixes: of audio files. A clip without one has None.
    Raises ValueError for a shard that is compressed or torn, or a JSON that can't be read.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            files = (member for member in tar if member.isfile())
            for key, members in groupby(files, lambda member: _key(member.name)):
                row = {"id": key, audio: None, text: None}
                for member in members:
                    suffix = PurePosixPath(member.name).suffix.lower()
                    if suffix in suffixes:
                        row[audio] = Member(path, member.offset_data, member.size)
                    elif suffix in (".txt", ".json"):
                        content = tar.extractfile(member).read().decode("utf-8")
                        row |= {text: content} if suffix == ".txt" else _columns(content, member)
                yield row
    except (tarfile.TarError, OSError, UnicodeError) as error:
        raise ValueError(
            f"{path} can't be read as a shard ({error}); expected a whole tar file, not compressed "
            "(clips are read from where they lie), with X.txt or X.json beside X.flac"
        ) from error


def _key(name: str) -> str:
    """A member's name up to the first dot behind its last slash."""
    path = PurePosixPath(name)
    return (path.parent / path.name.split(".")[0]).as_posix()


def _columns(content: str, member: tarfile.TarInfo) -> dict:
    try:
        columns = json.loads(content)
    except ValueError as error:
        raise tarfile.TarError(f"{member.name}: {error}") from error
    if not isinstance(columns, dict):
        raise tarfile.TarError(f"{member.name} holds no mapping of columns")
    return columns
