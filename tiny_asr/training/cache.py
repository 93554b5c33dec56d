"""The cache of encoder outputs: listen once, train many times.

The encoder is frozen, so a clip's encoder output never changes, and computing it again in every
epoch is most of the work of training a projector. This cache computes it once and keeps it in one
memory-mapped file. It is keyed by everything the numbers depend on (the encoder's weights, the mel
settings, the audio itself), and every clip has a checksum, so that a stale or torn cache is found
and made again instead of being trained on. What was read and found good is not read again: a file
of sound counts as unchanged while its size and time are, and so does the cache.

Augmentation of waveform or log-mel makes new sound each time, and so can't be cached as it is. What
can be is a number of augmented versions of every clip, each a cache of its own, which the epochs of
a training take in turn.
"""

import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tiny_asr.audio import N_FFT, mel_for_encoder
from tiny_asr.config import ASRConfig
from tiny_asr.data.augment import Augment, AugmentConfig
from tiny_asr.data.batches import Batch, Loader, make_batches, rank_slice
from tiny_asr.data.dataset import SpeechData
from tiny_asr.data.utterance import BadClip, Excerpt, Member, Utterance
from tiny_asr.device import DTYPES, send
from tiny_asr.shapes import ENCODER_FRAMES_PER_SECOND, HOP_LENGTH, MAX_SECONDS, SAMPLE_RATE
from tiny_asr.training.checkpoint import temporary_folder

INDEX, FRAMES, VERIFIED = "index.json", "encoder_output.bin", "verified"
MEL_SETTINGS = {"rate": SAMPLE_RATE, "n_fft": N_FFT, "hop": HOP_LENGTH, "version": 1}
BATCH_SECONDS = {"cpu": 120.0, "mps": 120.0, "cuda": 600.0}  # padded audio encoded at a time


class CacheError(ValueError):
    """The cache on disk is not the one asked for, or is damaged."""


