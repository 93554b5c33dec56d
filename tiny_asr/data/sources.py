"""Where a data set's rows come from: tables, folders as other programs write them, or the hub.

All become rows whose audio is still encoded. `datasets` is only asked for the bytes, never to
decode, which would need FFmpeg.
"""

import csv
import io
import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile

from tiny_asr.data.shards import shard_rows
from tiny_asr.data.utterance import Excerpt, Member

AUDIO_SUFFIXES = {".flac", ".wav", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".w64", ".au"}
AUDIO_SUFFIXES |= {".m4a", ".mp4", ".webm"}
TEXT_TABLES = {".csv", ".tsv", ".json", ".jsonl"}
# What a folder is searched for, the first that is found: tables, shards, LibriSpeech's transcripts,
# Common Voice's tables, NeMo's manifests.
TABLE_NAMES = ("*.parquet", "*.tar", "*.trans.txt", "*.tsv", "*manifest*.json*")
WAV_CODING = {"float32": "FLOAT", "float64": "FLOAT", "int16": "PCM_16", "int32": "PCM_32"}
FILE_COLUMNS = ("file_name", "audio_filepath", "path")  # of AudioFolder, NeMo, Common Voice
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
        rows = _table_rows(path, columns)
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
        value, rate = row[columns.audio], row.get("sampling_rate", row.get("sample_rate"))
        if isinstance(value, dict) and value.get("array") is not None:
            value, rate = value["array"], value.get("sampling_rate")
        known = isinstance(rate, int) and 0 < rate < 2**20
        if known and isinstance(value, np.ndarray) and value.dtype.name in WAV_CODING:
            coding, file = WAV_CODING[value.dtype.name], io.BytesIO()
            soundfile.write(file, value, rate, format="WAV", subtype=coding)
            value = file.getvalue()
        yield row | {columns.audio: _encoded(value, columns.audio, path)}


def _encoded(value, column: str, source: Path) -> bytes | Path | Excerpt | Member | None:
    """The encoded audio in a table's cell; a relative path begins at the source."""
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None or isinstance(value, bytes | Path | Excerpt | Member):
        return value
    if isinstance(value, str) and "://" in value:  # a file of a streamed hub data set
        with fsspec.open(value, "rb") as file:
            return file.read()
    if isinstance(value, str):
        return (source if source.is_dir() else source.parent) / value
    rank, inner = 0, value
    while isinstance(inner, list | np.ndarray) and len(inner):
        rank, inner = rank + 1, inner[0]
    held = f"decoded samples of rank {rank}" if rank else f"{type(value).__name__} {value!r:.60}"
    raise ValueError(
        f"column {column!r} holds {held}; expected whole audio files: their bytes, a path, or "
        "{'bytes', 'path'} as `datasets` has it; or samples (S,) as floats, int16 or int32 with "
        "their sampling_rate in Hz. Write the clips as FLAC, or name another column"
    )


def _parquet_rows(path: Path, columns: Columns) -> Iterator[dict]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            present = file.schema_arrow.names
            columns.check(present, path)
            used = columns.others | {columns.audio, columns.text}
            used = [name for name in present if name in used]
            for batch in file.iter_batches(batch_size=64, columns=used):
                for row in range(len(batch)):
                    yield {name: _value(batch.column(name)[row]) for name in used}
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} can't be read as parquet ({error}); expected a whole parquet file: it may be "
            "torn, fetch or write it again"
        ) from error


def _value(cell: pyarrow.Scalar):
    """What a cell holds; samples as an array, which takes a tenth of the memory of a list."""
    if pyarrow.types.is_struct(cell.type) and cell.is_valid:
        return {name: _value(inner) for name, inner in cell.items()}
    samples = cell.values if isinstance(cell, pyarrow.ListScalar) else None
    if samples is None or not pyarrow.types.is_primitive(samples.type):
        return cell.as_py()
    return samples.to_numpy(zero_copy_only=False)


def _table_rows(path: Path, columns: Columns) -> Iterator[dict]:
    """Rows of a table by itself, whatever its kind; LibriSpeech's lie beside their clips."""
    if path.suffix in TEXT_TABLES:
        yield from _text_table_rows(path, columns)
    elif path.suffix == ".tar":
        yield from shard_rows(path, columns.audio, columns.text, AUDIO_SUFFIXES)
    elif path.name.endswith(".trans.txt"):
        for name, text in _pairs(path).items():
            found = {columns.audio: path.with_name(f"{name}.flac"), columns.text: text}
            yield {"id": name, "speaker": name.partition("-")[0]} | found
    else:
        yield from _parquet_rows(path, columns)


def _folder_rows(folder: Path, split: str | None, columns: Columns) -> Iterator[dict]:
    within = [(folder / split, None)] if split is not None and (folder / split).is_dir() else []
    for place, part in [*within, (folder, split)]:
        for metadata in filter(Path.is_file, (place / name for name in METADATA_FILES)):
            yield from _text_table_rows(metadata, columns, part)
            return
    folder, split = [*within, (folder, split)][0]
    if (folder / "wav.scp").is_file():
        yield from _kaldi_rows(folder, columns)
        return
    found = (sorted(folder.rglob(pattern)) for pattern in TABLE_NAMES)
    files = next(filter(None, found), None) or sorted(
        file for file in folder.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES
    )
    if not files:
        raise ValueError(
            f"{folder} holds no parquet file, no {' or '.join(METADATA_FILES)}, no wav.scp and no "
            "audio file; expected one of these: check the path"
        )
    chosen = _of_split(folder, files, split)
    for file in chosen:
        if file.suffix.lower() not in AUDIO_SUFFIXES:
            yield from _table_rows(file, columns)
            continue
        beside = file.with_suffix(".txt")
        text = read_text(beside) if beside.is_file() else None
        name = file.relative_to(folder).with_suffix("").as_posix()
        yield {"id": name, columns.audio: file, columns.text: text}
    heard = {file.with_suffix("") for file in chosen if file.suffix.lower() in AUDIO_SUFFIXES}
    for home in sorted({name.parent for name in heard}):
        for text in sorted(home.glob("*.txt")):  # one without a sound is counted as left out
            if text.with_suffix("") not in heard:
                yield {"id": text.stem, columns.audio: None, columns.text: read_text(text)}


