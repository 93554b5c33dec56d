"""From any sound to the picture of sound that the encoder reads.

A Whisper encoder hears exactly one thing: a log-mel spectrogram of mono sound at 16 kHz. Recordings
come in every format, rate and channel count, and most wrong transcripts begin with a clip that was
read wrongly and not noticed. So all sound enters through `load_audio`, which gives one form or says
what is wrong, and all spectrograms come from `log_mel`, in training as in use.

Shapes use the course's symbols: B clips in a batch, S samples, M mel bins, F mel frames.
"""

import warnings
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from tempfile import SpooledTemporaryFile

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from transformers.audio_utils import mel_filter_bank

from tiny_asr.device import send
from tiny_asr.files.levels import LEVEL_WINDOW, Levels, short_time_level
from tiny_asr.files.reading import EMPTY, TORN, AudioError, opened
from tiny_asr.shapes import HOP_LENGTH, MAX_SAMPLES, MAX_SECONDS, SAMPLE_RATE, keep, stage

N_FFT = 400  # 25 ms of sound under one window: a few periods of the lowest voice
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # Hz; a header outside this is broken, not unusual
REACH = 8  # periods of the rates' common rhythm that torchaudio's filter reaches over, rounded up
IN_MEMORY = 2**25  # bytes: a sound of more than nine minutes lies in a file
QUIET_WINDOW = SAMPLE_RATE // 10  # 0.1 s: longer than a stop consonant, shorter than a pause
STEADY_FRAMES = 50  # 0.5 s: in speech the level rises and falls in less
STEADY_DB, BELOW_DB, FLOOR_DB = 8.0, 6.0, 50.0  # see `leave_out_quiet`
SHORT_PART = 2 * SAMPLE_RATE  # alone, noises under 2 s are taken for words more often
LONG_QUIET = int(0.8 * SAMPLE_RATE)  # at the edges of read speech there is up to 0.65 s
QUIET_KEPT = int(0.2 * SAMPLE_RATE)  # longer than the soft sounds that begin and end words
TimedPiece = tuple[torch.Tensor, float, float]


def load_audio(source, sampling_rate: int | None = None) -> torch.Tensor:
    """Read any sound as mono float32 at 16 kHz: a contiguous CPU tensor (S,), never truncated.

    `source` is one of

    - a path, an open binary file, or the file's bytes: WAV, AIFF, FLAC, Ogg Vorbis, Opus, MP3, and
      M4A, MP4 or WebM where FFmpeg is installed;
    - `{"bytes": ..., "path": ...}`, a row of `datasets` with `Audio(decode=False)`;
    - `{"array": ..., "sampling_rate": ...}`;
    - a numpy array or a tensor, (S,) or (channels, S), with `sampling_rate` in Hz. Floats are taken
      as they are (full scale is -1 to 1), integers are scaled from their type's range.

    Channels are averaged, any rate is resampled, block by block: three hours take the 0.7 GB that
    they are at 16 kHz, and these lie in a temporary file.

    Raises AudioError, a ValueError, if there is no sound there, or none that can be trusted: file
    missing or not audio, empty, NaN or Inf, wrong rank, type or rate. Warns of what `read_audio`
    doubts.
    """
    waveform, doubts = read_audio(source, sampling_rate)
    for doubt in doubts:
        warnings.warn(str(doubt), stacklevel=2)
    return waveform


def read_audio(
    source, sampling_rate: int | None = None, max_seconds: float = float("inf")
) -> tuple[torch.Tensor, list[AudioError]]:
    """`load_audio`, and why the sound may not be what was recorded, each with its `reason`.

    Doubted are a file that ends early, channels that cancel, digital silence, floats that are not
    on the scale of -1 to 1, and single samples far beyond it. What lasts over `max_seconds` is an
    AudioError, and is not read to its end.
    """
    with opened(source, sampling_rate) as sound:
        name, rate = sound.name, sound.rate
        if not isinstance(rate, int | np.integer) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioError(
                "wrong rate",
                f"{name} has sampling_rate={rate!r}; expected an integer from {LOWEST_RATE} to "
                f"{HIGHEST_RATE} Hz: pass the rate that the sound was recorded at",
            )
        if sampling_rate is not None and sampling_rate != rate:
            raise AudioError(
                "wrong rate",
                f"{name} has its own rate, {rate} Hz, but sampling_rate={sampling_rate} was given; "
                "expected the same: pass sampling_rate with a bare array only",
            )
        levels = Levels()
        waveform = _joined(resampled(map(levels.mono, sound.at_most(max_seconds)), int(rate)))
    if levels.samples == 0 and sound.doubts:
        what = f"{name} cannot be decoded (its beginning is damaged)"
        raise AudioError(TORN, f"{what}; expected whole blocks of sound: fetch it again")
    if levels.samples == 0:
        what = f"{name} is empty: 0 samples"
        raise AudioError(EMPTY, f"{what}; expected some sound: check the recording")
    if levels.bad:
        what = f"{name} has {levels.bad} NaN or Inf"
        raise AudioError("NaN or Inf", f"{what}; expected finite numbers: drop this clip")
    return waveform, sound.doubts + levels.doubts(name)


