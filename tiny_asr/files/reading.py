"""What is in a sound file: all the samples that are there, whatever its header claims.

Headers err: 0 samples, or 4 GB, in what was written to a pipe; in a torn file what is gone. So a
file is read in blocks until nothing more comes, and what it lacks then is told.
"""

import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import BinaryIO

import miniaudio
import numpy as np
import soundfile
import torch

BLOCK = 2**18  # samples of each channel at a time: a few seconds, a few MB
ENDLESS = 0x7FFF0000  # a claim of so many bytes or more is what programs write for "not known yet"
BY_FFMPEG = re.compile(rb"....ftyp|\x1aE\xdf\xa3|#!AMR|\xff[\xf1\xf9]", re.DOTALL)
XING = re.compile(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f](.{4})(.{4})", re.DOTALL)
EMPTY, UNREADABLE, TORN = "empty audio", "unreadable audio", "torn file"
LENGTHY = "too long"


class AudioError(ValueError):
    """Sound that can't be read or can't be right; `reason` is what such clips are counted under."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass
class Sound:
    """A sound that is being read.

    rate: in Hz; blocks: its samples, (n, channels) float32 each.
    seconds: what its header states, None where it states nothing.
    doubts: why it may not be what was recorded; complete once the blocks are read.
    """

    name: str
    rate: int
    blocks: Iterator[np.ndarray]
    seconds: float | None = None
    doubts: list[AudioError] = field(default_factory=list)

    def at_most(self, seconds: float) -> Iterator[np.ndarray]:
        """The blocks; AudioError as soon as they last longer: 25 MB may hold days of silence."""
        samples = 0
        for block in self.blocks:
            samples += len(block)
            if samples > seconds * self.rate:
                what = f"{self.name} lasts over {seconds:g} s; expected at most so much"
                raise AudioError(LENGTHY, f"{what}: cut it into shorter files")
            yield block

    def doubt_length(self, missing: float | None) -> None:
        """Note that the file ended `missing` seconds too early; None if nobody knows how many."""
        if missing is None:
            what = "ends in the middle, before its last block"
        elif missing > 0.1:  # less may be a header that counts whole packets
            what = f"ends {missing:.2f} s before its header says"
        else:
            return
        self.doubts.append(AudioError(TORN, f"{self.name} {what}: torn? Fetch it again"))


class InMemory(io.BytesIO):
    """Bytes as a file; a seek to before its start, as headers may ask for, goes nowhere."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Where the next byte is read from, afterwards."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):  # raised in a callback, it would be printed
            return self.tell()


@contextmanager
def opened(source, sampling_rate) -> Iterator[Sound]:
    """Find out what `source` is, and begin to read it."""
    if isinstance(source, dict):
        name = str(source.get("path") or "the sound in memory")
        if source.get("array") is not None:
            rate = source.get("sampling_rate", sampling_rate)
            yield _from_array(np.asarray(source["array"]), rate)
        elif source.get("bytes") is not None:
            yield read_sound(InMemory(source["bytes"]), name)
        elif source.get("path") is not None:
            with opened(source["path"], sampling_rate) as sound:
                yield sound
        else:
            what = (
                f"got a dict of {sorted(map(str, source))} without sound in it; expected 'bytes' or"
            )
            advice = "'path', or 'array' and 'sampling_rate': fill these in"
            raise AudioError(EMPTY, f"{what} {advice}")
    elif isinstance(source, str | os.PathLike):
        try:
            file = open(source, "rb")  # noqa: SIM115 - errors within the block are not its own
        except (OSError, ValueError) as error:
            what = (
                f"cannot read '{source}' ({getattr(error, 'strerror', error)}); expected an audio"
            )
            raise AudioError(UNREADABLE, f"{what} file: check the path") from error
        with file:
            seekable = file if file.seekable() else InMemory(file.read())
            yield read_sound(seekable, str(source))
    elif isinstance(source, bytes | bytearray | memoryview):
        yield read_sound(InMemory(source), "the sound in memory")
    elif hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            what = f"{source!r} gave text; expected bytes: open the file with mode 'rb'"
            raise AudioError(UNREADABLE, what)
        yield read_sound(InMemory(data), "the open file")
    elif isinstance(source, torch.Tensor):
        tensor = source.float() if source.is_floating_point() else source  # numpy has no bfloat16
        yield _from_array(tensor.numpy(force=True), sampling_rate)
    elif isinstance(source, np.ndarray):
        yield _from_array(source, sampling_rate)
    else:
        raise AudioError(
            UNREADABLE,
            f"cannot load audio from a {type(source).__qualname__}; expected a path, an open file, "
            "bytes, a dict, an array or a tensor: a `datasets` column needs Audio(decode=False)",
        )


