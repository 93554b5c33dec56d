"""Where a data set's rows come from: parquet, a folder of audio, or the hub.

A course's data is a folder on a laptop, a practitioner's is a hub id or forty parquet shards. All
become the same thing here, rows whose audio is still encoded, and a source that can't be read says
so in a line. `datasets` is only asked for the bytes, never to decode, which would need FFmpeg.
"""

import csv
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet

AUDIO_SUFFIXES = {".flac", ".wav", ".ogg", ".opus", ".mp3"}
METADATA_FILES = ("metadata.csv", "metadata.jsonl")
NAME_AND_CONFIG = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")  # owner/name or owner/name:config
SPLIT_NAME = re.compile(r"(train|validation|valid|val|dev|test)(?=[-_.]|$)")


@dataclass(frozen=True)
class Columns:
    """Which columns to read.

    audio, text: their names.
    text_required: whether a table without text is an error.
    others: read where they exist.
    """

    audio: str
    text: str
    text_required: bool
    others: frozenset[str]

    def check(self, present: Collection[str], where, *also: str) -> None:
        """Raise a ValueError that names the columns that exist if a needed one is not there."""
        needed = (also or (self.audio,)) + ((self.text,) if self.text_required else ())
        missing = [repr(column) for column in needed if column not in present]
        if missing:
            raise ValueError(
                f"{where} has no column {' and no '.join(missing)}; it has {', '.join(present)}: "
                "choose with audio_column and text_column"
            )


def read_rows(source: str | Path, split: str | None, columns: Columns) -> Iterator[dict]:
    """The rows of one source (see `load_data`) as `{column: value}`; text may be None.

    In the audio column is the encoded file, the Path where it lies, or None. Raises ValueError if
    the source can't be found or read, lacks a column, or holds something else than audio files.
    """
    path = Path(source)
    hub = NAME_AND_CONFIG.fullmatch(source) if isinstance(source, str) else None
    if path.is_dir():
        rows = _folder_rows(path, split, columns)
    elif path.is_file() and split is None:
        rows = _parquet_rows(path, columns)
    elif path.is_file():
        raise ValueError(
            f"split={split!r} came with the single file {path}; expected a folder or a hub id: "
            "leave split out"
        )
    elif hub is not None:
        rows = _hub_rows(hub[1], hub[2], split, columns)
    else:
        raise ValueError(
            f"there is no file or folder {source}; expected a parquet file, a folder, or a hub id "
            "such as openslr/librispeech_asr: check the path"
        )
    for row in rows:
        yield row | {columns.audio: _encoded(row[columns.audio], columns.audio, path)}


def _encoded(value, column: str, source: Path) -> bytes | Path | None:
    """The encoded audio in a table's cell; a relative path begins at the source."""
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None or isinstance(value, bytes | Path):
        return value
    if isinstance(value, str) and "://" in value:  # a file of a streamed hub data set
        with fsspec.open(value, "rb") as file:
            return file.read()
    if isinstance(value, str):
        return (source if source.is_dir() else source.parent) / value
    rank, inner = 0, value
    while isinstance(inner, list) and inner:
        rank, inner = rank + 1, inner[0]
    held = f"decoded samples of rank {rank}" if rank else f"{type(value).__name__} {value!r:.60}"
    raise ValueError(
        f"column {column!r} holds {held}; expected whole audio files: their bytes, a path, or "
        "{'bytes', 'path'} as `datasets` has it. Write the clips as FLAC, or name another column"
    )


def _parquet_rows(path: Path, columns: Columns) -> Iterator[dict]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            present = file.schema_arrow.names
            columns.check(present, path)
            used = columns.others | {columns.audio, columns.text}
            used = [name for name in present if name in used]
            for batch in file.iter_batches(batch_size=64, columns=used):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} can't be read as parquet ({error}); expected a whole parquet file: it may be "
            "torn, fetch or write it again"
        ) from error


def _folder_rows(folder: Path, split: str | None, columns: Columns) -> Iterator[dict]:
    if split is not None and (folder / split).is_dir():
        folder, split = folder / split, None
    metadata = [folder / name for name in METADATA_FILES if (folder / name).is_file()]
    if metadata and split is None:
        yield from _metadata_rows(metadata[0], columns)
        return
    files = sorted(folder.rglob("*.parquet")) or sorted(
        file for file in folder.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES
    )
    if not files:
        raise ValueError(
            f"{folder} holds no parquet file, no {' or '.join(METADATA_FILES)} and no audio file; "
            "expected one of these: check the path"
        )
    for file in _of_split(folder, files, split):
        if file.suffix == ".parquet":
            yield from _parquet_rows(file, columns)
            continue
        beside = file.with_suffix(".txt")
        text = beside.read_text("utf-8", errors="replace") if beside.is_file() else None
        name = file.relative_to(folder).with_suffix("").as_posix()
        yield {"id": name, columns.audio: file, columns.text: text}


def _of_split(folder: Path, files: list[Path], split: str | None) -> list[Path]:
    """Files whose folder, or tables whose name, begins with the split; never two splits mixed."""
    names = {}
    for file in files:
        parts = file.relative_to(folder).parts
        names[file] = parts if file.suffix == ".parquet" else parts[:-1]
    if split is None:
        every = [part for parts in names.values() for part in parts]
        found = {match[1] for part in every if (match := SPLIT_NAME.match(part))}
        if len(found) > 1:
            raise ValueError(
                f"{folder} holds the splits {', '.join(sorted(found))}; expected one: say which "
                "with split"
            )
        return files
    begins = re.compile(rf"{re.escape(split)}(?=[-_.]|$)")
    chosen = [file for file, parts in names.items() if any(map(begins.match, parts))]
    if not chosen:
        some = ", ".join(sorted({"/".join(parts) for parts in names.values()})[:8])
        raise ValueError(
            f"split={split!r} came, but {folder} holds {some or 'no sub-folder'}; expected "
            "sub-folders or file names that begin so"
        )
    return chosen


def _metadata_rows(path: Path, columns: Columns) -> Iterator[dict]:
    """Rows of metadata.csv or metadata.jsonl, as the AudioFolder of `datasets` has them."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                rows = list(csv.DictReader(file))
            else:
                rows = [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} can't be read ({error}); expected CSV or JSON lines") from error
    for row in rows:
        columns.check(row, path, "file_name")
        name = Path(row["file_name"])
        found = {columns.audio: path.parent / name, "seconds": None}  # the file's header knows
        yield {"id": name.with_suffix("").as_posix()} | row | found


def _hub_rows(hub_id: str, config: str | None, split: str | None, columns: Columns):
    """Stream a hub data set, its audio as bytes."""
    import datasets  # takes a second to import, and most runs read local files

    try:
        data = datasets.load_dataset(hub_id, config, split=split, streaming=True)
        if isinstance(data, datasets.IterableDatasetDict):
            if len(data) > 1:
                raise ValueError(f"it has the splits {', '.join(data)}; say which with split")
            (data,) = data.values()
        if data.features is not None:
            columns.check(data.features, hub_id)
            data = data.cast_column(columns.audio, datasets.Audio(decode=False))
        for row in data:
            columns.check(row, hub_id)
            yield row
    except OSError as error:
        raise ValueError(
            f"{hub_id} is no file or folder here, and the hub data set can't be read ({error}); "
            "expected a network connection and an id that exists: check both, or use local data"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"hub data set {hub_id}: {error}") from error
