"""What the page of `tiny-asr demo` shows while somebody speaks. It knows nothing of Gradio.

A `Listener` works in a thread of its own, so that the page can put in each block as it comes.
"""

from collections.abc import Sequence
from html import escape
from threading import Lock, Thread

import numpy as np
import torch

from tiny_asr.audio import resampled
from tiny_asr.listen.listener import Heard, Listener
from tiny_asr.listen.sources import Inbox


class Live:
    """One recording that goes on.

    Args:
        model: an `ASRModel`.
        lock: held while the model works, which may do one thing at a time.
        beams, hints: see `ASRModel.transcribe`.
    """

    def __init__(self, model, lock: Lock, beams: int = 1, hints: Sequence[str] = ()):
        self.heard = Heard()
        self._inbox, self._lock, self._thread = Inbox(), lock, Thread()
        self._listener = Listener(model, beams, hints)

    def put(self, samples: np.ndarray, sampling_rate: int) -> None:
        """Add a block of integers of 16 bits, (n,) or (n, channels), all at one rate in Hz."""
        mono = torch.from_numpy(samples).float().reshape(len(samples), -1).mean(dim=1) / 32_768
        self._inbox.put(mono)
        if self._thread.ident is None:  # the first block brings the rate
            self._thread = Thread(target=self._run, args=(sampling_rate,), daemon=True)
            self._thread.start()

    def _run(self, sampling_rate: int) -> None:
        for block in resampled(self._inbox, sampling_rate):
            with self._lock:
                self.heard = self._listener.hear(block)
        with self._lock:
            self.heard = Heard(self._listener.finish(), "", self.heard.seconds)

    def finish(self) -> None:
        """End the recording, and read what is left of it."""
        self._inbox.close()
        if self._thread.ident is not None:
            self._thread.join()

    def html(self) -> str:
        """What is understood so far; the tentative part in `<span class="tentative">`."""
        final, tentative = escape(self.heard.final), escape(self.heard.tentative)
        return f'{final} <span class="tentative">{tentative}</span>'
