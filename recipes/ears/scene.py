"""From the plan of a scene to what a microphone hears: rooms, noise, bands, levels, masks.

The filters are the package's (`tiny_asr.data.effects`); here they are drawn from a store, a whole
batch at once, because drawing them one by one takes longer than a training step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio
from torch import Tensor

from recipes.ears.bank import Bank, Scenes
from tiny_asr.audio import log_mel
from tiny_asr.data import effects
from tiny_asr.device import send
from tiny_asr.shapes import HOP_LENGTH

STORE = 400  # filters of each kind
ROOM, BAND, NOISE, FLOOR = 0.4, 0.2, 0.6, 0.6  # shares of the scenes
SNR_DB, FLOOR_DB, SPEECH_DB, NOISE_DB = (0, 35), (-85, -45), (-40, -12), (-65, -12)
NOISE_SPEEDS = (70, 100, 140)  # percent
MASKS, TIME_MASK, TIME_SHARE, BIN_MASK = 2, 40, 0.12, 18


@dataclass
class Heard:
    """Log-mels (B, M, F) as they were said and as they were heard; own samples (B,) on the CPU."""

    clean: Tensor | None
    heard: Tensor
    lengths: Tensor

    @property
    def mel_frames(self) -> Tensor:
        return self.lengths // HOP_LENGTH

    @property
    def encoder_frames(self) -> Tensor:
        return self.lengths // (2 * HOP_LENGTH)


class Microphone:
    """Turns scenes into log-mels.

    Args:
        noise: a bank of sounds in which nobody speaks.
        multiple: what lengths are rounded up to, in samples.
    """

    def __init__(self, bank: Bank, noise: Bank, bins: int, multiple: int, seed: int):
        self.bank, self.noise, self.bins, self.multiple = bank, noise, bins, multiple
        self.rng = np.random.default_rng(seed)
        self.rooms = [effects.room_response(self.rng, 0.1, 0.6) for _ in range(STORE)]
        self.bands = [effects.band_filter(self.rng) for _ in range(STORE)]
        self.noise_samples = torch.cat([*more_noises(noise.samples.float() / 32768)])
        self.device = bank.samples.device

    def __call__(self, scenes: Scenes, speed: float = 1.0, clean: bool = False) -> Heard:
        """The scenes as heard through some microphone; `clean`: as they were said, besides."""
        said, lengths, speaks = self._said(scenes, speed)
        heard = self._heard(said, lengths, speaks)
        own = self._masked(log_mel(heard, self.bins, lengths), lengths)
        return Heard(log_mel(said, self.bins, lengths) if clean else None, own, lengths)

    def plain(self, scenes: Scenes) -> Heard:
        """The scenes as they are: to measure."""
        said, lengths, _ = self._said(scenes, 1.0, level=False)
        return Heard(None, log_mel(said, self.bins, lengths), lengths)

    def _said(self, scenes: Scenes, speed: float, level: bool = True):
        """Waveforms (B, S) with the clips in their places; lengths (B,); who speaks (B,)."""
        lengths = torch.from_numpy(-(-scenes.lengths // self.multiple) * self.multiple)
        width = scenes.width or int(lengths.max())
        raw = torch.zeros(len(scenes), int(np.ceil(width * speed)) + 1, device=self.device)
        column = torch.arange(raw.shape[1], device=self.device)
        for part in range(2):
            rows = np.flatnonzero(scenes.clips[:, part] >= 0)
            if not len(rows):
                continue
            clips = scenes.clips[rows, part]
            begin = torch.from_numpy((scenes.starts[rows, part] * speed).astype(int))
            size = torch.from_numpy(self.bank.lengths[clips])
            places = column - begin.to(self.device)[:, None]
            own = (places >= 0) & (places < size.to(self.device)[:, None])
            start = self.bank.starts[torch.from_numpy(clips).to(self.device)][:, None]
            found = self.bank.samples[(start + places).clamp(0, len(self.bank.samples) - 1)]
            loud = self._uniform(len(rows), -4, 4) if level else torch.zeros(len(rows), 1)
            gain = 10 ** (loud.to(self.device) / 20) / 32768
            raw[torch.from_numpy(rows).to(self.device)] += found * own * gain
        if speed != 1.0:
            raw = torchaudio.functional.resample(raw, round(speed * 100), 100)
        speaks = torch.from_numpy((scenes.clips >= 0).any(1)).to(self.device)
        said = raw[:, :width]
        if said.shape[1] < width:
            said = torch.nn.functional.pad(said, (0, width - said.shape[1]))
        if level:
            said = said * self._gain(said, *SPEECH_DB)
        return said, lengths, speaks

    def _uniform(self, count: int, low: float, high: float) -> Tensor:
        """(count, 1)."""
        return torch.from_numpy(self.rng.uniform(low, high, (count, 1))).float()

    def _gain(self, sound: Tensor, low: float, high: float) -> Tensor:
        """(B, 1): what brings the loud part of each row to a level drawn in dB."""
        loud = sound.square().sum(1, keepdim=True)
        parts = (sound.abs() > 1e-3).sum(1, keepdim=True).clamp(min=1600)
        goal = 10 ** (self._uniform(len(sound), low, high).to(self.device) / 20)
        return goal / (loud / parts).sqrt().clamp(min=1e-4)

    def _chosen(self, count: int, share: float) -> list[int]:
        """Rows, always as many of so many."""
        return np.sort(self.rng.permutation(count)[: round(share * count)]).tolist()

    def _filtered(self, sound: Tensor, sizes: list[int], share: float, store, delay: int) -> Tensor:
        rows = self._chosen(len(sound), share)
        kernels = [store[place] for place in self.rng.integers(len(store), size=len(rows))]
        return effects.filtered(sound, sizes, rows, kernels, delay)

    def _noises(self, count: int, width: int) -> Tensor:
        """(count, width), equally loud. Each begins anywhere and runs on into the next."""
        begin = torch.from_numpy(self.rng.integers(len(self.noise_samples), size=(count, 1)))
        places = begin.to(self.device) + torch.arange(width, device=self.device)
        noise = self.noise_samples[places % len(self.noise_samples)]
        return noise / noise.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)

    def _heard(self, said: Tensor, lengths: Tensor, speaks: Tensor) -> Tensor:
        count, width = said.shape
        sizes = lengths.tolist()
        heard = self._filtered(said, sizes, ROOM, self.rooms, 0)
        noise = self._noises(count, width)
        second = self._uniform(count, -1.0, 1.0).clamp(min=0).to(self.device)
        noise = noise + second * self._noises(count, width)
        active = said.abs() > 1e-3
        level = (said.square().sum(1, keepdim=True) / active.sum(1, keepdim=True).clamp(1)).sqrt()
        beside = level * 10 ** (-self._uniform(count, *SNR_DB).to(self.device) / 20)
        beside = beside * (torch.from_numpy(self.rng.random((count, 1))) < NOISE).to(self.device)
        alone = 10 ** (self._uniform(count, *NOISE_DB).to(self.device) / 20)
        alone = alone * (torch.from_numpy(self.rng.random((count, 1))) < 0.9).to(self.device)
        heard = heard + noise * torch.where(speaks[:, None], beside, alone)
        floor = 10 ** (self._uniform(count, *FLOOR_DB).to(self.device) / 20)
        floor = floor * (torch.from_numpy(self.rng.random((count, 1))) < FLOOR).to(self.device)
        heard = heard + floor * torch.randn_like(heard)
        heard = self._filtered(heard, sizes, BAND, self.bands, effects.FILTER_DELAY)
        beyond = torch.arange(width, device=self.device) >= lengths.to(self.device)[:, None]
        return heard.clamp(-1, 1).masked_fill(beyond, 0.0)

    def _masked(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """SpecAugment (Park et al. 2019) without warping: masks filled with the row's mean."""
        count, bins, width = mel.shape
        frames = (lengths // HOP_LENGTH).numpy()
        spans = {}
        for name, size, most in (
            ("time", frames, np.minimum(TIME_MASK, TIME_SHARE * frames)),
            ("bins", np.full(count, bins), np.full(count, BIN_MASK)),
        ):
            wide = self.rng.integers(0, most.astype(int) + 1, size=(MASKS, count))
            start = (self.rng.random((MASKS, count)) * (size - wide)).astype(int)
            spans[name] = torch.from_numpy(np.stack([start, start + wide], -1)).to(self.device)
        over_time = _inside(spans["time"], width)[:, None, :]  # (B, 1, F)
        column = torch.arange(width, device=self.device)
        own = column < send(lengths, self.device)[:, None] // HOP_LENGTH
        cover = (over_time | _inside(spans["bins"], bins)[:, :, None]) & own[:, None]
        sizes = torch.from_numpy(frames * bins).to(self.device)[:, None, None]
        mean = mel.sum(dim=(1, 2), keepdim=True) / sizes
        return torch.where(cover, mean, mel)


def more_noises(noise: Tensor) -> Iterator[Tensor]:
    """Few noises (S,) as many: slower and faster, and all of them backwards."""
    for percent in NOISE_SPEEDS:
        other = torchaudio.functional.resample(noise, percent, 100)
        yield from (other, other.flip(0))


def _inside(spans: Tensor, size: int) -> Tensor:
    """Which of `size` places lie in some of the spans (MASKS, B, 2): (B, size) bool."""
    places = torch.arange(size, device=spans.device)
    return ((places >= spans[..., :1]) & (places < spans[..., 1:])).any(0)
