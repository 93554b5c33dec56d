"""Makes data/sample.flac, the one clip that the trace and the notebooks follow all the way, and
data/puzzle.flac, the same sentence by a robot, which the course's recogniser does not get right.

Both are spoken by synthesisers, so that nobody's voice has to travel with the course, and last just
under 3 s: padded to 48 000 samples a clip becomes 300 mel frames, 150 encoder frames and 30 audio
embeddings, numbers that a reader can check in the head.

    python -m recipes.sample

needs `flite` (Debian and Ubuntu: apt install flite), `pip install '.[recipes]'` and Kokoro's
folder (see README.md). The same versions on the same machine write the same bytes again.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch

from recipes.kokoro.batches import Utterance, synthesise
from recipes.kokoro.phonemes import Phonemes
from recipes.kokoro.voices import load_tables, plain
from recipes.kokoro.weights import MODEL, VOICES, convert, load
from recipes.text import CHECKOUT
from tiny_asr.shapes import SAMPLE_RATE

# Fricatives that reach the top of the spectrogram (sh, s, z), a pause that is easy to see, and a
# pun that the course is about.
SENTENCE = "She listens to the sea, and its waves turn into words."
NATURAL, ROBOT = "af_heart", "slt"  # Kokoro's voice, flite's
QUIET = 0.01  # of the peak: what is below it at either end is silence
MARGINS = {"sample": 0.02, "puzzle": 0.05}  # seconds of that silence to keep
SECONDS = (2.9, 3.0)  # longer than the first, at most the second


def natural(kokoro: Path) -> np.ndarray:
    """The sentence in one of Kokoro's voices: (S,) int16 at 16 kHz."""
    convert(kokoro)
    voice = plain(NATURAL)
    tokens = Phonemes().tokens([SENTENCE], voice.language)[0]
    said = Utterance(tokens, voice.styles(load_tables(kokoro / VOICES)), speed=1.0)
    sound = synthesise(load(kokoro), [said], torch.Generator().manual_seed(0))[0].numpy()
    return np.round(sound * (0.5 / np.abs(sound).max()) * 32767).astype(np.int16)


def robot() -> np.ndarray:
    """The sentence as flite says it: (S,) int16 at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        command = ["flite", "-voice", ROBOT, "--setf", "duration_stretch=1.0"]
        try:
            subprocess.run([*command, "-t", SENTENCE, "-o", str(wav)], check=True)
        except FileNotFoundError:
            sys.exit("flite is not installed; on Debian and Ubuntu: apt install flite")
        samples, rate = soundfile.read(wav, dtype="int16")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        sys.exit(f"flite gave {samples.shape} at {rate} Hz; expected mono at {SAMPLE_RATE} Hz")
    return samples


def trim(samples: np.ndarray, margin: float) -> np.ndarray:
    """Shorten the silence at both ends to so many seconds."""
    loud = np.flatnonzero(np.abs(samples.astype(int)) > QUIET * np.abs(samples.astype(int)).max())
    kept = int(margin * SAMPLE_RATE)
    return samples[max(0, loud[0] - kept) : loud[-1] + 1 + kept]


def write(name: str, samples: np.ndarray, speaker: str, folder: Path) -> None:
    """One of the two files. Ends the program if it does not last as it should."""
    samples = trim(samples, MARGINS[name])
    seconds, (shortest, longest) = len(samples) / SAMPLE_RATE, SECONDS
    if not shortest < seconds <= longest:
        sys.exit(f"{name}: {seconds:.3f} s; expected {shortest} to {longest} s: tune the speed")
    out = folder / f"{name}.flac"
    with soundfile.SoundFile(out, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file:
        file.title = SENTENCE
        file.comment = f"spoken by {speaker}"
        file.write(samples)
    print(f"{out.name}: {len(samples)} samples, {seconds:.3f} s: {SENTENCE}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the bundled clips.")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "data", help="the folder (data)")
    parser.add_argument("--kokoro", type=Path, default=MODEL, help="the voice model's folder")
    a = parser.parse_args()
    write("puzzle", robot(), f"flite, voice {ROBOT}", a.out)
    write("sample", natural(a.kokoro), f"Kokoro-82M, voice {NATURAL}", a.out)


if __name__ == "__main__":
    main()
