"""The cache of encoder outputs: listen once, train many times.

The encoder is frozen, so a clip's encoder output never changes, and computing it again in every
epoch is most of the work of training a projector. This cache computes it once and keeps it in one
memory-mapped file. It is keyed by everything the numbers depend on (the encoder's weights, the mel
settings, the audio itself), and every clip has a checksum, so that a stale or torn cache is found
and made again instead of being trained on.

What changes the waveform cannot be cached: augmentation of waveform or log-mel and this cache
exclude each other.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tiny_asr.audio import HOP_LENGTH, N_FFT, SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME

INDEX, FRAMES = "index.json", "encoder_output.bin"
MEL_SETTINGS = {"rate": SAMPLE_RATE, "n_fft": N_FFT, "hop": HOP_LENGTH, "version": 1}


class CacheError(ValueError):
    """The cache on disk is not the one asked for, or is damaged."""


class EncoderCache:
    """Encoder outputs of a data set, read from disk through a memory map.

    Args:
        directory: the cache's own folder, as `build_cache` made it.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        try:
            index = json.loads((self.directory / INDEX).read_text())
            self.key, self.dim = index["key"], index["encoder_dim"]
            self.dtype = getattr(torch, index["dtype"])
            self.clips: dict[str, tuple[int, int, int]] = {
                name: tuple(clip) for name, clip in index["clips"].items()
            }  # id -> first frame, frames, checksum
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CacheError(f"{self.directory} holds no complete cache ({error})") from error
        frames = sum(count for _, count, _ in self.clips.values())
        expected = frames * self.dim * self.dtype.itemsize
        size = (self.directory / FRAMES).stat().st_size if (self.directory / FRAMES).exists() else 0
        if size != expected:
            raise CacheError(f"{self.directory / FRAMES} has {size} bytes; expected {expected}")
        self._flat = torch.from_file(
            str(self.directory / FRAMES), shared=False, size=frames * self.dim, dtype=self.dtype
        )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, clip_id: str) -> Tensor:
        """One clip's encoder output (T, encoder_dim); a view of the file, not yet in memory."""
        first, count, _ = self.clips[clip_id]
        return self._flat[first * self.dim : (first + count) * self.dim].view(count, self.dim)

    def batch(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Clips side by side, zero-padded: (B, T, encoder_dim) and their lengths in frames (B,)."""
        clips = [self[clip_id] for clip_id in ids]
        padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        return padded, torch.tensor([len(clip) for clip in clips])

    def verify(self) -> None:
        """Read everything and compare the checksums."""
        for clip_id, (_, _, checksum) in self.clips.items():
            if _checksum(self[clip_id]) != checksum:
                raise CacheError(f"{self.directory}: the frames of clip {clip_id!r} are damaged")


def _checksum(frames: Tensor) -> int:
    return zlib.crc32(frames.contiguous().view(torch.uint8).numpy())


def cache_key(model, data) -> str:
    """A digest of all that the encoder's output depends on.

    That is the encoder's weights and sizes, the padding and mel settings, and each clip's id and
    encoded audio.
    """
    digest = hashlib.sha256()
    config = model.config
    settings = MEL_SETTINGS | {
        "num_mel_bins": config.num_mel_bins,
        "samples_per_embedding": config.samples_per_embedding,
        "dtype": str(model.encoder.dtype),
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, weight in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    for utterance in data:
        digest.update(utterance.id.encode())
        digest.update(utterance.fingerprint())
    return digest.hexdigest()


def build_cache(
    model,
    data,
    directory: str | Path,
    batches: Callable,
    say: Callable[[str], None] = print,
) -> EncoderCache:
    """Open the data's cache under `directory`, or make it if it is missing, stale or torn.

    Args:
        model: an `ASRModel`; its encoder runs on its device.
        data: the `SpeechData`.
        directory: of all caches; each lies in a sub-folder named by its key.
        batches: a function of `data` that yields decoded batches with `.ids .waveforms .lengths`.
        say: told about the size and the progress.
    """
    key = cache_key(model, data)
    place = Path(directory) / key[:16]
    try:
        cache = EncoderCache(place)
        if cache.key != key:
            raise CacheError(f"{place} was made from other models or data")
        cache.verify()
        say(f"cache: {len(cache)} clips read from {place}")
        return cache
    except CacheError as error:
        if place.exists():
            say(f"cache: made again, because {error}")
    _write(model, data, place, key, batches, say)
    return EncoderCache(place)


def _write(model, data, place: Path, key: str, batches: Callable, say) -> None:
    """Encode everything into a temporary folder, then rename it: a cache is whole or not there."""
    dtype, dim = model.encoder.dtype, model.config.encoder_dim
    seconds = sum(utterance.seconds for utterance in data)
    size = seconds * SAMPLE_RATE / SAMPLES_PER_ENCODER_FRAME * dim * dtype.itemsize
    free = shutil.disk_usage(_existing(place)).free
    say(
        f"cache: {len(data)} clips, {seconds / 3600:.2f} h of audio, will take about "
        f"{size / 1e9:.2f} GB of {free / 1e9:.0f} GB free at {place}"
    )
    if size > free:
        raise ValueError(
            f"the cache needs about {size / 1e9:.2f} GB at {place}, where {free / 1e9:.2f} GB are "
            "free; expected enough: choose another folder, or train without a cache"
        )
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    clips, first, done, tenth = {}, 0, 0.0, 1
    try:
        with open(partial / FRAMES, "wb") as file:
            for batch in batches(data):
                output, lengths = model.encode_batch(batch.waveforms, batch.lengths)
                output = output.cpu()
                for clip_id, frames, count in zip(batch.ids, output, lengths.tolist(), strict=True):
                    own = frames[:count].contiguous()
                    file.write(own.view(torch.uint8).numpy())
                    clips[clip_id] = (first, count, _checksum(own))
                    first += count
                done += float(sum(batch.seconds))
                if done / seconds >= tenth / 10:
                    say(f"cache: {done / 3600:.2f} of {seconds / 3600:.2f} h encoded")
                    tenth = int(10 * done / seconds) + 1
        index = {
            "key": key,
            "encoder": model.config.encoder,
            "encoder_dim": dim,
            "dtype": str(dtype).removeprefix("torch."),
            "clips": clips,
        }
        (partial / INDEX).write_text(json.dumps(index))
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(
            f"the cache at {place} could not be written: {error}; nothing of it was kept"
        ) from error
    shutil.rmtree(place, ignore_errors=True)
    os.replace(partial, place)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
