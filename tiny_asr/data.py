"""From a data set on disk or on the hub to batches of sound and text.

Most training runs go wrong here rather than in the model: a clip without its text, a torn file, a
batch that does not fit into memory, an order of clips that another number of GPUs changes. So every
clip that is left out is counted with its reason, audio stays encoded until a batch needs it, and
the batches depend on the data, the seed and the epoch alone: they are made for all processes
together and split among them afterwards.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tiny_asr.audio import pad_batch
from tiny_asr.sources import Columns, read_rows
from tiny_asr.utterance import NO_TEXT, BadClip, Utterance, normalise_transcript, stated_seconds

# Columns worth a WER of their own, under the name that the report uses.
GROUP_COLUMNS = {name: name for name in ("speaker", "voice", "engine", "corpus", "family", "kind")}
GROUP_COLUMNS |= {"speaker_id": "speaker", "gender": "gender", "accent": "accent"}
OTHER_COLUMNS = {"id", "seconds", *GROUP_COLUMNS}


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
                "least one: check the audio and text columns"
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
) -> SpeechData:
    """Read a data set; its audio stays encoded (20 h of Opus take about 300 MB).

    Args:
        source: a parquet file; a folder of parquet files; a folder of audio with metadata.csv or
            metadata.jsonl (`file_name` and the text column, as `datasets` has it) or with X.txt
            beside X.flac; a hub id, `owner/name` or `owner/name:config`, streamed; or several of
            these. In a table `seconds` is used if there, and `id`, else the row's number.
        split: of a folder or a hub id: train, dev, ... (sub-folder, or the file names' beginning).
        limit: stop after so many kept clips.
        require_text: leave out clips without text; if False, the text column may be missing.
    Raises ValueError for a source that can't be found or read, and if no clip is kept.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} came; expected at least 1, or None for all clips")
    sources = [source] if isinstance(source, str | Path) else list(source)
    columns = Columns(audio_column, text_column, require_text, frozenset(OTHER_COLUMNS))
    utterances, dropped = [], Counter()
    rows = chain.from_iterable(read_rows(one, split, columns) for one in sources)
    for number, row in enumerate(rows):
        text = row.get(text_column)
        if not isinstance(text, str | None):
            raise ValueError(
                f"column {text_column!r} holds {type(text).__name__}; expected text: name another"
            )
        target = normalise_transcript(text or "")
        try:
            if require_text and not target:
                raise BadClip(NO_TEXT, "")
            seconds = stated_seconds(row[audio_column], row.get("seconds"))
        except BadClip as bad:
            dropped[bad.reason] += 1
            continue
        groups = {
            name: str(row[column])
            for column, name in GROUP_COLUMNS.items()
            if row.get(column) not in (None, "")
        }
        name = row.get("id")
        name = str(number if name is None else name)
        utterances.append(Utterance(name, target, seconds, groups, row[audio_column]))
        if len(utterances) == limit:
            break
    return SpeechData(utterances, dropped, ", ".join(map(str, sources)))


def noise_utterances(source: str | Path | Sequence[str | Path], **options) -> SpeechData:
    """Clips in which nobody speaks: any source and options of `load_data`, whatever its text."""
    clips = load_data(source, require_text=False, **options)
    return SpeechData([replace(clip, text="") for clip in clips], clips.dropped, clips.name)


# Batches -----------------------------------------------------------------------------------------


def make_batches(
    data: Sequence[Utterance],
    *,
    max_seconds: float,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    max_clips: int = 128,
) -> list[list[int]]:
    """One epoch's global batches, as indices into `data`: each clip once, like lengths together.

    They are for all processes together (see `rank_slice`), so the number of processes changes
    nothing; the same data, seed and epoch give the same batches.

    Args:
        max_seconds: of padded audio in a batch: clips x the longest of them, before speed
            perturbation and rounding.
        shuffle: shuffle, sort by length within chunks of some 50 batches, shuffle the batches. If
            not, sort everything, the longest clips first: if memory runs out, it does so at once.
        max_clips: in a batch, however short.
    """
    seconds = np.array([utterance.seconds for utterance in data])
    if max_clips < 1 or max_seconds < seconds.max():
        raise ValueError(
            f"max_seconds={max_seconds} and max_clips={max_clips} came; expected room for the "
            f"longest clip ({seconds.max():.2f} s): raise them, or leave long clips out"
        )
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(seconds)) if shuffle else np.arange(len(seconds))
    chunk = int(50 * max_seconds / seconds.mean()) if shuffle else len(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        batch: list[int] = []
        for index in part[np.argsort(-seconds[part], kind="stable")].tolist():
            full = len(batch) == max_clips
            if batch and (full or (len(batch) + 1) * seconds[batch[0]] > max_seconds):
                batches.append(batch)
                batch = []
            batch.append(index)
        batches.append(batch)
    return [batches[i] for i in rng.permutation(len(batches))] if shuffle else batches


def rank_slice(batch: Sequence[int], rank: int, num_processes: int) -> Sequence[int]:
    """One process's share of a global batch: every `num_processes`-th clip, so lengths are alike.

    The shares together are the batch. With fewer clips than processes some are empty: such a
    process must still take its part in every reduction, with a loss and a token count of 0.
    """
    if not 0 <= rank < num_processes:
        raise ValueError(f"rank {rank} of {num_processes} came; expected 0 to {num_processes - 1}")
    return batch[rank::num_processes]


@dataclass(frozen=True)
class Batch:
    """Decoded clips: waveforms (B, S) float32 zero-padded, lengths (B,) int64 in samples.

    B is 0 where a process has no share of a batch, or none of its clips could be decoded.
    """

    ids: list[str]
    waveforms: Tensor
    lengths: Tensor
    texts: list[str]
    seconds: list[float]

    def __len__(self) -> int:
        return len(self.ids)


class Loader:
    """Decodes batches ahead of their use, in threads: libsndfile lets go of Python's lock.

    Yields exactly one `Batch` for each global batch, in order, so that all processes keep in step.
    A clip that can't be decoded is counted by `data.drop`, and its batch goes on without it.

    Args:
        data: what the batches index.
        batches: from `make_batches`; a resumed run passes the rest of them.
        multiple: waveforms and lengths are rounded up to it, in samples (`config.
            samples_per_embedding`); 1 keeps each clip's own length, as augmentation wants it.
        rank, num_processes: which share of each batch to decode.
        workers: threads; ahead: batches decoded before they are asked for.
        pin: put the waveforms where a GPU can copy them from.
    """

    def __init__(
        self,
        data: SpeechData,
        batches: Sequence[Sequence[int]],
        *,
        multiple: int = 1,
        rank: int = 0,
        num_processes: int = 1,
        workers: int = 4,
        ahead: int = 4,
        pin: bool = False,
    ):
        self.data, self.multiple, self.workers, self.ahead = data, multiple, workers, ahead
        self.pin = pin
        self.shares = [rank_slice(batch, rank, num_processes) for batch in batches]

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[Batch]:
        pool, padding = ThreadPoolExecutor(self.workers), ThreadPoolExecutor(1)
        waiting = deque()

        def collect(decoding: list) -> Callable[[], Batch]:
            # For a GPU in a thread of its own. On a CPU that thread's threads would compete with
            # those of the training: it is a fifth slower.
            if self.pin:
                return padding.submit(self._collect, decoding).result
            return partial(self._collect, decoding)

        try:
            for share in self.shares:
                clips = [(index, pool.submit(self.data[index].load)) for index in share]
                waiting.append(collect(clips))
                if len(waiting) > self.ahead:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()
        finally:  # also when the reader stops early
            pool.shutdown(wait=False, cancel_futures=True)
            padding.shutdown(cancel_futures=True)

    def _collect(self, decoding: list) -> Batch:
        clips, waveforms = [], []
        for index, future in decoding:
            try:
                waveforms.append(future.result())
            except BadClip as bad:
                self.data.drop(index, bad.reason)
            else:
                clips.append(self.data[index])
        padded, lengths = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)
        if waveforms:
            padded, lengths = pad_batch(waveforms, self.multiple, self.pin)
        return Batch(
            [clip.id for clip in clips],
            padded,
            lengths,
            [clip.text for clip in clips],
            [clip.seconds for clip in clips],
        )