def _from_array(array: np.ndarray, rate) -> Sound:
    """Bring (S,) or (channels, S) of any real type to float32, full scale 1."""
    name = f"the array of shape {array.shape} and type {array.dtype}"
    if rate is None:
        what = f"{name} came without sampling_rate; expected one: pass it, in Hz"
        raise AudioError("wrong rate", what)
    if array.dtype.kind not in "iuf":
        what = f"{name} is not sound; expected floats or integers: convert it first"
        raise AudioError(UNREADABLE, what)
    samples = np.atleast_2d(array)
    if array.ndim not in (1, 2) or len(samples) > max(1, samples.shape[1]):
        what = f"{name} is not a clip; expected (S,) or (channels, S): transpose it?"
        raise AudioError(UNREADABLE, what)
    blocks = (samples[:, at : at + BLOCK].T for at in range(0, samples.shape[1], BLOCK))
    if array.dtype.kind != "f":
        half = 2.0 ** (8 * array.dtype.itemsize - 1)
        middle = half if array.dtype.kind == "u" else 0.0  # unsigned sound rests at half its range
        blocks = ((block - middle) / half for block in blocks)
    return Sound(name, rate, (block.astype(np.float32) for block in blocks))


def read_sound(file: BinaryIO, name: str) -> Sound:
    """Begin to read a file that can seek; it must stay open until the blocks are read.

    WAV, AIFF, FLAC, Ogg and whatever else libsndfile knows, MP3, and what phones and browsers write
    (M4A, MP4, WebM) where FFmpeg is there. Raises AudioError if it is none of these.
    """
    magic = file.read(12)
    file.seek(0)
    if not magic:
        raise AudioError(EMPTY, f"{name} is empty: 0 bytes; expected an audio file: copy it again")
    if magic[:3] == b"ID3" or (magic[0] == 0xFF and magic[1:2] and magic[1] & 0xE6 == 0xE2):
        with suppress(miniaudio.DecodeError):
            return _read_mp3(file.read(), name)
        file.seek(0)
    if BY_FFMPEG.match(magic):
        return _read_by_ffmpeg(file, name)
    whole, parts = True, [_with_true_size(file)]
    if magic[:4] == b"OggS":
        whole, starts = _ogg_streams(file)
        parts = _parts(file, starts)
    elif magic[:4] == b"fLaC":
        parts = _parts(file, _places(file, b"fLaC\0\0\0\x22"))
    try:
        streams = [soundfile.SoundFile(_handle(part)) for part in parts]
    except soundfile.LibsndfileError as error:
        raise AudioError(
            UNREADABLE,
            f"{name} cannot be decoded ({error.error_string or 'damaged'}); expected WAV, FLAC, "
            "Ogg Vorbis, Opus or MP3: convert it to WAV, or fetch it again if it is one of these",
        ) from error
    if streams[0].format == "MP3":  # with something before its first frame
        file.seek(0)
        return _read_mp3(file.read(), name)
    forms = {(stream.samplerate, stream.channels) for stream in streams}
    if len(forms) > 1:
        what = f"{name} is {len(streams)} sounds joined, of (rate, channels) {sorted(forms)}"
        raise AudioError(UNREADABLE, f"{what}; expected the same for all: cut it apart")
    frames, rate = sum(stream.frames for stream in streams), streams[0].samplerate
    # 2**63 - 1 is what libsndfile says for FLAC's "not known".
    sound = Sound(name, rate, iter(()), frames / rate if frames < 2**62 else None)
    sound.blocks = _blocks(sound, streams, whole)
    return sound


def _handle(file: BinaryIO):
    """Bytes, or a file by its number, which libsndfile reads itself: no name can mislead it."""
    if isinstance(file, InMemory):
        file.seek(0)
        return file
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # what Python has buffered hides where it is
    return os.dup(file.fileno())


def _blocks(sound: Sound, streams: list[soundfile.SoundFile], whole: bool) -> Iterator[np.ndarray]:
    missing = 0.0
    for stream in streams:
        count, samples = 0, BLOCK
        while samples == BLOCK:
            block = np.full((BLOCK, stream.channels), np.nan, np.float32)
            try:
                samples = len(stream.read(out=block))
            except soundfile.LibsndfileError:  # damage, or the end of a FLAC of unknown length
                samples = int((~np.isnan(block)).all(axis=1).sum())
            count += samples
            yield block[:samples]
        if stream.frames < 2**62:
            missing += (stream.frames - count) / sound.rate
        # libsndfile corrects a claim that the file does not keep, and says so in its log only.
        for claimed, there in re.findall(r": (\d+) \(should be (\d+)\)", stream.extra_info):
            if 0 < int(there) < int(claimed) < ENDLESS:
                missing = max(missing, count / sound.rate * (int(claimed) / int(there) - 1))
        whole = whole and "truncated file" not in stream.extra_info
    sound.doubt_length(missing if whole or missing > 0.1 else None)