def resampled(blocks: Iterable[torch.Tensor], rate: int) -> Iterator[torch.Tensor]:
    """Blocks (n,) at `rate` as blocks at 16 kHz, equal to the whole resampled at once."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    # The filter grows with the terms of the reduced fraction: 44 100 Hz is 441/160, but 22 051 Hz
    # would take gigabytes. With small terms the speed is off by 1 in 10 000 at most.
    ratio = Fraction(rate, SAMPLE_RATE).limit_denominator(1000)
    old, new = ratio.numerator, ratio.denominator
    held, before = torch.zeros(0), 0  # what was not yet written and what its filter reaches over
    for block in blocks:
        held = torch.cat([held, block])
        ready = len(held) // old - REACH
        if ready > before:
            yield torchaudio.functional.resample(held, old, new)[before * new : ready * new]
            held, before = held[max(0, ready - REACH) * old :], min(ready, REACH)
    if len(held):
        yield torchaudio.functional.resample(held, old, new)[before * new :]


def _joined(blocks: Iterable[torch.Tensor]) -> torch.Tensor:
    """Blocks (n,) as one tensor; a long one lies in a file, which the system may page out."""
    with SpooledTemporaryFile(IN_MEMORY) as file:
        for block in blocks:
            file.write(block.numpy().tobytes())
        if file.tell() > IN_MEMORY:
            return torch.from_numpy(np.memmap(file, np.float32, "c"))
        file.seek(0)
        return torch.from_numpy(np.frombuffer(bytearray(file.read()), np.float32))


def cut(waveform: torch.Tensor, max_seconds: float) -> list[torch.Tensor]:
    """A clip (S,) without its long quiets, cut there, in pieces of at most `max_seconds`.

    A part too short to be understood, or known as noise, alone stays with its neighbour.
    """
    return [piece for piece, _, _ in timed_pieces(waveform, max_seconds)]


def timed_pieces(
    waveform: torch.Tensor, max_seconds: float, loudest: float = -torch.inf
) -> list[TimedPiece]:
    """What `cut` gives, each piece with its start and end in the clip, in seconds.

    `loudest`: see `leave_out_quiet`.
    """
    pieces: list[TimedPiece] = []
    for part in leave_out_quiet(waveform, loudest):
        start = (part.storage_offset() - waveform.storage_offset()) / SAMPLE_RATE
        before, first, _ = pieces[-1] if pieces else (part[:0], start, start)
        shorter, longer = sorted((len(part), len(before)))
        if 0 < shorter < SHORT_PART and shorter + longer <= max_seconds * SAMPLE_RATE:
            pieces[-1] = (torch.cat((before, part)), first, start + len(part) / SAMPLE_RATE)
        else:
            for piece in split_at_silences(part, max_seconds):
                pieces.append((piece, start, start := start + len(piece) / SAMPLE_RATE))
    return pieces


def leave_out_quiet(waveform: torch.Tensor, loudest: float = -torch.inf) -> list[torch.Tensor]:
    """Cut a clip (S,) at both ends of each long quiet: the parts between, as views, in order.

    Models trained on clips that begin with speech take seconds of quiet for "nobody speaks". Quiet
    is found relative to the clip, by what sets it apart from speech: for 0.5 s its level changes
    by less than 8 dB (all that lies 50 dB under the loudest 0.1 s counts as equal), at least 6 dB
    under that loudest. So soft speech beside loud is not quiet, and a steady noise is. Where it
    lasts over 0.8 s, all of it but 0.2 s beside each sound is left out.

    Whether anybody speaks is not decided here: the loudest part always stays, and a clip that is
    alike all the way, or whose quiets are short, is returned whole. Of a clip that is the end of a
    recording, `loudest` is the level of what came before, in dB (see `short_time_level`).
    """
    _check_clip(waveform, "the clip")
    if len(waveform) <= LONG_QUIET:
        return [waveform]
    level, own = short_time_level(waveform)
    peak = own.clamp(min=loudest)
    level = level.clamp(min=peak - FLOOR_DB)
    high, low = F.max_pool1d(level, STEADY_FRAMES, 1), -F.max_pool1d(-level, STEADY_FRAMES, 1)
    steady = (high - low < STEADY_DB) & (high < peak - BELOW_DB)
    quiet = F.max_pool1d(F.pad(steady.float(), [STEADY_FRAMES - 1] * 2), STEADY_FRAMES, 1)[0]
    change = F.pad(quiet, (1, 1)).diff()
    begins, ends = (change > 0).nonzero().flatten(), (change < 0).nonzero().flatten()
    parts, start = [], 0
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        at_start, at_end = begin == 0, end == len(quiet)
        first = begin * HOP_LENGTH
        last = len(waveform) if at_end else (end - 1) * HOP_LENGTH + LEVEL_WINDOW
        if last - first <= LONG_QUIET:
            continue
        if not at_start:
            parts.append(waveform[start : first + QUIET_KEPT])
        start = last if at_end else last - QUIET_KEPT
    return parts if start == len(waveform) else [*parts, waveform[start:]]


def split_at_silences(waveform: torch.Tensor, max_seconds: float = 30.0) -> list[torch.Tensor]:
    """Cut a long clip (S,) into pieces of at most `max_seconds`, in pauses where there are any.

    Each cut lies in the middle of the quietest 0.1 s (least energy) of the last third of what may
    still fit, so a word is cut only where nobody paused in all that time. The pieces are views;
    joined again they are the waveform, sample by sample. A clip that fits is returned whole.
    """
    _check_clip(waveform, "the clip")
    if not max_seconds >= 1:
        raise ValueError(f"got max_seconds={max_seconds}; expected 1 to {MAX_SECONDS}: pass more")
    longest = int(max_seconds * SAMPLE_RATE)
    pieces, rest = [], waveform
    while len(rest) > longest:
        start = longest * 2 // 3
        power = rest[None, start:longest].float().square()
        quietest = F.avg_pool1d(power, QUIET_WINDOW, stride=HOP_LENGTH).argmin()
        cut = start + int(quietest) * HOP_LENGTH + QUIET_WINDOW // 2
        pieces.append(rest[:cut])
        rest = rest[cut:]
    return [*pieces, rest]


def pad_batch(
    waveforms: list[torch.Tensor], multiple: int, pin: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-pad clips (S,) into one batch.

    `multiple` is in samples: SAMPLES_PER_ENCODER_FRAME x `audio_downsample_rate`, so that no frame
    is dropped later. `pin`: in memory that a GPU can copy from by itself. Returns the batch (B, S)
    float32 and each clip's own length rounded up to `multiple`, (B,) int64 on the CPU; S is the
    largest of them.
    """
    if len(waveforms) == 0:
        raise ValueError("got an empty list of clips; expected at least one: check what was listed")
    longest = MAX_SAMPLES // multiple * multiple
    for number, waveform in enumerate(waveforms):
        _check_clip(waveform, f"clip {number}")
        if len(waveform) > longest:
            raise ValueError(
                f"clip {number} lasts {len(waveform) / SAMPLE_RATE:.2f} s; expected at most "
                f"{longest / SAMPLE_RATE:g} s: use transcribe, or split_at_silences first"
            )
    lengths = torch.tensor([-(-len(waveform) // multiple) * multiple for waveform in waveforms])
    shape, device = (len(waveforms), int(lengths.max())), waveforms[0].device
    batch = torch.zeros(shape, device=device, pin_memory=pin)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return batch, lengths


def _check_clip(waveform: torch.Tensor, name: str) -> None:
    if waveform.ndim != 1 or len(waveform) == 0:
        shape = tuple(waveform.shape)
        raise ValueError(f"{name} has shape {shape}; expected (S,) with S > 0: use load_audio")


@lru_cache(maxsize=8)  # building the filters takes longer than using them
def _spectrogram_and_filters(num_mel_bins: int, device: torch.device):
    spectrogram = torchaudio.transforms.Spectrogram(N_FFT, hop_length=HOP_LENGTH, center=False)
    # Not torchaudio's filters: made in float32, they move features of 128 bins by 3e-4.
    bins, top = N_FFT // 2 + 1, SAMPLE_RATE / 2
    filters = mel_filter_bank(bins, num_mel_bins, 0.0, top, SAMPLE_RATE, "slaney", "slaney")
    return spectrogram.to(device), torch.from_numpy(filters.T).to(device, torch.float32)


@stage("log_mel")
def log_mel(
    waveforms: torch.Tensor, num_mel_bins: int, lengths: torch.Tensor | None = None
) -> torch.Tensor:
    """Log-mel spectrograms (B, M, F) float32 of clips (B, S), F = S / 160, on the clips' device.

    `lengths` (B,) are the clips' own lengths in samples, as `pad_batch` returns them; without it
    all are S long. S and `lengths` must be multiples of 160. What lies beyond a clip's length is
    ignored and its frames there are 0: a clip has the same numbers in a batch as alone.

    The formula is that of Radford et al. 2022, as WhisperFeatureExtractor in transformers has it:
    log10 of the mel power, no lower than 8 (80 dB) under the clip's maximum, then (x + 4) / 4.
    Only the clip's own frames are computed, not those of padding to 30 s.
    """
    shape = tuple(waveforms.shape)
    if len(shape) != 2 or 0 in shape or shape[1] % HOP_LENGTH:
        expected = f"expected (B, S), S a multiple of {HOP_LENGTH}: use pad_batch"
        raise ValueError(f"got waveforms of shape {shape}; {expected}")
    clips, samples = shape
    lengths = torch.full((clips,), samples) if lengths is None else lengths
    wrong = (lengths < 1) | (lengths > samples) | (lengths % HOP_LENGTH > 0)
    if lengths.shape != (clips,) or wrong.any():
        raise ValueError(
            f"got lengths {lengths.tolist()} for waveforms of shape {shape}; expected a multiple "
            f"of {HOP_LENGTH}, at most S, for each clip: use pad_batch"
        )
    device = waveforms.device
    beyond = torch.arange(samples, device=device) >= send(lengths, device)[:, None]  # (B, S)
    # A window is centred on its frame's first sample, so the outermost ones reach over the edges.
    # Whisper mirrors the sound there, but it pads to 30 s with zeros first: on the right a clip
    # meets silence, unless it fills the 30 s.
    sound = waveforms.float().masked_fill(beyond, 0.0)
    sound = F.pad(sound, (0, N_FFT // 2), mode="reflect" if samples == MAX_SAMPLES else "constant")
    sound = F.pad(sound, (N_FFT // 2, 0), mode="reflect")
    with torch.autocast(device.type, enabled=False):
        spectrogram, filters = _spectrogram_and_filters(num_mel_bins, device)
        power = filters @ spectrogram(sound)[..., :-1]  # (B, M, F): Whisper drops the last too
    loudness = power.clamp(min=1e-10).log10()
    beyond = beyond[:, None, ::HOP_LENGTH]  # (B, 1, F)
    loudest = loudness.masked_fill(beyond, -torch.inf).amax(dim=(1, 2), keepdim=True)
    features = (torch.maximum(loudness, loudest - 8.0) + 4.0) / 4.0
    return features.masked_fill(beyond, 0.0)


def mel_for_encoder(
    waveforms: torch.Tensor, lengths: torch.Tensor, num_mel_bins: int, padding: str = "none"
) -> tuple[torch.Tensor, torch.Tensor]:
    """What an encoder hears of clips (B, S): log-mel (B, M, F), and each clip's own frames (B,).

    `padding` "none": the clips and no more. "window": 30 s with zeros after the clip, as Whisper
    was trained, all of which count as the clip's frames. "window_cut": the same is heard, but only
    the clip's own frames count. `lengths` as in `log_mel`.
    """
    if padding != "none":
        waveforms = F.pad(waveforms, (0, MAX_SAMPLES - waveforms.shape[1]))
    whole = torch.full_like(lengths, waveforms.shape[1])
    heard = lengths if padding == "none" else whole
    mel = log_mel(keep("waveform", waveforms), num_mel_bins, heard)
    return mel, (lengths if padding == "window_cut" else heard) // HOP_LENGTH
