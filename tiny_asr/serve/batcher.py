"""Requests that wait are decoded together: one thread, one model, batches of pieces.

Pieces are cut as `ASRModel.transcribe` cuts them, and none depends on the others in its batch. Each
clip that waits gives one in turn: a sentence is not held up by the hour of sound before it.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread

log = logging.getLogger("tiny_asr")

Decode = Callable[[list], list]


@dataclass
class Job:
    """One clip that is being transcribed."""

    pieces: Sequence
    future: Future  # of the texts of all pieces
    texts: dict = field(default_factory=dict)  # by number of the piece
    taken: int = 0  # pieces that were handed out


class Batcher:
    """A thread that decodes the pieces of all clips which wait, side by side.

    Args:
        decode: pieces to their texts; what these are is not known here.
        batch_size: pieces that are decoded together, at most.

    `sizes` counts the batches that were decoded, by their size.
    """

    def __init__(self, decode: Decode, batch_size: int):
        self._decode, self._batch_size = decode, batch_size
        self._waiting: deque[Job] = deque()
        self._changed = Condition()
        self._closing = False
        self.sizes: Counter[int] = Counter()
        self._thread = Thread(target=self._run, name="tiny-asr-batcher", daemon=True)
        self._thread.start()

    def submit(self, pieces: Sequence) -> Future:
        """Queue one clip's pieces; the future holds their texts. Cancel it, and it is left out."""
        future: Future = Future()
        with self._changed:
            if self._closing:
                raise RuntimeError("the server is stopping and takes no more clips")
            if not pieces:
                future.set_result([])
                return future
            self._waiting.append(Job(pieces, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self.sizes[len(batch)] += 1
            for (job, number), answer in zip(batch, self._answers(batch), strict=True):
                _settle(job, number, answer)

    def _next_batch(self) -> list[tuple[Job, int]]:
        """Jobs and the numbers of their pieces; waits for some, and is empty at the end only."""
        batch: list[tuple[Job, int]] = []
        with self._changed:
            while not batch and (self._waiting or not self._closing):
                self._changed.wait_for(lambda: self._waiting or self._closing)
                while self._waiting and len(batch) < self._batch_size:
                    job = self._waiting.popleft()
                    if job.future.done():  # cancelled, or one of its pieces failed
                        continue
                    batch.append((job, job.taken))
                    job.taken += 1
                    if job.taken < len(job.pieces):
                        self._waiting.append(job)
        return batch

    def _answers(self, batch: list[tuple[Job, int]]) -> list:
        """A text or an error for each piece; one that can't be decoded spoils no other."""
        pieces = [job.pieces[number] for job, number in batch]
        try:
            return self._decode(pieces)
        except Exception as error:  # whatever it is, those who wait must hear of it
            if len(batch) == 1:
                log.exception("a piece could not be decoded")
                return [error]
        return [answer for one in batch for answer in self._answers([one])]


def _settle(job: Job, number: int, answer) -> None:
    """Note a piece's text; the last one completes the clip, an error ends it."""
    if job.future.done():
        return
    if not isinstance(answer, Exception):
        job.texts[number] = answer
        if len(job.texts) < len(job.pieces):
            return
    if not job.future.set_running_or_notify_cancel():  # its client went away just now
        return
    if isinstance(answer, Exception):
        job.future.set_exception(answer)
    else:
        job.future.set_result([job.texts[i] for i in range(len(job.pieces))])
