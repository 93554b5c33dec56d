"""Levels of sound, and those that can't be right: channels that cancel, silence, a spike."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import max_pool1d

from tiny_asr.files.reading import AudioError
from tiny_asr.shapes import HOP_LENGTH, SAMPLE_RATE

LEVEL_WINDOW = SAMPLE_RATE // 20  # 50 ms: the level of noise is steady over it, a voice's is not
LOUDEST_FRAMES = 10  # 0.1 s: a spike is shorter

CANCELLED = 1e-3  # -30 dB: what remains of a voice that came in opposite phase
SILENCE = "digital silence"
QUIETEST_PEAK = 1e-3  # -60 dB: speech into a poor microphone is louder, a muted one is below it
TOO_LOUD = 10.0  # no recording in floats is 20 dB over full scale


def short_time_level(waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Level of a clip (S,) in dB (1, N), N = 1 + (S - 800) // 160; and the loudest, over 0.1 s."""
    windows = waveform.unfold(0, LEVEL_WINDOW, HOP_LENGTH)  # not squared: 3 h would take 0.7 GB
    norms = torch.linalg.vector_norm(windows, dim=1, dtype=torch.float32)
    level = 20 * norms.clamp(min=1e-6).log10()[None]
    return level, (-max_pool1d(-level, LOUDEST_FRAMES, 1)).max()  # the lowest of each 0.1 s


@dataclass
class Levels:
    """Averages a sound's channels, block by block, and looks at its levels on the way."""

    samples: int = 0
    bad: int = 0  # NaN or Inf
    beyond: int = 0  # samples above full scale
    peak: float = 0.0
    energy: float = 0.0  # of the channels' mean
    each: float = 0.0  # mean of the channels' energies

    def mono(self, block: np.ndarray) -> torch.Tensor:
        """(n, channels) -> (n,)."""
        each = torch.from_numpy(block)
        mono = each[:, 0].clone() if block.shape[1] == 1 else each.mean(dim=1)
        self.samples += len(mono)
        peak = float(each.abs().max()) if len(mono) else 0.0
        if not math.isfinite(peak):
            self.bad += int((~each.isfinite()).sum())
        self.peak = max(self.peak, peak)
        self.beyond += int((each.abs() > 1).sum()) if peak > TOO_LOUD else 0
        self.energy += float(mono.square().sum())
        self.each += float(each.square().sum()) / block.shape[1]
        return mono

    def doubts(self, name: str) -> list[AudioError]:
        """What can't be right, with what to do."""
        if self.peak == 0:
            what = f"holds digital silence, all {self.samples} samples are 0: muted? Record again"
            return [AudioError(SILENCE, f"{name} {what}")]
        doubts = []
        if self.energy < CANCELLED * self.each:
            what = "has channels that cancel: their mean is nearly silence. Use one channel alone"
            doubts.append(AudioError("channels cancel", f"{name} {what}"))
        scale = f"{name} has a peak of {self.peak:g}; expected -1 to 1"
        if self.peak > TOO_LOUD and self.beyond > self.samples / 100:
            what = f"{scale}: floats on the scale of integers? Divide by 32768"
            doubts.append(AudioError("wrong scale", what))
        elif self.peak > TOO_LOUD:
            what = f"{scale}, as all but {self.beyond} samples are: cut out these"
            doubts.append(AudioError("a spike", what))
        return doubts


def require_sound(waveform: torch.Tensor) -> torch.Tensor:
    """Return a clip (S,) unchanged, or raise ValueError where it is as good as silent.

    A recogniser asked about silence may make words up, and a muted microphone is the most common
    reason for it.
    """
    peak = float(waveform.abs().max())
    if peak < QUIETEST_PEAK:
        raise ValueError(
            f"only silence came: the loudest of {len(waveform):,} samples is {peak:.2g}, and "
            f"speech reaches 0.1; expected at least {QUIETEST_PEAK:g}: is the microphone muted, or "
            "another one chosen?"
        )
    return waveform
