"""Makes clips in which nobody speaks: to learn to write nothing there, and to test that.

    train.parquet   1320 clips of 1 to 15 s, for `tiny-asr train --noise-data`
    test.parquet    200 clips, always the same, for `tiny-asr evaluate --no-speech`
    noise.parquet   the recordings among them alone, for `tiny-asr evaluate --noise-data`

with the columns id, kind, text (empty), seconds, audio{bytes, path} (FLAC). A part is real:
everyday noise of `speech/noise.parquet` of the shared material (TINY_ASR_SHARED, or ../shared
beside the checkout); so the files are not bundled. The rest is computed: silence, noises, tones,
and what sounds like music. The test has other recordings, other draws, and four kinds that the
training does not have (siren, chirps, bells, plucked), so that its number says something about
sounds that nobody thought of.

    python -m recipes.no_speech

Everything is drawn from SEED and a clip's id: the same versions of the libraries write the same
bytes again.
"""

import argparse
import io
import re
import zlib
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import soundfile

from recipes.text import SHARED, WORK

SEED = 20
SAMPLE_RATE = 16_000
SHORTEST, LONGEST = 1.0, 15.0  # seconds
SHORT_ONES = {"train": 5, "test": 2}  # half of the clips last under 1.4 and 4.5 s: 25 MB to carry
LEVELS_DB = (-60.0, -12.0)  # root mean square below full scale
GRAIN = 8  # steps in a computed clip's RMS: a faint floor 29 dB down, and half the bytes
TEST_SHARE = 0.215  # of each series of recordings

TRAIN_COUNTS = {
    "real": 380, "silence": 20, "near-silence": 50, "noise": 120, "pulses": 80,
    "hum": 50, "tone": 60, "beeps": 80, "sweep": 60, "clicks": 60, "engine": 60,
    "melody": 90, "chords": 70, "arpeggio": 70, "drums": 70,
}  # fmt: skip
TEST_COUNTS = {
    "real": 80,
    "silence": 5, "near-silence": 5, "noise": 12, "pulses": 8,
    "hum": 7, "tone": 7, "beeps": 7, "sweep": 6, "clicks": 3, "engine": 3, "siren": 6, "chirps": 6,
    "melody": 9, "chords": 8, "arpeggio": 8, "drums": 8, "bells": 6, "plucked": 6,
}  # fmt: skip
KEYPAD_HZ = ((697, 770, 852, 941), (1209, 1336, 1477, 1633))  # ITU-T Q.23: one of each sounds
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))
BELL_PARTIALS = (0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.67, 3.0, 4.0)  # hum note, prime, minor third, ...

Rng = np.random.Generator


# Parts of sounds: float64 (n,) at any loudness, which `at_level` sets later -----------------------


def clock(n: int) -> np.ndarray:
    """The time in seconds of each of n samples."""
    return np.arange(n) / SAMPLE_RATE


def log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def coloured(rng: Rng, n: int, slope: float) -> np.ndarray:
    """Noise whose power falls with frequency to the `slope`: 0 white, 1 pink, 2 brown."""
    hertz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE).clip(min=30)
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * hertz ** (-slope / 2), n)


def glide(hertz: np.ndarray) -> np.ndarray:
    """A sine whose frequency is given at each sample (n,)."""
    return np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE)


def harmonics(pitch: float, n: int, brightness: float) -> np.ndarray:
    """A tone with overtones below 7.6 kHz, each `brightness` times as strong as the one before."""
    orders = np.arange(1, max(2, min(12, int(7600 / pitch) + 1)))
    return brightness**orders @ np.sin(2 * np.pi * pitch * np.outer(orders, clock(n)))


def strike(n: int, attack: float, decay: float) -> np.ndarray:
    """A note's envelope: it rises in `attack` s, falls to a third in `decay` s, ends softly."""
    time = clock(n)
    fade = ((n - np.arange(n)) / (0.01 * SAMPLE_RATE)).clip(max=1)
    return np.minimum(time / attack, 1) * np.exp(-time / decay) * fade