def _read_mp3(data: bytes, name: str) -> Sound:
    """Decode MP3 frame by frame, where libsndfile guesses the length; raises DecodeError."""
    tag = XING.search(data)
    if tag and len(data) - tag.start() > int.from_bytes(tag[2], "big") + 1024:
        # Files joined: the header speaks of the first alone, and without headers all is read.
        data = XING.sub(lambda match: bytes(len(match[0])), data)
    info = miniaudio.mp3_get_info(data)
    sound = Sound(name, info.sample_rate, iter(()), info.num_frames / info.sample_rate)

    def blocks() -> Iterator[np.ndarray]:
        count, options = 0, (miniaudio.SampleFormat.FLOAT32, info.nchannels, info.sample_rate)
        for samples in miniaudio.stream_memory(data, *options, BLOCK):
            block = np.frombuffer(samples, np.float32).reshape(-1, info.nchannels)
            count += len(block)
            yield block
        sound.doubt_length((info.num_frames - count) / info.sample_rate)

    sound.blocks = blocks()
    return sound


def _read_by_ffmpeg(file: BinaryIO, name: str) -> Sound:
    """Decode what libsndfile can't, if FFmpeg is installed."""
    if not shutil.which("ffmpeg"):
        what = f"{name} is M4A, MP4, WebM, AAC or AMR, but here is no `ffmpeg`; expected it"
        raise AudioError(UNREADABLE, f"{what}: install FFmpeg, or convert the file to WAV")
    decoded = TemporaryFile()  # noqa: SIM115 - FLAC, read in blocks like any other
    with TemporaryDirectory() as folder:
        with open(Path(folder, "sound"), "wb") as copy:  # M4A's table may lie at its end: no pipe
            shutil.copyfileobj(file, copy)
        command = ["ffmpeg", "-v", "error", "-i", copy.name, "-map", "0:a:0", "-f", "flac", "-"]
        done = subprocess.run(command, stdout=decoded, stderr=subprocess.PIPE)
    said = " ".join(done.stderr.decode(errors="replace").split())[:200]
    if done.returncode:
        raise AudioError(UNREADABLE, f"{name} cannot be decoded by FFmpeg ({said}): fetch it again")
    decoded.seek(0)
    sound = read_sound(decoded, name)
    if said:
        sound.doubt_length(None)
    return sound


def _with_true_size(file: BinaryIO) -> BinaryIO:
    """The file, or a copy if WAV or AU states less than follows: libsndfile would believe it."""
    head = file.read(2**16)
    place = None
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        at = 12
        while at + 8 <= len(head) and head[at : at + 4] != b"data":
            at += 8 + int.from_bytes(head[at + 4 : at + 8], "little") + head[at + 4] % 2
        size = int.from_bytes(head[at + 4 : at + 8], "little")
        file.seek(at + 8 + size + size % 2)
        following = file.read(4)
        if len(following) == 4 and not re.fullmatch(rb"[\w ]{4}", following):  # no other chunk
            place = at + 4
    elif head[:4] == b".snd" and head[8:12] == bytes(4):
        place = 8
    file.seek(0)
    if place is None:
        return file
    data = bytearray(file.read())
    data[place : place + 4] = b"\xff\xff\xff\xff"  # "not known yet"
    return InMemory(data)


def _ogg_streams(file: BinaryIO) -> tuple[bool, list[int]]:
    """Whether the last page is there and is marked as such; where each of the joined files begins.
    Pages as in RFC 3533: flags in byte 5 (2 first, 4 last of a stream), sizes from byte 26 on."""
    size, at, flags, starts = file.seek(0, io.SEEK_END), 0, 2, []
    while at < size:
        file.seek(at)
        page = file.read(27 + 255)
        if page[:4] != b"OggS" or len(page) < 27:
            break
        if page[5] & 2 and (not starts or not flags & 2):
            starts.append(at)
        flags = page[5]
        at += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return bool(flags & 4) and at <= size, starts or [0]


def _places(file: BinaryIO, sign: bytes) -> list[int]:
    """Where these bytes occur in a file."""
    found, position, window = [], 0, b""
    while chunk := file.read(2**20):
        window = window[1 - len(sign) :] + chunk
        position += len(chunk)
        found += [position - len(window) + m.start() for m in re.finditer(re.escape(sign), window)]
    return found


def _parts(file: BinaryIO, starts: list[int]) -> list[BinaryIO]:
    """Files that were joined, one by one; libsndfile reads the first alone."""
    if len(starts) < 2:
        return [file]
    file.seek(starts[0])
    return [InMemory(file.read(size)) for size in [*np.diff(starts).tolist(), -1]]
