"""Augmentation: the same few hours of speech, heard as if in many rooms and over many telephones.

What happens to a clip is drawn from (seed, epoch, id) alone, so that neither its batch, nor the
number of processes, nor a resumed run changes it. The order is the world's: the speaker's speed,
the room, the noise in it, the channel, the recording's level; then masks on the log-mel and on the
encoder's output.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from tiny_asr.audio import pad_batch
from tiny_asr.data import effects
from tiny_asr.shapes import MAX_SAMPLES


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
        if not self.speed_factors or not all(0.5 <= f <= 2 for f in self.speed_factors):
            raise ValueError(f"speed_factors={self.speed_factors} came; expected some of 0.5 to 2")
        limits = {"reverb_seconds": (0.01, 5), "noise_snr_db": (-40, 100), "gain_db": (-60, 60)}
        for name, (low, high) in limits.items():
            pair = tuple(vars(self)[name])
            if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
                raise ValueError(f"{name}={pair} came; expected (lowest, highest), {low} to {high}")
            setattr(self, name, pair)
        shares = ("reverb_probability", "noise_probability", "band_limit_probability")
        for name in (*shares, "time_mask_share", "frame_dropout"):
            if not 0 <= vars(self)[name] <= 1:
                raise ValueError(f"{name}={vars(self)[name]} came; expected 0 to 1")
        for name in ("time_masks", "time_mask_frames", "frequency_masks", "frequency_mask_bins"):
            if vars(self)[name] < 0:
                raise ValueError(f"{name}={vars(self)[name]} came; expected 0 or more")

    @property
    def changes_waveform(self) -> bool:
        """Whether there is anything to do before the log-mel."""
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
            Waveforms (B, S'), 0 beyond each clip's own length, and lengths (B,), others than before
            where the speed was changed. Their loudness (RMS) is the clip's but for noise and gain.
        """
        _check(waveforms, lengths, ids, "(B, S)")
        if not self.config.changes_waveform:
            lengths = -(-lengths // multiple) * multiple
            missing = int(lengths.max()) - waveforms.shape[1]
            return pad(waveforms.float(), (0, missing)), lengths
        with torch.autocast(waveforms.device.type, enabled=False):
            waveforms, lengths = self._speed(waveforms.float(), lengths.tolist(), ids, epoch)
            sizes = lengths.tolist()
            for change in (self._reverb, self._noise, self._band_limit, self._gain):
                waveforms = change(waveforms, sizes, ids, epoch)
        clips = [row[:size] for row, size in zip(waveforms, sizes, strict=True)]
        return pad_batch(clips, multiple)

    def mel(self, features: Tensor, lengths: Tensor, ids: Sequence[str], epoch: int) -> Tensor:
        """Masks over time and frequency, filled with the clip's mean.

        SpecAugment (Park et al. 2019, arXiv:1904.08779) without its time warping, which it found to
        matter least. Widths are drawn uniformly, from 0.

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
        sizes = torch.from_numpy(own.sum(axis=2, keepdims=True)).to(features.device)  # (B, 1, 1)
        # Beyond a clip's own frames log_mel is 0, and so adds nothing to the sum.
        mean = features.sum(dim=(1, 2), keepdim=True) / (sizes * bins)
        return torch.where(hidden, mean.to(features.dtype), features)

    def encoder(self, outputs: Tensor, lengths: Tensor, ids: Sequence[str], epoch: int) -> Tensor:
        """Set encoder frames to 0, each with probability `frame_dropout`; others are not scaled.

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
        """Faster or slower, and higher or lower with it: Ko et al. 2015, "Audio augmentation"."""
        clips = [row[:size] for row, size in zip(waveforms, sizes, strict=True)]
        rows: dict[float, list[int]] = {}
        if self.config.speed_factors != (1.0,):
            for row, clip_id in enumerate(ids):
                factor = self._rng("speed", clip_id, epoch).choice(self.config.speed_factors)
                if sizes[row] / factor < MAX_SAMPLES:  # else it would not fit the encoder
                    rows.setdefault(float(factor), []).append(row)
        for factor, members in rows.items():
            changed = effects.change_speed([clips[row] for row in members], factor)
            for row, clip in zip(members, changed, strict=True):
                clips[row] = clip
        return pad_batch(clips, 1)

    def _reverb(self, waveforms, sizes, ids, epoch) -> Tensor:
        """Artificial rooms, which do about as well as measured ones: Ko et al. 2017."""
        chosen = self._chosen("reverb", self.config.reverb_probability, ids, epoch)
        seconds = self.config.reverb_seconds
        kernels = [effects.room_response(rng, *seconds) for rng in chosen.values()]
        return effects.filtered(waveforms, sizes, list(chosen), kernels, delay=0)

    def _noise(self, waveforms, sizes, ids, epoch) -> Tensor:
        """Add a stretch of a noise file, repeated if too short (Lippmann et al. 1987)."""
        chosen = self._chosen("noise", self.config.noise_probability, ids, epoch)
        if not chosen:
            return waveforms
        added = torch.zeros(waveforms.shape)
        snr_db = torch.zeros(len(waveforms))
        for row, rng in chosen.items():
            noise = self.noise[rng.integers(len(self.noise))]
            places = (rng.integers(len(noise)) + torch.arange(sizes[row])) % len(noise)
            added[row, : sizes[row]] = noise[places]
            snr_db[row] = rng.uniform(*self.config.noise_snr_db)
        return effects.mixed(waveforms, added.to(waveforms.device), sizes, snr_db)

    def _band_limit(self, waveforms, sizes, ids, epoch) -> Tensor:
        """What a telephone, an old radio or a lossy codec leaves of the sound."""
        chosen = self._chosen("band", self.config.band_limit_probability, ids, epoch)
        kernels = [effects.band_filter(rng) for rng in chosen.values()]
        return effects.filtered(waveforms, sizes, list(chosen), kernels, effects.FILTER_DELAY)

    def _gain(self, waveforms, sizes, ids, epoch) -> Tensor:
        """Louder or quieter; nothing is clipped, since floats have room above 1."""
        if self.config.gain_db == (0.0, 0.0):
            return waveforms
        draws = [self._rng("gain", clip_id, epoch).uniform(*self.config.gain_db) for clip_id in ids]
        return waveforms * 10 ** (torch.tensor(draws, device=waveforms.device)[:, None] / 20)


def _span(rng: np.random.Generator, longest: int, size: int) -> slice:
    width = int(rng.integers(longest + 1))
    start = int(rng.integers(size - width + 1))
    return slice(start, start + width)


def _check(batch: Tensor, lengths: Tensor, ids: Sequence[str], axes: str) -> None:
    rank = axes.count(",") + 1
    if batch.ndim != rank or not len(batch) == len(lengths) == len(ids):
        raise ValueError(
            f"a batch of shape {tuple(batch.shape)}, {len(lengths)} lengths, {len(ids)} ids came; "
            f"expected {axes}, and a length and an id for each of B clips"
        )