def play(rng: Rng, n: int, notes: Iterator[tuple[float, list[int]]]) -> np.ndarray:
    """Notes one after the other: (beats, semitones above the lowest; none is a rest)."""
    beat, lowest = rng.uniform(0.12, 0.5), log_uniform(rng, 80, 500)
    brightness, attack, decay = rng.uniform(0.2, 0.8), rng.uniform(0.003, 0.08), rng.uniform(0.1, 1)
    sound, start = np.zeros(n), 0
    while start < n:
        beats, chord = next(notes)
        size = min(int(beats * beat * SAMPLE_RATE), n - start)
        for semitone in chord:
            tone = harmonics(lowest * 2 ** (semitone / 12), size, brightness)
            sound[start : start + size] += tone * strike(size, attack, decay)
        start += size
    return sound


def bursts(rng: Rng, n: int, lengths: tuple[float, float], pauses: tuple[float, float]):
    """Where sounds with pauses between lie: slices of n samples, lengths and pauses in seconds."""
    start = int(rng.uniform(0, pauses[1]) * SAMPLE_RATE) % n
    while start < n:
        size = int(rng.uniform(*lengths) * SAMPLE_RATE)
        yield slice(start, min(start + size, n))
        start += size + int(rng.uniform(*pauses) * SAMPLE_RATE)


# One function a kind -----------------------------------------------------------------------------


def noise(rng: Rng, n: int) -> np.ndarray:
    """White, pink, brown or between, as often steady as with a slowly changing level."""
    sound = coloured(rng, n, rng.choice([0, 1, 2, rng.uniform(0, 2)]))
    if rng.random() < 0.5:
        sound *= 1 + 0.9 * np.sin(2 * np.pi * (rng.uniform(0.05, 0.5) * clock(n) + rng.random()))
    return sound


def pulses(rng: Rng, n: int) -> np.ndarray:
    """Noise that swells 2 to 8 times a second, as the syllables of speech do."""
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(2, 8) * clock(n) + rng.random()))
    return coloured(rng, n, rng.uniform(0, 2)) * swell ** rng.uniform(0.5, 3)


def hum(rng: Rng, n: int) -> np.ndarray:
    """The mains at 50 or 60 Hz and up to 20 multiples of it."""
    orders = np.arange(1, rng.integers(3, 21))
    strengths = rng.exponential(size=len(orders)) / orders ** rng.uniform(0, 1.5)
    return strengths @ np.sin(2 * np.pi * rng.choice([50, 60]) * np.outer(orders, clock(n)))


def tone(rng: Rng, n: int) -> np.ndarray:
    """One sine, all the time."""
    return glide(np.full(n, log_uniform(rng, 60, 7000)))


def beeps(rng: Rng, n: int) -> np.ndarray:
    """A keypad's pairs of tones, or the same beep again and again."""
    sound, keypad = np.zeros(n), rng.random() < 0.5
    pitch, lengths = log_uniform(rng, 300, 4000), sorted(rng.uniform(0.05, 0.6, 2))
    for part in bursts(rng, n, lengths, (0.03, 0.8)):
        size = part.stop - part.start
        pitches = [rng.choice(row) for row in KEYPAD_HZ] if keypad else [pitch]
        sound[part] = sum(glide(np.full(size, hertz)) for hertz in pitches) * strike(size, 0.005, 9)
    return sound


def sweep(rng: Rng, n: int) -> np.ndarray:
    """A tone that glides from one pitch to another, once or up to five times."""
    low, high = log_uniform(rng, 60, 1500), log_uniform(rng, 1500, 7500)
    place = clock(n) * rng.integers(1, 6) * SAMPLE_RATE / n % 1
    place = place if rng.random() < 0.5 else 1 - place
    return glide(low * (high / low) ** place if rng.random() < 0.5 else low + (high - low) * place)


