"""What rooms and telephones do to sound: filters, applied to a batch at once by FFT.

Only signal processing lies here; when and to which clip it happens is decided in `augment.py`.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
import torchaudio
from torch import Tensor

from tiny_asr.audio import pad_batch
from tiny_asr.shapes import SAMPLE_RATE

DIRECT_TO_REVERB_DB = (0.0, 12.0)  # from the far end of a room to arm's length
TELEPHONE_HZ = (300.0, 3400.0)  # the band of ITU-T G.712
LOW_PASS_HZ = (2000.0, 7000.0)  # from a bad radio to a lossy codec
FILTER_TAPS = 511  # 32 ms: an edge some 100 Hz wide, narrow enough for the one at 300 Hz
FILTER_DELAY = FILTER_TAPS // 2
QUIETEST = 1e-5  # -100 dB: an RMS below it is silence, and is not amplified


def change_speed(clips: list[Tensor], factor: float) -> list[Tensor]:
    """Clips (S,) at 16 kHz, played `factor` times as fast: ceil(S / factor) samples each."""
    ratio = Fraction(factor).limit_denominator(100)  # the filter has as many taps as its terms
    batch, _ = pad_batch(clips, 1)
    batch = torchaudio.functional.resample(batch, ratio.numerator, ratio.denominator)
    return [row[: math.ceil(len(clip) / ratio)] for row, clip in zip(batch, clips, strict=True)]


def room_response(rng: np.random.Generator, shortest: float, longest: float) -> np.ndarray:
    """The direct sound, then noise that decays exponentially: float32 (longest x 16 000 + 1,).

    Polack's statistical model of a room (1988). The time until the echo is 60 dB down is drawn from
    `shortest` to `longest` seconds.
    """
    time = np.arange(int(longest * SAMPLE_RATE)) / SAMPLE_RATE
    decay = math.log(1000) / rng.uniform(shortest, longest)  # an amplitude of 1/1000 is -60 dB
    echo = rng.standard_normal(len(time)) * np.exp(-decay * time)
    level = 10 ** (-rng.uniform(*DIRECT_TO_REVERB_DB) / 20)
    return np.concatenate([[1.0], level * echo / np.linalg.norm(echo)]).astype(np.float32)


def band_filter(rng: np.random.Generator) -> np.ndarray:
    """The telephone's band or, as often, all below a drawn frequency: float32 (FILTER_TAPS,)."""
    if rng.random() < 0.5:
        kernel = _low_pass(TELEPHONE_HZ[1]) - _low_pass(TELEPHONE_HZ[0])
    else:
        kernel = _low_pass(rng.uniform(*LOW_PASS_HZ))
    return kernel.astype(np.float32)


def _low_pass(cutoff: float) -> np.ndarray:
    """A linear-phase filter (FILTER_TAPS,) that lets frequencies below `cutoff` Hz through."""
    time = np.arange(FILTER_TAPS) - FILTER_DELAY
    kernel = np.sinc(2 * cutoff / SAMPLE_RATE * time) * np.hamming(FILTER_TAPS)
    return kernel / kernel.sum()


def filtered(
    waveforms: Tensor, sizes: Sequence[int], rows: list[int], kernels: list[np.ndarray], delay: int
) -> Tensor:
    """Some rows of (B, S) convolved with a kernel each, by FFT, at the loudness they had before.

    Long enough not to wrap around, so that the padding of a batch does not change its clips.
    """
    if not rows:
        return waveforms
    before = waveforms[rows]
    kernels = torch.from_numpy(np.stack(kernels)).to(waveforms.device)
    length = waveforms.shape[1]
    size = 1 << (length + kernels.shape[1] - 2).bit_length()  # a power of two is fastest
    spectrum = torch.fft.rfft(before, size) * torch.fft.rfft(kernels, size)
    after = torch.fft.irfft(spectrum, size)[:, delay : delay + length]
    own = [sizes[row] for row in rows]
    beyond = torch.arange(length, device=after.device)
    beyond = beyond >= torch.tensor(own, device=after.device)[:, None]
    after = after.masked_fill(beyond, 0.0)
    # At most 20 dB: what a band limit leaves of a clip without speech is not blown up.
    louder = rms(before, own) / rms(after, own).clamp(min=QUIETEST)
    waveforms = waveforms.clone()
    waveforms[rows] = after * louder.clamp(max=10.0)[:, None]
    return waveforms


def mixed(waveforms: Tensor, noise: Tensor, sizes: Sequence[int], snr_db: Tensor) -> Tensor:
    """Clips (B, S) and noise (B, S) at signal-to-noise ratios (B,); a silent clip stays silent."""
    level = rms(waveforms, sizes) / rms(noise, sizes).clamp(min=QUIETEST)
    level = level * 10 ** (-snr_db.to(waveforms.device) / 20)
    return waveforms + noise * level[:, None]


def rms(waveforms: Tensor, sizes) -> Tensor:
    """Root mean square (B,) of clips (B, S) that are 0 beyond their own sizes."""
    return (waveforms.square().sum(dim=1) / torch.tensor(sizes, device=waveforms.device)).sqrt()