class EncoderCache:
    """Encoder outputs of a data set, read from disk through a memory map.

    Args:
        directory: the cache's own folder, as `build_cache` made it.
    Raises CacheError if it is missing or torn; what is in it only `verify` looks at.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        file = self.directory / FRAMES
        self.clips: dict[str, tuple[int, int, int]] = {}  # id -> first frame, frames, checksum
        frames = 0
        try:
            index = json.loads((self.directory / INDEX).read_text(encoding="utf-8"))
            if index["checksum"] != _index_checksum(index["clips"]):
                raise ValueError("its index is damaged")
            self.key, self.dim = index["key"], index["encoder_dim"]
            self.dtype = DTYPES[index["dtype"]]
            for clip_id, (count, checksum) in index["clips"].items():
                self.clips[clip_id] = (frames, count, checksum)
                frames += count
            expected, held = frames * self.dim * self.dtype.itemsize, np.memmap(file, mode="r")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CacheError(f"{self.directory} holds no complete cache ({error})") from error
        if len(held) != expected:
            raise CacheError(f"{file} has {len(held)} bytes; expected {expected}")
        with warnings.catch_warnings():  # that the map can't be written to: it need not
            warnings.simplefilter("ignore", UserWarning)
            self._flat = torch.from_numpy(held).view(self.dtype)

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

    def batches(
        self, data: SpeechData, order: Sequence[Sequence[int]], rank: int, num_processes: int
    ) -> Iterator[Batch]:
        """Batches as a `Loader` has them, but nothing is decoded: ids and texts only.

        Clips that could not be decoded when the cache was made are not in it, and are left out.
        """
        silent = {"waveforms": torch.zeros(0, 0), "lengths": torch.zeros(0, dtype=torch.int64)}
        for batch in order:
            clips = [data[index] for index in rank_slice(batch, rank, num_processes)]
            clips = [clip for clip in clips if clip.id in self.clips]
            ids, texts = [clip.id for clip in clips], [clip.text for clip in clips]
            yield Batch(ids=ids, texts=texts, seconds=[clip.seconds for clip in clips], **silent)

    def verify(self) -> None:
        """Compare the checksums, unless that was done since the file was last written to.

        Raises CacheError where one differs."""
        written, noted = _written(self.directory), self.directory / VERIFIED
        if noted.is_file() and noted.read_text() == written:
            return
        for clip_id, (_, _, checksum) in self.clips.items():
            if _checksum(self[clip_id]) != checksum:
                raise CacheError(f"{self.directory}: the frames of clip {clip_id!r} are damaged")
        with suppress(OSError):  # in a folder of somebody else they are compared each time
            noted.write_text(written)


def _written(directory: Path) -> str:
    """When the frames in there were last written to."""
    return str((directory / FRAMES).stat().st_mtime_ns)


def _checksum(frames: Tensor) -> int:
    return zlib.crc32(frames.contiguous().view(torch.uint8).numpy())


def _index_checksum(clips: dict) -> int:
    return zlib.crc32(json.dumps(clips).encode())


@torch.no_grad()
def heard(model, batch: Batch, augment: Augment, epoch: int) -> tuple[Tensor, Tensor]:
    """A decoded batch through augmentation, log-mel and encoder.

    Args:
        model: an `ASRModel`; all of it happens on its device.
        batch: from a `Loader` with `multiple` 1.
        augment, epoch: decide what happens to waveform and log-mel; see `Augment`.
    Returns:
        Encoder frames (B, T, encoder_dim) and each clip's own (B,), on the CPU.
    """
    device, config = model.device, model.config
    waveforms, lengths = augment.waveform(
        send(batch.waveforms, device), batch.lengths, batch.ids, epoch, config.samples_per_embedding
    )
    mel, frames = mel_for_encoder(waveforms, lengths, config.num_mel_bins, config.encoder_padding)
    mel = augment.mel(mel, frames, batch.ids, epoch)
    return model.encoder(mel, frames), frames // 2


def cache_keys(
    model, data: SpeechData, augment: Augment | None = None, versions: int = 1
) -> list[str]:
    """For each version a digest of all that the encoder's output depends on.

    That is the encoder's weights and heads, the padding and mel settings, each clip's id, length
    and encoded audio (of a file: size and time), and what augmentation does to it in that epoch.
    """
    digest = hashlib.sha256()
    config = model.config
    settings = MEL_SETTINGS | {
        "num_mel_bins": config.num_mel_bins,
        "samples_per_embedding": config.samples_per_embedding,
        "dtype": str(model.encoder.dtype),
        "heads": config.encoder_config.encoder_attention_heads,
        "activation": config.encoder_config.activation_function,
    }
    if config.encoder_padding != "none":
        settings["encoder_padding"] = config.encoder_padding
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, weight in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    for utterance in data:
        digest.update(f"{utterance.id} {utterance.seconds}".encode())
        digest.update(_stamp(utterance))
    if augment is None:
        return [digest.hexdigest()] * versions
    for waveform in augment.noise:
        digest.update(waveform.numpy())
    keys = []
    for epoch in range(versions):
        own = digest.copy()
        own.update(f"{augment.config} {augment.seed} {epoch}".encode())
        keys.append(own.hexdigest())
    return keys


def _stamp(clip: Utterance) -> bytes:
    """What changes with a clip's audio, and needs no reading of files."""
    if isinstance(clip.audio, bytes):
        return clip.fingerprint()
    file, start = clip.audio, 0.0
    if isinstance(file, Excerpt | Member):
        file, start = file.path, file.start if isinstance(file, Excerpt) else file.offset
    try:
        about = file.stat()
    except OSError:  # it can't be decoded either
        return b""
    return f"{start} {about.st_size} {about.st_mtime_ns}".encode()


