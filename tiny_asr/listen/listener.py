"""Text of a recording that still goes on: `Listener`.

While somebody speaks, the piece since the last pause is read anew, again and again, and its text is
tentative. It is final when the piece is: when no sound to come could make `audio.cut` draw its
borders elsewhere, as long as none is louder than the loudest so far, relative to which quiet is
found. In the end the whole recording is cut, and only pieces that were not read before, sample for
sample, are read: so the text is that of `ASRModel.transcribe`, whatever came when. (In bfloat16 and
float16 batches of other sizes may round otherwise, see docs/serving.md.)
"""

import time
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import blake2b
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tiny_asr.audio import LONG_QUIET, cut, timed_pieces
from tiny_asr.files.levels import short_time_level
from tiny_asr.model import BATCH_SIZE, ASRModel
from tiny_asr.search.writing import in_batches
from tiny_asr.shapes import SAMPLE_RATE

STEP = 0.3  # seconds of new sound that are worth a step: about a word


class Heard(NamedTuple):
    """What is understood so far."""

    final: str = ""  # only grows
    tentative: str = ""  # what follows it, and may change
    seconds: float = 0.0  # of the sound that was read for it


class Listener:
    """Hears a recording block by block; a temporary file holds it, memory what is open.

    Args:
        model: an `ASRModel`, called in the thread that calls `hear` and `finish`.
        beams, hints: see `ASRModel.transcribe`.
    """

    def __init__(self, model: ASRModel, beams: int = 1, hints: Sequence[str] = ()):
        self._model, self._search = model, {"beams": beams, "hints": hints}
        self._file = TemporaryFile()  # noqa: SIM115 (open as long as this lives)
        self._samples = 0  # in the file, as float32
        self._open = 0  # the sample that the first piece begins with whose borders may change
        self._loudest = -torch.inf  # dB, before it
        self._texts: dict[bytes, str] = {}  # of all pieces that were read, by their samples
        self._heard = Heard()
        self._pause = STEP  # seconds of sound from one step to the next

    def hear(self, block: Tensor) -> Heard:
        """Take the next block (n,) of the recording at 16 kHz, of any size, and read what is open.

        A step is left out, and what was heard before is returned, while less sound has come than
        `STEP`, or than the last step took to compute: so it does not fall behind by more than that.
        Raises ValueError for what is no block of finite numbers.
        """
        if block.ndim != 1 or not block.isfinite().all():
            what = "with NaN or Inf" if block.ndim == 1 else f"of shape {tuple(block.shape)}"
            raise ValueError(f"a block {what} came; expected finite samples (n,): check the source")
        self._file.write(block.float().numpy().tobytes())
        self._samples += len(block)
        if self._samples / SAMPLE_RATE - self._heard.seconds >= self._pause:
            start = time.perf_counter()
            self._heard = self._step()
            self._pause = max(STEP, time.perf_counter() - start)
        return self._heard

    def finish(self) -> str:
        """The text of the whole recording: that of `ASRModel.transcribe`, empty without sound."""
        if self._samples == 0:
            return ""
        return _joined(self._read(cut(self._recorded(0), self._model.config.max_seconds)))

    def _recorded(self, start: int) -> Tensor:
        """The recording from a sample on, (S,), as a view of the file."""
        self._file.flush()
        return torch.from_numpy(np.memmap(self._file, np.float32, "c", 4 * start))

    def _step(self) -> Heard:
        """Cut and read what is open, and close the pieces that are finished."""
        sound, longest = self._recorded(self._open), self._model.config.max_seconds
        pieces, sure = timed_pieces(sound, longest, self._loudest), set()
        if len(pieces) > 1:  # of the newest 0.8 s all may yet turn out to be quiet, and be left out
            settled = timed_pieces(sound[:-LONG_QUIET], longest, self._loudest)
            sure = {tuple(times) for _, *times in settled[:-1]}
        texts = self._read([piece for piece, _, _ in pieces])
        closed = 0
        while closed + 1 < len(pieces) and tuple(pieces[closed][1:]) in sure:
            closed += 1
        if closed:
            border = round(pieces[closed][1] * SAMPLE_RATE)
            self._loudest = max(self._loudest, float(short_time_level(sound[:border])[1]))
            self._open += border
        final = _joined([self._heard.final, *texts[:closed]])
        return Heard(final, _joined(texts[closed:]), self._samples / SAMPLE_RATE)

    def _read(self, pieces: Sequence[Tensor]) -> list[str]:
        """The texts of pieces; those are read, side by side, that were not read before."""
        keys = [blake2b(piece.numpy()).digest() for piece in pieces]
        new = {
            key: piece for key, piece in zip(keys, pieces, strict=True) if key not in self._texts
        }
        at_once = max(1, BATCH_SIZE // max(1, self._search["beams"]))
        write = partial(self._model.generate, **self._search)
        rows = in_batches(write, list(new.values()), at_once)
        self._texts |= dict(zip(new, self._model.processor.batch_decode(rows), strict=True))
        return [self._texts[key] for key in keys]


def _joined(texts: Iterable[str]) -> str:
    return " ".join(filter(None, texts))