def clicks(rng: Rng, n: int) -> np.ndarray:
    """Ticks, regular or not, each some milliseconds of decaying noise."""
    sound, gap = np.zeros(n), rng.uniform(0.05, 0.8)
    pauses = (gap, gap) if rng.random() < 0.5 else (0.02, 2 * gap)
    for part in bursts(rng, n, (0.03, 0.03), pauses):
        size = part.stop - part.start
        sound[part] = rng.standard_normal(size) * strike(size, 0.0005, rng.uniform(0.001, 0.008))
    return sound


def engine(rng: Rng, n: int) -> np.ndarray:
    """A low buzz that wanders in pitch, and the rush around it."""
    wander = np.cumsum(coloured(rng, n, 2))
    pitch = log_uniform(rng, 25, 150) * (1 + 0.2 * wander / np.abs(wander).max())
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    orders = np.arange(1, rng.integers(6, 25))
    buzz = (rng.exponential(size=len(orders)) / orders) @ np.sin(np.outer(orders, phase))
    rush = coloured(rng, n, 1.5)
    return buzz / buzz.std() + rng.uniform(0, 0.5) * rush / rush.std()


def melody(rng: Rng, n: int) -> np.ndarray:
    """A walk up and down a scale, in a rhythm, with rests."""

    def notes():
        scale, step = rng.choice(len(SCALES)), 7
        while True:
            step = int(np.clip(step + rng.integers(-3, 4), 0, 14))
            octave, degree = divmod(step, len(SCALES[scale]))
            rest = rng.random() < 0.1
            yield rng.choice([0.5, 1, 1, 2]), [] if rest else [12 * octave + SCALES[scale][degree]]

    return play(rng, n, notes())


def triad(rng: Rng) -> list[int]:
    """Three or four notes of a major or minor chord on one of seven roots."""
    root, third = rng.choice(SCALES[0]), rng.choice([3, 4])
    return [root, root + third, root + 7, root + 12][: rng.integers(3, 5)]


def chords(rng: Rng, n: int) -> np.ndarray:
    """Chords of two to four beats."""
    return play(rng, n, ((rng.choice([2, 3, 4]), triad(rng)) for _ in repeat(None)))


def arpeggio(rng: Rng, n: int) -> np.ndarray:
    """The notes of chords one by one, in even time."""
    return play(rng, n, ((0.5, [note]) for _ in repeat(None) for note in triad(rng)))


def drums(rng: Rng, n: int) -> np.ndarray:
    """A pattern of eight steps, over and over: a drum whose pitch falls, a snare, a cymbal."""
    step = int(rng.uniform(0.1, 0.25) * SAMPLE_RATE)
    falling, rattle = log_uniform(rng, 60, 200), coloured(rng, 3 * step, 0)
    time = clock(3 * step)
    sounds = (
        2 * glide(falling * (0.4 + np.exp(-time / 0.03))) * strike(len(time), 0.002, 0.12),
        rattle * strike(len(time), 0.001, 0.06),
        0.4 * np.diff(rattle, prepend=0) * strike(len(time), 0.001, 0.02),
    )
    played = rng.random((8, 3)) < (0.35, 0.25, 0.7)
    played[0, 0] = True
    sound = np.zeros(n + 3 * step)
    for number, start in enumerate(range(0, n, step)):
        for one in np.flatnonzero(played[number % 8]):
            sound[start : start + 3 * step] += sounds[one]
    return sound[:n]


def siren(rng: Rng, n: int) -> np.ndarray:
    """Two tones in turn, or one that wails."""
    low = log_uniform(rng, 300, 900)
    wave = np.sin(2 * np.pi * rng.uniform(0.2, 2) * clock(n))
    wave = np.sign(wave) if rng.random() < 0.5 else wave
    phase = 2 * np.pi * np.cumsum(low * 2 ** (rng.uniform(0.2, 0.6) * (1 + wave))) / SAMPLE_RATE
    return np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)


