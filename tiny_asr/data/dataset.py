"""From a data set on disk or on the hub to batches of sound and text.

Most training runs go wrong here rather than in the model: a clip without its text, a torn file. So
every clip that is left out is named with its reason, and audio stays encoded until a batch needs
it.
"""

import csv
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from tiny_asr.data.mixing import Part, Share, epoch_of, in_an_epoch, parts_of
from tiny_asr.data.sources import Columns, read_rows
from tiny_asr.data.utterance import (
    TOO_LITTLE,
    TOO_LONG,
    TOO_MUCH,
    UNWRITABLE,
    BadClip,
    Utterance,
    check_pace,
    stated_seconds,
    target_of,
    text_of,
)
from tiny_asr.files.writing import write_text
from tiny_asr.shapes import MAX_SECONDS

# Columns worth a WER of their own, under the name that the report uses.
GROUP_COLUMNS = {name: name for name in ("speaker", "voice", "engine", "corpus", "family", "kind")}
GROUP_COLUMNS |= {"speaker_id": "speaker", "gender": "gender", "accent": "accent"}
OTHER_COLUMNS = {"id", "seconds", "sampling_rate", "sample_rate", *GROUP_COLUMNS}


class LeftOut(NamedTuple):
    """A clip that is not used: its id, the reason it is counted under, and what was found."""

    id: str
    reason: str
    detail: str = ""


