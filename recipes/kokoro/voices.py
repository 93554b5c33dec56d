"""The voices: which are heard in training, which never, and how one is drawn.

A voice of Kokoro is a table of styles, one for each length of a text: (510, 256), the first half
for the sound, the second for the prosody. A mean of two tables is a new voice.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

# American and British, female and male, in the order of the alphabet: draws follow it.
VOICES = """
af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah af_sky
am_adam am_echo am_eric am_fenrir am_liam am_michael am_onyx am_puck am_santa
bf_alice bf_emma bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis
""".split()  # noqa: SIM905
# For tests alone: never synthesised for training, and in no mean.
HELD_OUT = ("bf_emma", "bm_george", "af_nova", "am_echo", "bf_isabella", "bm_lewis")
HEARD = [name for name in VOICES if name not in HELD_OUT]
BRITISH_WEIGHT = 2.2  # so much oftener than others: few are left
PLAIN_SHARE = 0.45  # of the utterances are in one voice, the others in a mean of two
SAME_ACCENT_SHARE = 0.7  # of the means
HALF_SHARE = 0.6  # of the means are half and half; in the others `second` has 30 to 50 %
SPEEDS = (0.8, 1.02, 1.3)  # triangular: least, most frequent, most


@dataclass(frozen=True)
class Voice:
    """The mean of two voices: `percent` of the second; 0 for a voice as it is.

    The first has the greater part and decides the accent.
    """

    first: str
    second: str
    percent: int

    @property
    def name(self) -> str:
        return f"{self.first}+{self.second}*{self.percent}" if self.percent else self.first

    @property
    def language(self) -> str:
        """Whose phonemes it speaks, by espeak-ng's name."""
        return "en-gb" if self.first.startswith("b") else "en-us"

    def styles(self, tables: dict[str, np.ndarray]) -> np.ndarray:
        """Its table, (510, 256) float32."""
        share = np.float32(self.percent / 100)
        return tables[self.first] * (1 - share) + tables[self.second] * share


def plain(name: str) -> Voice:
    """A voice as it is."""
    return Voice(name, name, 0)


def heard_voice(rng: Generator) -> Voice:
    """A voice for an utterance to train on."""
    weights = np.array([BRITISH_WEIGHT if name[0] == "b" else 1.0 for name in HEARD])
    first = HEARD[int(rng.choice(len(HEARD), p=weights / weights.sum()))]
    if rng.random() < PLAIN_SHARE:
        return plain(first)
    same = rng.random() < SAME_ACCENT_SHARE
    others = [name for name in HEARD if name != first and (name[0] == first[0] or not same)]
    second = others[int(rng.integers(len(others)))]
    percent = 50 if rng.random() < HALF_SHARE else int(rng.integers(30, 51))
    return Voice(first, second, percent)


def speed(rng: Generator) -> float:
    """How fast an utterance is: 1 is as the voice itself would speak."""
    return round(float(rng.triangular(*SPEEDS)), 2)


def load_tables(path: Path) -> dict[str, np.ndarray]:
    """The styles of all voices from voices.bin, (510, 256) float32 each.

    Raises ValueError if a voice is missing.
    """
    with np.load(path) as file:
        if missing := sorted(set(VOICES) - set(file.files)):
            raise ValueError(f"{path} lacks the voices {', '.join(missing)}")
        return {name: file[name].astype(np.float32)[:, 0] for name in VOICES}