def _of_split(folder: Path, files: list[Path], split: str | None) -> list[Path]:
    """Files whose folder, or tables whose name, begins with the split; never two splits mixed."""
    names = {}
    for file in files:
        parts = file.relative_to(folder).parts
        names[file] = parts[:-1] if file.suffix.lower() in AUDIO_SUFFIXES else parts
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


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 with its mark; ValueError for any other encoding."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not UTF-8 (byte 0x{data[error.start]:02x} in line {line}); expected UTF-8: "
            "save it as such"
        ) from error
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error}); expected a text file") from error
    if "\0" in text:
        raise ValueError(f"{path} holds zero bytes, as UTF-16 has; expected UTF-8: save it as such")
    return text


def _text_table_rows(path: Path, columns: Columns, split: str | None = None) -> Iterator[dict]:
    """Rows of metadata.csv or .jsonl as AudioFolder has them, of NeMo, and of Common Voice."""
    text, rows = read_text(path), []
    try:
        if path.suffix in (".csv", ".tsv"):
            separator, quoting = (
                ("\t", csv.QUOTE_NONE) if path.suffix == ".tsv" else (",", csv.QUOTE_MINIMAL)
            )
            lines = io.StringIO(text, newline="")
            for row in (reader := csv.DictReader(lines, delimiter=separator, quoting=quoting)):
                if None in row:
                    raise ValueError(
                        f"line {reader.line_num} has more fields than the header: put a text with "
                        f'commas in quotes, as in {row[reader.fieldnames[0]]},"Well, yes"'
                    )
                rows.append(row)
        else:
            for number, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    rows.append(_object(line, number))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} can't be read ({error}); expected CSV or JSON lines") from error
    chosen = 0
    for number, row in enumerate(rows, 1):
        names = (columns.audio, *FILE_COLUMNS)
        file_column = next((name for name in names if name in row), columns.audio)
        if columns.text not in row and "sentence" in row:
            row[columns.text] = row["sentence"]
        columns.check(row, path, file_column)
        name = Path(str(row[file_column] or ""))
        if split is not None and not re.match(rf"{re.escape(split)}[-_./]", name.as_posix()):
            continue
        chosen += 1
        clips = path.parent / "clips"
        folder = clips if file_column == "path" and clips.is_dir() else path.parent
        audio = folder / name if row[file_column] else None
        # Of a metadata file no `seconds` are taken: the file's header knows.
        seconds = row.get("duration") if file_column == "audio_filepath" else None
        if seconds is not None and audio:
            start, seconds = _numbers(f"row {number} of {path}", row.get("offset") or 0, seconds)
            audio = audio if row.get("offset") is None else Excerpt(audio, start, seconds)
        found = {columns.audio: audio, "seconds": seconds}
        yield {"id": name.with_suffix("").as_posix() if audio else None} | row | found
    if split is not None and not chosen:
        raise ValueError(f"{path} has no file in a folder {split}; expected some: check the split")


def _object(line: str, number: int) -> dict:
    """What a line of JSON lines holds; ValueError with the line's number if it is no object."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}, column {error.colno}: {error.msg}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} holds no object: {{...}}")
    return row


def _numbers(where, *values) -> list[float]:
    """Times in seconds; of an endless recording nobody has a part."""
    try:
        numbers = [float(value) for value in values]
        if all(map(math.isfinite, numbers)):
            return numbers
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{where} has times {values}; expected numbers, in seconds")


def _pairs(path: Path) -> dict[str, str]:
    """`{first word: the rest}` of each line."""
    lines = (line.split(maxsplit=1) for line in read_text(path).split("\n") if line.strip())
    return {name: " ".join(rest).strip() for name, *rest in lines}


def _kaldi_rows(folder: Path, columns: Columns) -> Iterator[dict]:
    """Rows of a data folder of Kaldi: wav.scp, text, and segments where there are any."""
    sounds, segments = _pairs(folder / "wav.scp"), folder / "segments"
    texts = _pairs(folder / "text") if columns.text_required else {}
    places = _pairs(segments) if segments.is_file() else dict.fromkeys(sounds, "")
    for name, place in places.items():
        recording, *times = place.split() or [name]
        value = sounds.get(recording, "|")
        if value.endswith("|"):
            raise ValueError(
                f"{folder}/wav.scp has {value!r} for {recording}; expected the path of a sound "
                "file: run such commands first, and list what they write"
            )
        path = folder / value
        path = path if path.exists() else Path(value)
        if times:
            start, end = _numbers(f"{name} in {segments}", *times)
            path = Excerpt(path, start, end - start)
        yield {"id": name, columns.audio: path, columns.text: texts.get(name)}


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
