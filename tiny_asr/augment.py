"""Augmentation: the same few hours of speech, heard as if in many rooms and over many telephones.

A projector of two million weights learns three hours of speech by heart and recognises nobody else.
Changing each clip a little every time it is heard costs almost nothing, on the device where the batch
lies anyway, and is the cheapest cure. What happens to a clip is drawn from (seed, epoch, id) alone,
so that neither its batch, nor the number of processes, nor a resumed run changes it.

Everything is off by default. The order is that of the world: the speaker's speed, the room, the noise
in it, the channel, the recording's level; then masks on the log-mel and on the encoder's output.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
import torchaudio
from torch import Tensor

from tiny_asr.audio import MAX_SAMPLES, SAMPLE_RATE, pad_batch

DIRECT_TO_REVERB_DB = (0.0, 12.0)  # from the far end of a room to arm's length
TELEPHONE_HZ = (300.0, 3400.0)  # the band of ITU-T G.712
LOW_PASS_HZ = (2000.0, 7000.0)  # from a bad radio to a lossy codec
FILTER_TAPS = 511  # 32 ms: an edge some 100 Hz wide, narrow enough for the one at 300 Hz
QUIETEST = 1e-5  # -100 dB: an RMS below it is silence, and is not amplified


@dataclass
class AugmentConfig:
    """How often and how much; everything is off by default. Pairs are (lowest, highest).

    speed_factors: one is drawn for each clip; 0.9, 1.0 and 1.1 are usual. Pitch changes too.
    reverb_probability: share of clips that get an artificial room.
    reverb_seconds: its reverberation time (RT60), until the echo is 60 dB down.
    noise_probability: share of clips with noise from files added.
    noise_snr_db: how much louder the clip is than the noise.
    band_limit_probability: share of clips cut to the telephone's band or by a low-pass.
    gain_db: by how much each clip is made louder.
    time_masks: masks over time on each clip's log-mel.
    time_mask_frames: the longest of them, in mel frames of 10 ms.
    time_mask_share: the longest of them, as a share of the clip: a short word is not hidden whole.
    frequency_masks: masks over frequency on each clip's log-mel.
    frequency_mask_bins: the widest of them, in mel bins.
    frame_dropout: share of encoder frames that are set to 0.
    """

    speed_factors: tuple[float, ...] = (1.0,)
    reverb_probability: float = 0.0
    reverb_seconds: tuple[float, float] = (0.1, 0.6)
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    band_limit_probability: float = 0.0
    gain_db: tuple[float, float] = (0.0, 0.0)
    time_masks: int = 0
    time_mask_frames: int = 50
    time_mask_share: float = 0.2
    frequency_masks: int = 0
    frequency_mask_bins: int = 27
    frame_dropout: float = 0.0

    def __post_init__(self):
        self.speed_factors = tuple(self.speed_factors)  # YAML has lists only
        for name in ("reverb_seconds", "noise_snr_db", "gain_db"):
            pair = tuple(vars(self)[name])
            if len(pair) != 2 or not -math.inf < pair[0] <= pair[1] < math.inf:
                raise ValueError(f"{name}={pair} came; expected (lowest, highest)")
            setattr(self, name, pair)
        if not self.speed_factors or not all(0.5 <= f <= 2 for f in self.speed_factors):
            raise ValueError(f"speed_factors={self.speed_factors} came; expected some of 0.5 to 2")
        if not 0 < self.reverb_seconds[0] <= self.reverb_seconds[1] <= 5:
            raise ValueError(
                f"reverb_seconds={self.reverb_seconds} came; expected above 0, up to 5"
            )
        shares = ("reverb_probability", "noise_probability", "band_limit_probability")
        for name in (*shares, "time_mask_share", "frame_dropout"):
            if not 0 <= vars(self)[name] <= 1:
                raise ValueError(f"{name}={vars(self)[name]} came; expected 0 to 1")
        counts = ("time_masks", "time_mask_frames", "frequency_masks", "frequency_mask_bins")
        for name in counts:
            if vars(self)[name] < 0:
                raise ValueError(f"{name}={vars(self)[name]} came; expected 0 or more")

    @property
    def changes_waveform(self) -> bool:
        """Whether the waveform is changed."""
        shares = (self.reverb_probability, self.noise_probability, self.band_limit_probability)
        return any(shares) or self.speed_factors != (1.0,) or self.gain_db != (0.0, 0.0)

    @property
    def changes_encoder_input(self) -> bool:
        """Whether waveform or log-mel are changed, so that encoder outputs can't be cached."""
        return self.changes_waveform or self.time_masks > 0 or self.frequency_masks > 0


