"""From clips to batches: which clips together, decoded ahead of their use."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tiny_asr.audio import pad_batch
from tiny_asr.data.dataset import SpeechData
from tiny_asr.data.utterance import BadClip, Utterance


def make_batches(
    data: Sequence[Utterance],
    *,
    max_seconds: float,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    max_clips: int = 128,
    among: np.ndarray | None = None,
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
        among: the epoch's clips, as indices into `data`; None: all of them.
    """
    seconds = np.array([utterance.seconds for utterance in data])
    if max_clips < 1 or max_seconds < seconds.max():
        raise ValueError(
            f"max_seconds={max_seconds} and max_clips={max_clips} came; expected room for the "
            f"longest clip ({seconds.max():.2f} s): raise them, or leave long clips out"
        )
    rng = np.random.default_rng([seed, epoch])
    order = np.arange(len(seconds)) if among is None else among
    order = rng.permutation(order) if shuffle else order
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
                self.data.drop(index, bad)
            else:
                clips.append(self.data[index])
        padded, lengths = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)
        if waveforms:
            padded, lengths = pad_batch(waveforms, self.multiple, self.pin)
        texts, seconds = [clip.text for clip in clips], [clip.seconds for clip in clips]
        return Batch([clip.id for clip in clips], padded, lengths, texts, seconds)
