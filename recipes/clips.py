"""What all made speech goes through: texts that are spoken as written, ends and levels, Opus."""

import io
import re
import zlib

import numpy as np
import soundfile

from tiny_asr.shapes import SAMPLE_RATE

# What is spoken must be what is written: no digits, no Roman numerals (espeak-ng says "roman
# four"), no abbreviations ("mr" without its full stop).
NOT_SPOKEN_AS_WRITTEN = re.compile(
    r"\d|(?<!\S)(?:[ivx]{2,}|x?l[ivx]+|xl|[b-df-hj-np-tv-xz]{2,})(?!\S)"
)
LONGEST = 28.0  # seconds

QUIET = 0.01  # of the peak: what is below it at either end is silence
MARGIN = (0.05, 0.4)  # seconds of silence at either end
PEAK_DB = (-20, -1)  # full scale is 0
# Shortest and longest speech of a text, in seconds: a constant and so much a letter.
SHORTEST, LONGEST_FOR = (0.0, 0.03), (0.2, 0.12)
OPUS_LEVEL = 0.957  # libsndfile's compression level: about 16 kbit/s
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def finish(samples: np.ndarray, letters: int, rng: np.random.Generator) -> np.ndarray:
    """Give a clip random silence at its ends and a random level: (S,) int16.

    Raises ValueError if it is too long, or lasts unlike `letters` letters.
    """
    loud = np.flatnonzero(np.abs(samples) > QUIET * np.abs(samples).max())
    start, stop = loud[0], loud[-1] + 1
    before, after = (int(rng.uniform(*MARGIN) * SAMPLE_RATE) for _ in range(2))
    level = 10 ** (rng.uniform(*PEAK_DB) / 20)
    shortest, longest = (fixed + each * letters for fixed, each in (SHORTEST, LONGEST_FOR))
    if not shortest < (stop - start) / SAMPLE_RATE < longest:
        raise ValueError("length unlike its text")
    if stop - start + before + after > LONGEST * SAMPLE_RATE:
        raise ValueError("too long")
    inside = samples[max(0, start - before) : stop + after]
    padded = np.pad(inside, (max(0, before - start), max(0, stop + after - len(samples))))
    return np.round(padded * (level * 32767 / np.abs(samples).max())).astype(np.int16)


def opus(samples: np.ndarray, serial: int) -> bytes:
    """Encode (S,) int16 as Ogg/Opus.

    libsndfile gives each file a serial number by the clock. It is written anew here, with the
    check sum of each page (RFC 3533, section 6; a CRC-32 like zlib's, its bits in reverse).
    """
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, "OPUS", format="OGG", compression_level=OPUS_LEVEL)
    encoded, pages, start = file.getvalue(), [], 0
    while start < len(encoded):
        segments = encoded[start + 27 : start + 27 + encoded[start + 26]]
        stop = start + 27 + len(segments) + sum(segments)
        head, rest = encoded[start : start + 14], encoded[start + 18 : stop]
        page = head + serial.to_bytes(4, "little") + rest[:4] + bytes(4) + rest[8:]
        crc = zlib.crc32(page.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
        crc_bytes = crc.to_bytes(4, "big").translate(REVERSED_BITS)
        pages.append(page[:22] + crc_bytes + page[26:])
        start = stop
    return b"".join(pages)
