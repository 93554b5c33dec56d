"""One clip and its text: what it holds, and why it may be left out.

A clip stays the encoded file that it came as until a batch needs it, so that a day of speech fits
into a laptop's memory. What is wrong with a clip often shows only then; it raises `BadClip`, whose
`reason` is counted, so that nobody has to wonder where a tenth of the data went.
"""

import hashlib
import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor

from tiny_asr.audio import load_audio
from tiny_asr.shapes import MAX_SAMPLES, MAX_SECONDS, SAMPLE_RATE

# What `load_audio` says in its errors, and the reason under which such a clip is counted.
REASONS = {"NaN or Inf": "NaN or Inf", " is empty": "empty audio", "sampling_rate=": "wrong rate"}
NO_TEXT, EMPTY, UNREADABLE = "no text", "empty audio", "unreadable audio"
TOO_LONG, WRONG_LENGTH = f"longer than {MAX_SECONDS} s", "length unlike its `seconds`"

SPELLED_OUT = str.maketrans(
    {"&": " and ", "%": " percent ", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l"}
    | dict.fromkeys("\u2018\u2019\u02bc\u00b4\uff07`", "'")  # curly and other apostrophes
)


class BadClip(ValueError):
    """A clip that can't be trained on; `reason` is what it is counted under."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Utterance:
    """One clip, still encoded.

    id: unique in its data set; names the clip in caches and seeds its augmentation.
    text: the target, as `normalise_transcript` gives it; empty where nobody speaks.
    seconds: its duration as the data set or the file's header states it.
    groups: `{field: value}` of the columns in GROUP_COLUMNS, for a WER by speaker, voice, ...
    audio: the encoded file, or where it lies.
    """

    id: str
    text: str
    seconds: float
    groups: dict[str, str]
    audio: bytes | Path

    def load(self) -> Tensor:
        """Decode: (S,) float32, mono, 16 kHz. Raises BadClip, a ValueError with a `reason`."""
        try:
            waveform = load_audio(self.audio)
        except ValueError as error:
            reasons = [reason for sign, reason in REASONS.items() if sign in str(error)]
            raise BadClip((reasons or [UNREADABLE])[0], f"clip {self.id!r}: {error}") from error
        seconds = len(waveform) / SAMPLE_RATE
        if len(waveform) > MAX_SAMPLES:
            raise BadClip(TOO_LONG, f"clip {self.id!r} lasts {seconds:.2f} s; split it")
        # Batches were formed by the stated length, and a text of 10 s does not fit 5 s of sound: a
        # wrong rate in the header and a torn file both show here.
        if abs(seconds - self.seconds) > 0.5 + 0.1 * self.seconds:
            raise BadClip(
                WRONG_LENGTH,
                f"clip {self.id!r} decodes to {seconds:.2f} s; expected the {self.seconds:.2f} s "
                "that its `seconds` or header states: check its rate, or whether it is torn",
            )
        return waveform

    def fingerprint(self) -> bytes:
        """A digest of the encoded audio (16 bytes), that of nothing if its file can't be read."""
        try:
            encoded = self.audio.read_bytes() if isinstance(self.audio, Path) else self.audio
        except OSError:
            encoded = b""
        return hashlib.blake2b(encoded, digest_size=16).digest()


def normalise_transcript(text: str) -> str:
    """The training target of a transcript: lower-case a-z, digits, apostrophes inside words.

    Accents are folded, `&` and `%` spelled out, `1,000` becomes `1000` and `3.5` `3 point 5`; all
    other punctuation becomes a space. Not the normaliser of the evaluation, which maps different
    spellings of a word to one and is never applied to targets.
    """
    text = unicodedata.normalize("NFKD", text.casefold().translate(SPELLED_OUT))
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    text = re.sub(r"[^a-z0-9']", " ", text)
    text = re.sub(r"(?<![a-z0-9])'+|'+(?![a-z0-9])", " ", text)  # quotation marks
    return " ".join(text.split())


def stated_seconds(audio: bytes | Path | None, stated: float | None) -> float:
    """Duration by the table if it has it, else by the file's header, which needs no decoding."""
    if audio is None or audio == b"":
        raise BadClip(EMPTY, "no bytes and no path")
    if stated is None or not np.isfinite(stated):
        try:
            file = audio if isinstance(audio, Path) else io.BytesIO(audio)
            stated = soundfile.info(file).duration
        except (soundfile.LibsndfileError, OSError) as error:
            raise BadClip(UNREADABLE, str(error)) from error
    if stated <= 0:
        raise BadClip(EMPTY, "0 seconds")
    if stated > MAX_SECONDS:
        raise BadClip(TOO_LONG, f"{stated} s")
    return float(stated)