def build_cache(
    model,
    data: SpeechData,
    directory: str | Path,
    key: str,
    *,
    augment: Augment | None = None,
    epoch: int = 0,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> EncoderCache:
    """Open the data's cache under `directory`, or make it if it is missing, stale or torn.

    Args:
        model: an `ASRModel`; its encoder runs on its device.
        directory: of all caches; each lies in a sub-folder named by its key.
        key: of `cache_keys`.
        augment: changes waveform and log-mel before they are encoded, as in that `epoch`.
        workers: threads that decode audio.
        say: told about the size and the progress.
    Raises ValueError if there is no room for it, or if no clip can be decoded.
    """
    place = Path(directory) / key[:16]
    try:
        cache = EncoderCache(place)
        if cache.key != key:
            raise CacheError(f"{place} was made from other models or data")
        cache.verify()
    except CacheError as error:
        if place.exists():
            say(f"cache: made again, because {error}")
        _write(model, data, place, key, augment or Augment(AugmentConfig()), epoch, workers, say)
        cache = EncoderCache(place)
    for index, clip in enumerate(data):
        if clip.id not in cache.clips:
            what = f"clip {clip.id!r} could not be decoded when the cache {place} was made"
            data.drop(index, BadClip("not in the cache", what))
    missing = len(data) - len(cache)
    left_out = f"; {missing} that can't be decoded are left out" if missing else ""
    say(f"cache: {len(cache)} clips in {place}{left_out}")
    return cache


def cache_bytes(config: ASRConfig, clips: int, seconds: float, width: int = 2) -> float:
    """What one cache takes on the disk.

    Args:
        clips, seconds: how many clips, and how long they are together.
        width: bytes of a number.
    """
    encoded = MAX_SECONDS * clips if config.encoder_padding == "window" else seconds
    return encoded * ENCODER_FRAMES_PER_SECOND * config.encoder_dim * width


def _write(
    model, data: SpeechData, place: Path, key: str, augment: Augment, epoch: int, workers: int, say
) -> None:
    """Encode everything into a temporary folder, then rename it: a cache is whole or not there."""
    dtype, dim = model.encoder.dtype, model.config.encoder_dim
    seconds = sum(utterance.seconds for utterance in data)
    size = cache_bytes(model.config, len(data), seconds, dtype.itemsize)
    order = make_batches(
        data, max_seconds=BATCH_SECONDS[model.device.type], seed=0, epoch=0, shuffle=False
    )
    clips, done, tenth = {}, 0.0, 1
    kept = "The cache could not be written, and nothing of it was kept: train without one?"
    with temporary_folder(place.with_name(f"{place.name}.partial"), kept) as partial:
        shutil.rmtree(place, ignore_errors=True)
        free = shutil.disk_usage(partial).free
        say(
            f"cache: {len(data)} clips, {seconds / 3600:.2f} h of audio, will take about "
            f"{size / 1e9:.2f} GB of {free / 1e9:.0f} GB free at {place}"
        )
        if size > free:
            raise ValueError(
                f"the cache needs about {size / 1e9:.2f} GB at {place}, where {free / 1e9:.2f} GB "
                "are free; expected enough: choose another folder, or train without a cache"
            )
        with open(partial / FRAMES, "wb") as file:
            for batch in Loader(data, order, workers=workers):
                if len(batch) == 0:
                    continue
                output, lengths = heard(model, batch, augment, epoch)
                for clip_id, frames, count in zip(
                    batch.ids, output.cpu(), lengths.tolist(), strict=True
                ):
                    own = frames[:count].contiguous()
                    file.write(own.view(torch.uint8).numpy())
                    clips[clip_id] = (count, _checksum(own))
                done += sum(batch.seconds)
                if done / seconds >= tenth / 10:
                    say(f"cache: {done / 3600:.2f} of {seconds / 3600:.2f} h encoded")
                    tenth = int(10 * done / seconds) + 1
        index = {
            "key": key,
            "encoder": model.config.encoder,
            "encoder_dim": dim,
            "dtype": str(dtype).removeprefix("torch."),
            "checksum": _index_checksum(clips),
            "clips": clips,
        }
        (partial / INDEX).write_text(json.dumps(index), encoding="utf-8")
        (partial / VERIFIED).write_text(_written(partial))
        os.replace(partial, place)
