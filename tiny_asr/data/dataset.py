"""From a data set on disk or on the hub to batches of sound and text.

Most training runs go wrong here rather than in the model: a clip without its text, a torn file, a
batch that does not fit into memory, an order of clips that another number of GPUs changes. So every
clip that is left out is counted with its reason, audio stays encoded until a batch needs it, and
the batches depend on the data, the seed and the epoch alone: they are made for all processes
together and split among them afterwards.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from torch import Tensor

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
from tiny_asr.shapes import MAX_SECONDS

# Columns worth a WER of their own, under the name that the report uses.
GROUP_COLUMNS = {name: name for name in ("speaker", "voice", "engine", "corpus", "family", "kind")}
GROUP_COLUMNS |= {"speaker_id": "speaker", "gender": "gender", "accent": "accent"}
OTHER_COLUMNS = {"id", "seconds", "sampling_rate", "sample_rate", *GROUP_COLUMNS}


class SpeechData(Sequence[Utterance]):
    """A data set's clips, and a count of those left out by reason in `dropped`.

    Args:
        utterances: what is kept; ids that occur again get `#2`, `#3`, ... appended.
        dropped: what was left out before.
        name: for messages.
    Raises ValueError if nothing is kept.
    """

    def __init__(
        self, utterances: Iterable[Utterance], dropped: Counter | None = None, name: str = "data"
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
        self.dropped, self.name = Counter(dropped), name
        self._bad: set[int] = set()
        if not self._utterances:
            raise ValueError(
                f"{name} has no usable clip ({self._reasons() or 'it has no rows'}); expected at "
                f"least one: {_advice(self.dropped)}"
            )

    def __len__(self) -> int:
        return len(self._utterances)

    def __getitem__(self, index: int) -> Utterance:
        return self._utterances[index]

    def drop(self, index: int, reason: str) -> None:
        """Count a clip that turned out bad when decoded: once, however often that happens.

        It stays in the data, so that batches do not depend on what was decoded before. Raises
        ValueError when every clip was dropped so.
        """
        if index in self._bad:
            return
        self._bad.add(index)
        self.dropped[reason] += 1
        if len(self._bad) == len(self):
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
                self.drop(index, bad.reason)
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
        return SpeechData([*self, *chosen], self.dropped, self.name)

    def summary(self) -> str:
        """How much there is, and on a second line what was left out and why."""
        seconds = [utterance.seconds for utterance in self]
        text = f"{self.name}: {len(self)} clips, {sum(seconds) / 3600:.2f} h, "
        text += f"{min(seconds):.1f} to {max(seconds):.1f} s each"
        if self.dropped:
            text += f"\ndropped {self.dropped.total()}: {self._reasons()}"
        return text

    def _reasons(self) -> str:
        return ", ".join(f"{reason} {count}" for reason, count in self.dropped.most_common())


def load_data(
    source: str | Path | Sequence[str | Path],
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
            a folder of audio with metadata.csv or metadata.jsonl (`file_name` and the text column,
            as `datasets` has it) or with X.txt beside X.flac; a manifest of NeMo; a folder of
            Kaldi, Common Voice or LibriSpeech as it lies; a hub id, `owner/name` or
            `owner/name:config`, streamed; or several of these. In a table `seconds` is used if
            there, and `id`, else the row's number.
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
    sources = [source] if isinstance(source, str | Path) else list(source)
    columns = Columns(audio_column, text_column, require_text, frozenset(OTHER_COLUMNS))
    utterances, dropped, first = [], Counter(), {}
    rows = chain.from_iterable(read_rows(one, split, columns) for one in sources)
    for number, row in enumerate(rows):
        said = row.get(text_column)
        if not isinstance(said, str | None):
            raise ValueError(
                f"column {text_column!r} holds {type(said).__name__}; expected text: name another"
            )
        name = row.get("id")
        name = str(number if name is None else name)
        try:
            said = said or ""
            target = target_of(said, name, text) if require_text else text_of(said, text)
            seconds = stated_seconds(row[audio_column], row.get("seconds"), name)
            if max_seconds is not None and seconds > max_seconds:
                raise BadClip(TOO_LONG, f"clip {name!r} lasts {seconds:.2f} s")
            if require_text:
                check_pace(target, seconds, name)
        except BadClip as bad:
            dropped[bad.reason] += 1
            if bad.reason in (UNWRITABLE, TOO_MUCH, TOO_LITTLE):
                first.setdefault(bad.reason, str(bad))
            continue
        groups = {
            name: str(row[column])
            for column, name in GROUP_COLUMNS.items()
            if row.get(column) not in (None, "")
        }
        utterances.append(Utterance(name, target, seconds, groups, row[audio_column]))
        if len(utterances) == limit:
            break
    title = ", ".join(map(str, sources))
    for reason, bad in first.items():
        count = f"{dropped[reason]} left out for {reason}"
        warnings.warn(f"{title}: {count}, the first is {bad}", stacklevel=2)
    return SpeechData(utterances, dropped, title)


def _advice(dropped: Counter) -> str:
    """What to do where no clip is left."""
    if UNWRITABLE in dropped:
        return "keep the text as it is written with --text written, or write it as it is spoken"
    return "check the audio and text columns"


def noise_utterances(source: str | Path | Sequence[str | Path], **options) -> SpeechData:
    """Clips in which nobody speaks: any source and options of `load_data`, whatever its text."""
    clips = load_data(source, require_text=False, **options)
    return SpeechData([replace(clip, text="") for clip in clips], clips.dropped, clips.name)