class SpeechData(Sequence[Utterance]):
    """A data set's clips, and those left out: `left_out` names them, `dropped` counts the reasons.

    Args:
        utterances: what is kept; ids that occur again get `#2`, `#3`, ... appended.
        unread: what was left out before.
        name: for messages.
        shares: of a mixture, whose clips are those of one share after the other.
    Raises ValueError if nothing is kept.
    """

    def __init__(
        self,
        utterances: Iterable[Utterance],
        unread: Iterable[LeftOut] = (),
        name: str = "data",
        shares: Sequence[Share] = (),
    ):
        seen, taken = Counter(), set()
        self._utterances: list[Utterance] = []
        for utterance in utterances:
            unique = utterance.id
            while unique in taken:
                seen[utterance.id] += 1
                unique = f"{utterance.id}#{seen[utterance.id] + 1}"
            taken.add(unique)
            self._utterances.append(
                utterance if unique == utterance.id else replace(utterance, id=unique)
            )
        self.unread, self.name, self.shares = list(unread), name, list(shares)
        self.bad: dict[int, LeftOut] = {}  # by index, those that turned out bad when decoded
        if not self._utterances:
            raise ValueError(
                f"{name} has no usable clip ({self._reasons() or 'it has no rows'}); expected at "
                f"least one: {_advice(self.unread)}"
            )

    def __len__(self) -> int:
        return len(self._utterances)

    def __getitem__(self, index: int) -> Utterance:
        return self._utterances[index]

    @property
    def left_out(self) -> list[LeftOut]:
        """All that is left out, in the data's order as far as it is known."""
        return [*self.unread, *(self.bad[index] for index in sorted(self.bad))]

    @property
    def dropped(self) -> Counter:
        """How many clips were left out, by reason."""
        return Counter(clip.reason for clip in self.left_out)

    def drop(self, index: int, bad: BadClip) -> None:
        """Count a clip that turned out bad when decoded: once, however often that happens.

        It stays in the data, so that batches do not depend on what was decoded before. Raises
        ValueError when every clip was dropped so.
        """
        if index in self.bad:
            return
        self.bad[index] = LeftOut(self[index].id, bad.reason, str(bad))
        if len(self.bad) == len(self):
            raise ValueError(
                f"every clip of {self.name} was dropped ({self._reasons()}); expected at least one "
                "that decodes: listen to a few, or fetch them again"
            )

    def load_all(self, say: Callable[[str], None] = print) -> list[Tensor]:
        """The waveforms (S,) of all clips that decode; `say` is told which ones do not."""
        waveforms = []
        for index, clip in enumerate(self):
            try:
                waveforms.append(clip.load())
            except BadClip as bad:
                say(f"left out of {self.name}: {bad}")
                self.drop(index, bad)
        return waveforms

    def with_noise(self, noise: Sequence[Utterance], share: float = 0.04) -> "SpeechData":
        """Beside these clips, noise with empty targets: `share` of the whole, usually 3 to 5 %.

        They teach the decoder to write nothing where nobody speaks. `noise` is taken evenly, and
        again if it is too short: its copies have ids of their own, so each is augmented otherwise.
        """
        if not 0 <= share < 1 or (share > 0 and not noise):
            raise ValueError(
                f"{len(noise)} noise clips came for a share of {share}; expected at least one, and "
                "a share from 0 to below 1: try 0.04"
            )
        count = round(len(self) * share / (1 - share))
        chosen = [replace(noise[k * len(noise) // count], text="") for k in range(count)]
        shares = self.shares
        if shares and chosen:
            weight = sum(one.weight for one in shares) * share / (1 - share)
            shares = [*shares, Share("noise", count, weight)]
        return SpeechData([*self, *chosen], self.unread, self.name, shares)

    def epoch(self, seed: int, epoch: int) -> np.ndarray | None:
        """Which clips an epoch of a mixture holds (see `mixing`); None where it is all of them."""
        return epoch_of(self.shares, seed, epoch) if self.shares else None

    def summary(self) -> str:
        """How much there is, what a mixture takes of each set, and on the last line what was left
        out and why."""
        seconds = [utterance.seconds for utterance in self]
        text = f"{self.name}: {len(self)} clips, {sum(seconds) / 3600:.2f} h, "
        text += f"{min(seconds):.1f} to {max(seconds):.1f} s each"
        if self.shares:
            counts = in_an_epoch(self.shares)
            for one, taken in zip(self.shares, counts, strict=True):
                part = f"{taken / sum(counts):.0%}, {taken} of {one.clips} clips"
                text += f"\nof an epoch {part}: {one.name}"
        if left_out := self.left_out:
            text += f"\ndropped {len(left_out)}: {self._reasons()}"
        return text

    def _reasons(self) -> str:
        return ", ".join(f"{reason} {count}" for reason, count in self.dropped.most_common())


def write_left_out(path: Path, sets: Iterable[SpeechData]) -> None:
    """Write which clips some data sets leave out as CSV: id, reason, detail, data; no file is made
    for none. Rows that are there already stay, so that a resumed run forgets nothing. Raises
    OSError."""
    odd = "surrogateescape"  # of file names
    rows = [(*clip, data.name) for data in sets for clip in data.left_out]
    if path.is_file():
        with open(path, newline="", encoding="utf-8", errors=odd) as file:
            rows = [tuple(row) for row in csv.reader(file)][1:] + rows
    if rows:
        csv.writer(table := io.StringIO()).writerows(
            [(*LeftOut._fields, "data"), *dict.fromkeys(rows)]
        )
        write_text(path, table.getvalue(), odd)


def load_data(
    source: str | Path | Sequence,
    *,
    split: str | None = None,
    audio_column: str = "audio",
    text_column: str = "text",
    limit: int | None = None,
    require_text: bool = True,
    max_seconds: float | None = MAX_SECONDS,
    text: str = "plain",
) -> SpeechData:
    """Read a data set; its audio stays encoded (20 h of Opus take about 300 MB).

    Args:
        source: a parquet file, or a folder of them, with audio files or `{array, sampling_rate}`;
            tar shards (see `shards`), one or a folder of them, read where they lie;
            a folder of audio with metadata.csv or metadata.jsonl (`file_name` and the text column,
            as `datasets` has it) or with X.txt beside X.flac; a manifest of NeMo; a folder of
            Kaldi, Common Voice or LibriSpeech as it lies; a hub id, `owner/name` or
            `owner/name:config`, streamed; a name of `NAMED`, such as librispeech:test-clean; or
            several of these, with weights and columns of their own where they are mappings of
            `Part`'s fields (see `mixing`). In a table `seconds` is used if there, and `id`, else
            the row's number.
        split: of a folder or a hub id: train, dev, ... (sub-folder, or the file names' beginning).
        limit: stop after so many kept clips.
        require_text: leave out clips without text, and warn of those whose text can't be what was
            said in them; if False, the text column may be missing.
        max_seconds: leave out longer clips; None keeps them, for `evaluate`.
        text: `plain` or `written`: what the targets keep of the transcripts; see `target_of`.
    Raises ValueError for a source that can't be found or read, and if no clip is kept.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} came; expected at least 1, or None for all clips")
    parts = parts_of(source, split, audio_column, text_column)
    mixed = parts[0].weight is not None if parts else False
    if mixed and limit is not None:
        raise ValueError(
            f"limit={limit} came for a mixture, where it would leave sets out; expected it in the "
            "items of data: give each its own limit"
        )
    read, left_out, numbers = [], [], count()
    how = (require_text, max_seconds, text)
    for part in parts:
        left = None if limit is None else limit - sum(map(len, read))
        limits = [most for most in (left, part.limit) if most is not None]
        clips = _usable(part, numbers, left_out, *how) if left != 0 else iter(())
        read.append(list(islice(clips, min(limits, default=None))))
    title = ", ".join(part.data for part in parts)
    for reason in (UNWRITABLE, TOO_MUCH, TOO_LITTLE):
        if lost := [clip.detail for clip in left_out if clip.reason == reason]:
            what = f"{title}: {len(lost)} left out for {reason}, the first is {lost[0]}"
            warnings.warn(what, stacklevel=2)
    if mixed and (empty := [p.data for p, clips in zip(parts, read, strict=True) if not clips]):
        raise ValueError(
            f"{', '.join(empty)} of a mixture has no usable clip; expected some of each set: "
            f"{_advice(left_out)}"
        )
    shares = (
        Share(part.data, len(clips), part.weight)
        for part, clips in zip(parts, read, strict=True)
        if part.weight is not None
    )
    return SpeechData(chain.from_iterable(read), left_out, title, list(shares))


def _usable(
    part: Part,
    numbers: Iterator[int],
    left_out: list[LeftOut],
    require_text: bool,
    max_seconds: float | None,
    text: str,
) -> Iterator[Utterance]:
    """The clips of a part that training can use; the others are added to `left_out`."""
    columns = Columns(part.audio_column, part.text_column, require_text, frozenset(OTHER_COLUMNS))
    for row in read_rows(part.source, part.split, columns):
        number, audio, said = next(numbers), row[part.audio_column], row.get(part.text_column)
        if not isinstance(said, str | None):
            raise ValueError(
                f"column {part.text_column!r} holds {type(said).__name__}; expected text: name "
                "another"
            )
        name = row.get("id")
        name = str(number if name is None else name)
        try:
            said = said or ""
            target = target_of(said, name, text) if require_text else text_of(said, text)
            seconds = stated_seconds(audio, row.get("seconds"), name)
            if max_seconds is not None and seconds > max_seconds:
                raise BadClip(TOO_LONG, f"clip {name!r} lasts {seconds:.2f} s")
            if require_text:
                check_pace(target, seconds, name)
        except BadClip as bad:
            left_out.append(LeftOut(name, bad.reason, str(bad)))
            continue
        groups = {
            name: str(row[column])
            for column, name in GROUP_COLUMNS.items()
            if row.get(column) not in (None, "")
        }
        yield Utterance(name, target, seconds, groups, audio)


def _advice(left_out: Iterable[LeftOut]) -> str:
    """What to do where no clip is left."""
    if any(clip.reason == UNWRITABLE for clip in left_out):
        return "keep the text as it is written with --text written, or write it as it is spoken"
    return "check the audio and text columns"


def noise_utterances(source: str | Path | Sequence[str | Path], **options) -> SpeechData:
    """Clips in which nobody speaks: any source and options of `load_data`, whatever its text."""
    clips = load_data(source, require_text=False, **options)
    return SpeechData([replace(clip, text="") for clip in clips], clips.unread, clips.name)