class Augment:
    """Augments batches on the device where they lie.

    Args:
        config: what to do.
        seed: with the epoch and a clip's id, it decides what happens to that clip.
        noise: waveforms (S,) at 16 kHz, needed if `noise_probability` is above 0.
    """

    def __init__(self, config: AugmentConfig, *, seed: int = 0, noise: Sequence[Tensor] = ()):
        if config.noise_probability > 0 and not noise:
            raise ValueError(
                f"noise_probability={config.noise_probability} came without noise; expected "
                "waveforms of it: name a file of noise clips, or set the probability to 0"
            )
        self.config, self.seed, self.noise = config, seed, list(noise)

    @torch.no_grad()
    def waveform(
        self, waveforms: Tensor, lengths: Tensor, ids: Sequence[str], epoch: int, multiple: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Speed, reverberation, noise, band limit and gain.

        Args:
            waveforms: (B, S) float32; lengths: each clip's own samples (B,).
            ids: of the B clips.
            multiple: as in `pad_batch`: what lengths and S are rounded up to afterwards.
        Returns:
            Waveforms (B, S') and lengths (B,), new ones where the speed was changed. Finite, 0 beyond
            each length, with the loudness (RMS) of the clip but for noise and gain.
        """
        _check(waveforms, lengths, ids, "(B, S)")
        sizes = lengths.tolist()
        with torch.autocast(waveforms.device.type, enabled=False):
            waveforms, lengths = self._speed(waveforms.float(), sizes, ids, epoch)
            sizes = lengths.tolist()
            for change in (self._reverb, self._noise, self._band_limit, self._gain):
                waveforms = change(waveforms, sizes, ids, epoch)
        clips = [row[:size] for row, size in zip(waveforms, sizes, strict=True)]
        return pad_batch(clips, multiple)

    @torch.no_grad()
    def mel(self, features: Tensor, lengths: Tensor, ids: Sequence[str], epoch: int) -> Tensor:
        """Masks over time and frequency, filled with the clip's mean.

        SpecAugment (Park et al. 2019, arXiv:1904.08779) without its time warping, which it found to
        matter least; widths are drawn uniformly from 0, a time mask is at most `time_mask_share` of
        the clip.

        Args:
            features: log-mel (B, M, F); lengths: each clip's own mel frames (B,).
        """
        _check(features, lengths, ids, "(B, M, F)")
        config, (batch, bins, frames) = self.config, features.shape
        if not (config.time_masks or config.frequency_masks):
            return features
        over_time = np.zeros((batch, 1, frames), dtype=bool)
        over_bins = np.zeros((batch, bins, 1), dtype=bool)
        own = np.arange(frames) < np.array(lengths.tolist())[:, None, None]  # (B, 1, F)
        for row, (size, clip_id) in enumerate(zip(lengths.tolist(), ids, strict=True)):
            rng = self._rng("mel", clip_id, epoch)
            longest = min(config.time_mask_frames, int(config.time_mask_share * size))
            for _ in range(config.time_masks):
                over_time[row, 0, _span(rng, longest, size)] = True
            for _ in range(config.frequency_masks):
                over_bins[row, _span(rng, min(config.frequency_mask_bins, bins), bins), 0] = True
        hidden = torch.from_numpy((over_time | over_bins) & own).to(features.device)
        own = torch.from_numpy(own).to(features.device)
        mean = (features * own).sum(dim=(1, 2)) / (own.sum(dim=(1, 2)) * bins)
        return torch.where(hidden, mean[:, None, None].to(features.dtype), features)

    @torch.no_grad()
    def encoder(self, outputs: Tensor, lengths: Tensor, ids: Sequence[str], epoch: int) -> Tensor:
        """Set encoder frames to 0, each with probability `frame_dropout`; the others are not scaled.

        Dropout (Srivastava et al. 2014) of whole frames: the projector has to fill a gap of 20 ms
        from its neighbours. It works on cached encoder outputs too.

        Args:
            outputs: (B, T, encoder_dim); lengths: each clip's own encoder frames (B,).
        """
        _check(outputs, lengths, ids, "(B, T, encoder_dim)")
        if self.config.frame_dropout == 0:
            return outputs
        dropped = torch.zeros(outputs.shape[:2], dtype=torch.bool)
        for row, (size, clip_id) in enumerate(zip(lengths.tolist(), ids, strict=True)):
            draws = self._rng("encoder", clip_id, epoch).random(size)
            dropped[row, :size] = torch.from_numpy(draws < self.config.frame_dropout)
        return outputs.masked_fill(dropped[..., None].to(outputs.device), 0.0)

    def _rng(self, stage: str, clip_id: str, epoch: int) -> np.random.Generator:
        """A stream for each stage, so that switching one on leaves what the others do as it was."""
        key = f"{self.seed}/{epoch}/{stage}/{clip_id}".encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()  # hash() differs from run to run
        return np.random.default_rng(int.from_bytes(digest, "little"))

    def _chosen(self, stage: str, probability: float, ids, epoch: int) -> dict:
        """{row: its generator} of the clips to which this stage happens."""
        if probability == 0:
            return {}
        streams = {row: self._rng(stage, clip_id, epoch) for row, clip_id in enumerate(ids)}
        return {row: rng for row, rng in streams.items() if rng.random() < probability}

    def _speed(self, waveforms, sizes, ids, epoch) -> tuple[Tensor, Tensor]:
        """Play faster or slower by resampling (Ko et al. 2015, "Audio augmentation ..."), unpadded.

        A clip that would then last more than 30 s keeps its speed.
        """
        clips = [row[:size] for row, size in zip(waveforms, sizes, strict=True)]
        rows: dict[float, list[int]] = {}
        if self.config.speed_factors != (1.0,):
            for row, clip_id in enumerate(ids):
                rng = self._rng("speed", clip_id, epoch)
                rows.setdefault(float(rng.choice(self.config.speed_factors)), []).append(row)
        for factor, members in rows.items():
            ratio = Fraction(factor).limit_denominator(100)
            members = [row for row in members if math.ceil(sizes[row] / ratio) <= MAX_SAMPLES]
            if ratio == 1 or not members:
                continue
            batch, _ = pad_batch([clips[row] for row in members], 1)
            batch = torchaudio.functional.resample(batch, ratio.numerator, ratio.denominator)
            for row, played in zip(members, batch, strict=True):
                clips[row] = played[: math.ceil(sizes[row] / ratio)]
        return pad_batch(clips, 1)

    def _reverb(self, waveforms, sizes, ids, epoch) -> Tensor:
        """Convolve with the direct sound and exponentially decaying noise, Polack's model of a room.

        J.-D. Polack 1988; that artificial rooms do as well as measured ones: Ko et al. 2017.
        """
        chosen = self._chosen("reverb", self.config.reverb_probability, ids, epoch)
        time = np.arange(int(self.config.reverb_seconds[1] * SAMPLE_RATE)) / SAMPLE_RATE
        kernels = np.zeros((len(chosen), len(time) + 1), dtype=np.float32)
        for kernel, rng in zip(kernels, chosen.values(), strict=True):
            decay = math.log(1000) / rng.uniform(*self.config.reverb_seconds)  # 1000 is 60 dB
            echo = rng.standard_normal(len(time)) * np.exp(-decay * time)
            level = 10 ** (-rng.uniform(*DIRECT_TO_REVERB_DB) / 20)
            kernel[0], kernel[1:] = 1.0, level * echo / np.linalg.norm(echo)
        return _filtered(waveforms, sizes, list(chosen), kernels, delay=0)

    def _noise(self, waveforms, sizes, ids, epoch) -> Tensor:
        """Add a stretch of a noise file, repeated if it is too short, at a drawn signal-to-noise ratio.

        As multi-condition training has done it since Lippmann et al. 1987. A silent clip stays so.
        """
        chosen = self._chosen("noise", self.config.noise_probability, ids, epoch)
        if not chosen:
            return waveforms
        added = torch.zeros(waveforms.shape)
        ratio = torch.zeros(len(waveforms))
        for row, rng in chosen.items():
            noise = self.noise[rng.integers(len(self.noise))]
            places = (rng.integers(len(noise)) + torch.arange(sizes[row])) % len(noise)
            added[row, : sizes[row]] = noise[places]
            ratio[row] = 10 ** (-rng.uniform(*self.config.noise_snr_db) / 20)
        added, ratio = added.to(waveforms.device), ratio.to(waveforms.device)
        level = _rms(waveforms, sizes) / _rms(added, sizes).clamp(min=QUIETEST)
        return waveforms + added * (ratio * level)[:, None]

    def _band_limit(self, waveforms, sizes, ids, epoch) -> Tensor:
        """The telephone's band, or everything below a drawn frequency: windowed-sinc filters."""
        chosen = self._chosen("band", self.config.band_limit_probability, ids, epoch)
        kernels = np.zeros((len(chosen), FILTER_TAPS), dtype=np.float32)
        for kernel, rng in zip(kernels, chosen.values(), strict=True):
            if rng.random() < 0.5:
                kernel[:] = _low_pass(TELEPHONE_HZ[1]) - _low_pass(TELEPHONE_HZ[0])
            else:
                kernel[:] = _low_pass(rng.uniform(*LOW_PASS_HZ))
        return _filtered(waveforms, sizes, list(chosen), kernels, delay=FILTER_TAPS // 2)

    def _gain(self, waveforms, sizes, ids, epoch) -> Tensor:
        """Louder or quieter; nothing is clipped, since floats have room above 1."""
        if self.config.gain_db == (0.0, 0.0):
            return waveforms
        streams = [self._rng("gain", clip_id, epoch) for clip_id in ids]
        gains = [10 ** (rng.uniform(*self.config.gain_db) / 20) for rng in streams]
        return waveforms * torch.tensor(gains, device=waveforms.device)[:, None]


def _low_pass(cutoff: float) -> np.ndarray:
    """A linear-phase filter (FILTER_TAPS,) that lets frequencies below `cutoff` Hz through."""
    time = np.arange(FILTER_TAPS) - FILTER_TAPS // 2
    kernel = np.sinc(2 * cutoff / SAMPLE_RATE * time) * np.hamming(FILTER_TAPS)
    return kernel / kernel.sum()


def _filtered(waveforms: Tensor, sizes, rows: list[int], kernels: np.ndarray, delay: int) -> Tensor:
    """Some rows of (B, S) convolved with a kernel each, by FFT, at the loudness they had before.

    Long enough not to wrap around, so that the padding of a batch does not change its clips.
    """
    if not rows:
        return waveforms
    before = waveforms[rows]
    kernels = torch.from_numpy(kernels).to(waveforms.device)
    length = waveforms.shape[1]
    size = 1 << (length + kernels.shape[1] - 2).bit_length()  # a power of two is fastest
    spectrum = torch.fft.rfft(before, size) * torch.fft.rfft(kernels, size)
    after = torch.fft.irfft(spectrum, size)[:, delay : delay + length]
    own = [sizes[row] for row in rows]
    beyond = torch.arange(length) >= torch.tensor(own)[:, None]
    after = after.masked_fill(beyond.to(after.device), 0.0)
    # At most 20 dB: what a band limit leaves of a clip without speech is not blown up.
    louder = _rms(before, own) / _rms(after, own).clamp(min=QUIETEST)
    waveforms = waveforms.clone()
    waveforms[rows] = after * louder.clamp(max=10.0)[:, None]
    return waveforms


def _rms(waveforms: Tensor, sizes) -> Tensor:
    """Root mean square (B,) of clips (B, S) that are 0 beyond their own sizes."""
    return (waveforms.square().sum(dim=1) / torch.tensor(sizes, device=waveforms.device)).sqrt()


def _span(rng: np.random.Generator, longest: int, size: int) -> slice:
    width = int(rng.integers(longest + 1))
    start = int(rng.integers(size - width + 1))
    return slice(start, start + width)


def _check(batch: Tensor, lengths: Tensor, ids: Sequence[str], axes: str) -> None:
    rank = axes.count(",") + 1
    if batch.ndim != rank or not len(batch) == len(lengths) == len(ids):
        raise ValueError(
            f"a batch of shape {tuple(batch.shape)}, {len(lengths)} lengths and {len(ids)} ids came; "
            f"expected {axes}, and a length and an id for each of B clips"
        )