def chirps(rng: Rng, n: int) -> np.ndarray:
    """As a bird: short glides between 2 and 6 kHz."""
    sound = np.zeros(n)
    for part in bursts(rng, n, (0.04, 0.25), (0.02, 0.6)):
        size = part.stop - part.start
        path = np.linspace(*rng.uniform(2000, 6000, 2), size)
        trill = rng.choice([0, 300]) * np.sin(2 * np.pi * rng.uniform(15, 40) * clock(size))
        sound[part] = glide(path + trill) * np.hanning(size)
    return sound


def bells(rng: Rng, n: int) -> np.ndarray:
    """Partials that are no multiples of one pitch, high ones dying first."""
    sound, pitch = np.zeros(n), log_uniform(rng, 250, 1200)
    for part in bursts(rng, n, (0.3, 0.9), (0, 0)):
        prime = pitch * 2 ** (rng.choice(SCALES[2]) / 12)
        left = n - part.start
        for ratio in BELL_PARTIALS:
            ring = glide(np.full(left, prime * ratio)) * strike(left, 0.002, 0.9 / ratio)
            sound[part.start :] += rng.uniform(0.3, 1) * ring
    return sound


def plucked(rng: Rng, n: int) -> np.ndarray:
    """Strings by Karplus and Strong (1983): noise going round in a delay that averages it."""
    sound, lowest = np.zeros(n), log_uniform(rng, 80, 200)
    for part in bursts(rng, n, (0.15, 0.5), (0, 0)):
        pitch = lowest * 2 ** (rng.choice(SCALES[3]) / 12 + rng.integers(0, 3))
        left, string = n - part.start, rng.uniform(-1, 1, int(SAMPLE_RATE / pitch))
        rounds = [string]
        for _ in range(left // len(string)):
            rounds.append(0.5 * (rounds[-1] + np.roll(rounds[-1], 1)))
        sound[part.start :] += np.concatenate(rounds)[:left] * strike(left, 0.001, 1.5)
    return sound


MAKERS = (noise, pulses, hum, tone, beeps, sweep, clicks, engine, melody, chords, arpeggio, drums,
          siren, chirps, bells, plucked)  # fmt: skip
MAKERS = {maker.__name__: maker for maker in MAKERS}


# The real recordings -----------------------------------------------------------------------------


def split_recordings(noise_file: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Recordings (n,) to train on, and those to test on: no recording gives to both.

    The last TEST_SHARE of each series goes to the test, in the order of the numbers in its ids:
    what was recorded, or cut, one after the other stays together. `dtaps` and `doubletaps` are one
    series, as their numbers show; the series `noise` has random ids.
    """
    series: dict[str, list[tuple[int, str, bytes]]] = {}
    for row in pa.parquet.read_table(noise_file, columns=["id", "audio"]).to_pylist():
        name, number = re.match(r"(dtaps|doubletaps|\D+?)(\d*)(?:-|$)", row["id"]).groups()
        name = "taps" if name.endswith("taps") else name
        series.setdefault(name, []).append((int(number or 0), row["id"], row["audio"]["bytes"]))
    train, test = [], []
    for recordings in series.values():
        sounds = [soundfile.read(io.BytesIO(sound))[0] for _, _, sound in sorted(recordings)]
        kept = len(sounds) - round(TEST_SHARE * len(sounds))
        train += sounds[:kept]
        test += sounds[kept:]
    return train, test


def cut(rng: Rng, sound: np.ndarray, n: int) -> np.ndarray:
    """n samples from anywhere in a recording, or all of it if it is shorter."""
    start = rng.integers(max(1, len(sound) - n + 1))
    return sound[start : start + n]


def joined(rng: Rng, recordings: list[np.ndarray], n: int) -> np.ndarray:
    """Pieces of drawn recordings, one after the other, till there are n samples."""
    pieces, have = [], 0
    while have < n:
        pieces.append(cut(rng, recordings[rng.integers(len(recordings))], n - have))
        have += len(pieces[-1])
    return np.concatenate(pieces)


# Clips -------------------------------------------------------------------------------------------


def at_level(rng: Rng, sound: np.ndarray, grain: int = 0) -> np.ndarray:
    """Made as loud as drawn from LEVELS_DB, below clipping; int16 (n,), in steps of its RMS."""
    wanted = 32768 * 10 ** (rng.uniform(*LEVELS_DB) / 20)
    loudness = np.sqrt(np.mean(sound**2)) + 1e-9
    scale = min(wanted / loudness, 32000 / (np.abs(sound).max() + 1e-9))
    step = 2 ** max(0, int(np.log2(scale * loudness / grain))) if grain else 1
    return (np.round(sound * scale / step) * step).astype(np.int16)


def make_clip(kind: str, number: int, part: str, recordings: list[np.ndarray]) -> dict:
    """One row of the table; what it holds depends on SEED, part, kind and number alone."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"{part}/{kind}/{number}".encode())])
    seconds = SHORTEST + (LONGEST - SHORTEST) * rng.random() ** SHORT_ONES[part]
    n = int(seconds * SAMPLE_RATE)
    if kind == "real" and number < len(recordings):  # each once as it is, or repeated up to 1 s
        sound = cut(rng, recordings[number], int(LONGEST * SAMPLE_RATE))
        sound = np.pad(sound, (0, max(0, SAMPLE_RATE - len(sound))), mode="wrap")
        samples = np.round(32767 * sound.clip(-1, 1)).astype(np.int16)
    elif kind == "real":
        samples = at_level(rng, joined(rng, recordings, n))
    elif kind == "silence":
        samples = np.zeros(n, dtype=np.int16)
    elif kind == "near-silence":  # the last bits of a converter
        samples = np.round(rng.uniform(0.3, 4) * rng.standard_normal(n)).astype(np.int16)
    else:
        samples = at_level(rng, MAKERS[kind](rng, n), GRAIN)
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", compression_level=1.0)
    name = f"{part}-{kind}-{number:03}"
    audio = {"bytes": file.getvalue(), "path": f"{name}.flac"}
    length = len(samples) / SAMPLE_RATE
    return {"id": name, "kind": kind, "text": "", "seconds": length, "audio": audio}


def write_clips(
    path: Path, part: str, counts: dict[str, int], recordings: list[np.ndarray]
) -> None:
    """A parquet file of `counts` clips of each kind of a part, train or test."""
    rows = [
        make_clip(kind, number, part, recordings)
        for kind, count in counts.items()
        for number in range(count)
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows), path, compression="none")
    hours, size = sum(row["seconds"] for row in rows) / 3600, path.stat().st_size / 1e6
    print(f"{path}: {len(rows)} clips, {hours:.2f} h, {size:.1f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make clips in which nobody speaks.")
    parser.add_argument(
        "--noise",
        type=Path,
        default=SHARED / "speech" / "noise.parquet",
        help="real recordings of noise, a parquet file with id and audio",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=WORK / "no-speech",
        help="where the three files go",
    )
    arguments = parser.parse_args()
    if not arguments.noise.is_file():
        parser.error(f"no file {arguments.noise}; name it with --noise, or set TINY_ASR_SHARED")
    arguments.out.mkdir(parents=True, exist_ok=True)
    train, test = split_recordings(arguments.noise)
    write_clips(arguments.out / "train.parquet", "train", TRAIN_COUNTS, train)
    write_clips(arguments.out / "test.parquet", "test", TEST_COUNTS, test)
    write_clips(arguments.out / "noise.parquet", "test", {"real": len(test)}, test)


if __name__ == "__main__":
    main()
