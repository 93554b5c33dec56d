"""One clip and its text: what it holds, and why it may be left out.

A clip stays the encoded file that it came as until a batch needs it. What is wrong with it often
shows only then; it raises `BadClip`, whose `reason` is counted.
"""

import hashlib
import math
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import soundfile
from torch import Tensor

from tiny_asr.audio import read_audio
from tiny_asr.files.levels import SILENCE
from tiny_asr.files.reading import EMPTY, UNREADABLE, AudioError, opened
from tiny_asr.shapes import MAX_SECONDS, SAMPLE_RATE

NO_TEXT, TOO_LONG = "no text", f"longer than {MAX_SECONDS} s"
WRONG_LENGTH = "length unlike its `seconds`"
UNWRITABLE = "letters or symbols that a target can't hold"
TEXTS = ("plain", "written")  # what a checkpoint may be trained to write; see `target_of`
TOO_MUCH, TOO_LITTLE = "text too long for its clip", "text too short for its clip"
# Characters a second: 5700 read and spontaneous clips have 1.5 to 22. Beside them, short clips may
# be cut close, and long ones begin or end with quiet.
MOST, LEAST, SLACK_CHARACTERS, SLACK_SECONDS = 30, 0.5, 10, 10

SPELLED_OUT = str.maketrans(
    {"&": " and ", "%": " percent ", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l"}
    | dict.fromkeys("\u2018\u2019\u02bc\u00b4\uff07`", "'")  # curly and other apostrophes
)


class BadClip(AudioError):
    """A clip that can't be trained on; `reason` is what it is counted under."""


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a longer file, from `start` on, both in seconds."""

    path: Path
    start: float
    seconds: float

    def read(self) -> dict:
        """Its samples and their rate, as `load_audio` takes them; raises AudioError."""
        try:
            with soundfile.SoundFile(self.path) as file:
                rate = file.samplerate
                file.seek(round(self.start * rate))
                samples = file.read(round(self.seconds * rate), "float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError, OverflowError) as error:
            raise AudioError(UNREADABLE, f"{self} cannot be read: {error}") from error
        return {"array": samples.T, "sampling_rate": rate}


@dataclass(frozen=True)
class Member:
    """A file within a shard (see `shards`): where it begins, and its bytes."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The encoded file; raises AudioError."""
        try:
            with open(self.path, "rb") as shard:
                shard.seek(self.offset)
                content = shard.read(self.size)
        except OSError as error:
            raise AudioError(UNREADABLE, f"{self} cannot be read: {error}") from error
        if len(content) < self.size:
            raise AudioError(UNREADABLE, f"{self} ends after {len(content)} bytes")
        return content


@dataclass(frozen=True)
class Utterance:
    """One clip, still encoded.

    id: unique in its data set; names the clip in caches and seeds its augmentation.
    text: the target, as `target_of` gives it; empty where nobody speaks.
    seconds: its duration as the data set or the file's header states it.
    groups: `{field: value}` of the columns in GROUP_COLUMNS, for a WER by speaker, voice, ...
    audio: the encoded file, where it lies, a stretch of one, or its place in a shard.
    """

    id: str
    text: str
    seconds: float
    groups: dict[str, str]
    audio: bytes | Path | Excerpt | Member

    def load(self, max_seconds: float | None = MAX_SECONDS) -> Tensor:
        """Decode: (S,) float32, mono, 16 kHz. Raises BadClip, a ValueError with a `reason`."""
        try:
            audio = self.audio.read() if isinstance(self.audio, Excerpt | Member) else self.audio
            waveform, doubts = read_audio(audio)
            for doubt in doubts:
                if self.text or doubt.reason != SILENCE:  # where nobody speaks it is in order
                    raise doubt
        except AudioError as error:
            raise BadClip(error.reason, f"clip {self.id!r}: {error}") from error
        seconds = len(waveform) / SAMPLE_RATE
        if max_seconds is not None and seconds > max_seconds:
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
        """A digest of the encoded audio (16 bytes), that of nothing if its file can't be read.

        Of an excerpt or a shard's member, that of its place: reading a long file for each of its
        parts takes too long.
        """
        if isinstance(self.audio, Excerpt | Member):
            return hashlib.blake2b(repr(self.audio).encode(), digest_size=16).digest()
        try:
            encoded = self.audio.read_bytes() if isinstance(self.audio, Path) else self.audio
        except OSError:
            encoded = b""
        return hashlib.blake2b(encoded, digest_size=16).digest()


def normalise_transcript(text: str) -> str:
    """The plain training target of a transcript: lower-case a-z, digits, apostrophes inside words.

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


def as_written(text: str) -> str:
    """A transcript with its case, punctuation, digits and script: NFC, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def text_of(text: str, style: str = "plain") -> str:
    """A transcript as a checkpoint writes it: `plain` or `written`, see `ASRConfig.text`."""
    if style not in TEXTS:
        raise ValueError(f"text={style!r} came; expected one of {', '.join(TEXTS)}")
    return as_written(text) if style == "written" else normalise_transcript(text)


def target_of(text: str, name: str, style: str = "plain") -> str:
    """`text_of`; BadClip if nothing is left, or something is lost that is spoken.

    Args:
        name: of the clip, for messages.
    """
    target = text_of(text, style)
    if lost := _broken(target) if style == "written" else _lost(text):
        what = f"clip {name!r}, whose text {text!r:.60} holds {' '.join(sorted(lost))}"
        expected = "a-z, digits and punctuation: write it as it is spoken, or keep it as it is"
        expected += " written (--text written)"
        if style == "written":
            expected = "letters: was it read in a wrong encoding?"
        raise BadClip(UNWRITABLE, f"{what}; expected {expected}")
    if not target:
        raise BadClip(NO_TEXT, f"clip {name!r} has no text")
    return target


def _broken(text: str) -> set[str]:
    """What is no text: signs of a wrong encoding, control characters."""
    kinds = {c: unicodedata.category(c) for c in text}
    return {ascii(c) for c, kind in kinds.items() if kind in ("Cc", "Cn", "Cs") or c == "\ufffd"}


def _lost(text: str) -> set[str]:
    """What a plain target would lose although it is spoken. That is other scripts, and symbols:
    `$5` is not said "5", nor `1/2` "1 2"."""
    rest = re.sub(r"(?<=\d) ?%", "", text)
    lost = set(re.findall(r"[%@#§ªº]|(?<![\w.,])-(?=\d)|(?<=\d)/(?=\d)", rest))
    for character in set(rest) - set("&`\u00b4"):
        kind = unicodedata.category(character)
        letter = kind[0] in "LN" and ord(character) not in SPELLED_OUT
        if kind[0] == "S" or kind == "No" or (letter and not normalise_transcript(character)):
            lost.add(character)
    return lost


def check_pace(target: str, seconds: float, name: str) -> None:
    """Raise BadClip where so much can't have been said in this time, or so little."""
    much = len(target) > MOST * seconds + SLACK_CHARACTERS
    if much or len(target) < LEAST * (seconds - SLACK_SECONDS):
        what = f"clip {name!r}, with {len(target)} letters in {seconds:.1f} s"
        expected = f"{LEAST} to {MOST} a second: does the text belong to it?"
        raise BadClip(TOO_MUCH if much else TOO_LITTLE, f"{what}; expected {expected}")


def stated_seconds(audio: bytes | Path | Excerpt | Member | None, stated, name: str) -> float:
    """Duration by the table if it has it, else by the file's header; MP3 is counted.

    Raises BadClip if there is no sound, ValueError if the table states no seconds.
    """
    if audio is None or audio == b"":
        raise BadClip(EMPTY, f"clip {name!r} has no bytes and no path")
    try:
        stated = math.nan if stated is None else float(stated)
    except (TypeError, ValueError):
        raise ValueError(f"row {name!r} has seconds={stated!r}; expected a number") from None
    seconds = audio.seconds if isinstance(audio, Excerpt) else stated
    if not seconds <= MAX_SECONDS and not isinstance(audio, Excerpt):  # or NaN
        try:
            with opened(audio.read() if isinstance(audio, Member) else audio, None) as sound:
                own = sound.seconds
                own = sum(map(len, sound.blocks)) / sound.rate if own is None else own
        except AudioError as error:
            raise BadClip(error.reason, f"clip {name!r}: {error}") from error
        if stated > 100 * own > 0:
            raise ValueError(
                f"row {name!r} has seconds={stated:g}, but its sound lasts {own:.2f} s; expected "
                "seconds: are these milliseconds or samples?"
            )
        seconds = stated if math.isfinite(stated) else own
    if seconds <= 0:
        raise BadClip(EMPTY, f"clip {name!r} lasts 0 seconds")
    return seconds
