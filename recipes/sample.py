"""Makes data/sample.flac, the one clip that the trace and the notebooks follow all the way.

It is spoken by a synthesiser, so that nobody's voice has to travel with the course, and it lasts
just under 3 s: padded to 48 000 samples it becomes 300 mel frames, 150 encoder frames and 30 audio
embeddings, numbers that a reader can check in the head.

    python -m recipes.sample

needs `flite` (Debian and Ubuntu: apt install flite). Nothing is random: the same version of flite
and of libsndfile writes the same bytes again.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

# Fricatives that reach the top of the spectrogram (sh, s, z), a pause that is easy to see, and a
# pun that the course is about.
SENTENCE = "She listens to the sea, and its waves turn into words."
VOICE = "slt"
DURATION_STRETCH = 1.0  # flite's own pace; tuned with the sentence to land just under 3 s
SAMPLE_RATE = 16_000
QUIET = 0.01  # of the peak: what is below it at either end is silence
MARGIN = 0.05  # seconds of that silence to keep
SECONDS = (2.9, 3.0)  # longer than the first, at most the second


def speak(sentence: str) -> np.ndarray:
    """One sentence as flite says it: (S,) int16 at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        stretch = f"duration_stretch={DURATION_STRETCH}"
        command = ["flite", "-voice", VOICE, "--setf", stretch, "-t", sentence, "-o", str(wav)]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            sys.exit("flite is not installed; on Debian and Ubuntu: apt install flite")
        samples, rate = soundfile.read(wav, dtype="int16")
    if rate != SAMPLE_RATE or samples.ndim != 1:
        sys.exit(f"flite gave {samples.shape} at {rate} Hz; expected mono at {SAMPLE_RATE} Hz")
    return samples


def trim(samples: np.ndarray) -> np.ndarray:
    """Shorten the silence at both ends to MARGIN."""
    loud = np.flatnonzero(np.abs(samples.astype(int)) > QUIET * np.abs(samples.astype(int)).max())
    margin = int(MARGIN * SAMPLE_RATE)
    return samples[max(0, loud[0] - margin) : loud[-1] + 1 + margin]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the bundled clip.")
    default = Path(__file__).resolve().parents[1] / "data" / "sample.flac"
    parser.add_argument("--out", type=Path, default=default, help="the FLAC file to write")
    out = parser.parse_args().out
    samples = trim(speak(SENTENCE))
    seconds = len(samples) / SAMPLE_RATE
    shortest, longest = SECONDS
    if not shortest < seconds <= longest:
        sys.exit(f"{seconds:.3f} s; expected {shortest} to {longest} s: tune DURATION_STRETCH")
    with soundfile.SoundFile(out, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file:
        file.title = SENTENCE
        file.comment = f"spoken by flite, voice {VOICE}"
        file.write(samples)
    print(f"{out.name}: {len(samples)} samples, {seconds:.3f} s: {SENTENCE}")


if __name__ == "__main__":
    main()
