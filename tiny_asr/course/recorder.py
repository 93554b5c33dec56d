"""Your own voice in a notebook: record from the browser's microphone, or pick a file.

The browser records, decodes and resamples (`recorder.js`); what arrives here is always mono float32
at 16 kHz. It comes as a message and not as the widget's state, which is saved with a notebook:
nobody's voice should be published by accident.
"""

from pathlib import Path

import anywidget
import numpy as np
import torch
from torch import Tensor
from traitlets import Int, Unicode

from tiny_asr.audio import load_audio
from tiny_asr.files.levels import require_sound
from tiny_asr.shapes import MAX_SECONDS, SAMPLE_RATE


class VoiceRecorder(anywidget.AnyWidget):
    """A button that records, and one that picks a file; the clip is then in `waveform`.

    Attributes:
        waveform: the last clip (S,), mono, float32, 16 kHz, at most 30 s; None before there is one,
            and after one that could not be used.
        status: what the widget says about it.
    """

    _esm = Path(__file__).with_name("recorder.js")
    _css = """
        .tiny-asr-recorder { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5em; }
        .tiny-asr-recorder button { width: auto; }
        .tiny-asr-recorder meter { width: 8em; }
        .tiny-asr-recorder [role=status] { flex-basis: 100%; }
    """
    sampling_rate = Int(SAMPLE_RATE).tag(sync=True)
    max_seconds = Int(MAX_SECONDS).tag(sync=True)
    status = Unicode("Press Record and say a sentence, or choose a file.").tag(sync=True)

    def __init__(self):
        super().__init__()
        self.waveform: Tensor | None = None
        self.on_msg(self._receive)

    def _receive(self, _, content: dict, buffers: list) -> None:
        """A clip from the browser: its source in `content`, its samples in the one buffer."""
        self.status = ""  # the page is only told of changes, and the answer may be the one before
        try:
            samples = torch.from_numpy(np.frombuffer(buffers[0], "<f4").copy())
            self.waveform = require_sound(load_audio(samples, SAMPLE_RATE))
        except ValueError as error:
            self.waveform = None
            self.status = f"{content['source']}: {error}"
            return
        seconds = len(self.waveform) / SAMPLE_RATE
        self.status = f"{seconds:.1f} s from {content['source']}. Now run the cells below."

    def __repr__(self) -> str:
        # What GitHub shows, and what nbval compares.
        return "VoiceRecorder: a microphone and a file picker, in a running notebook"
