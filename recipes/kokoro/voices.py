"""The voices: which are heard in training, which never, and how one is drawn.

A voice of Kokoro is a table of styles, one for each length of a text: (510, 256), the first half
for the sound, the second for the prosody. A mean of two tables is a new voice; so is a step from
one away from another, and one's sound with another's prosody.
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
PLAIN_SHARE = 0.3  # of the utterances are in one voice, the others made of two
SAME_ACCENT_SHARE = 0.7  # of the pairs
# How far from the first voice to the second, in percent; below 0, away from it.
MIXES = (((50, 50), 0.35), ((30, 50), 0.3), ((-30, -10), 0.35))
BORROWED_SHARE = 0.25  # of the utterances have the prosody of a third voice of the same accent
SPEEDS = (0.8, 1.02, 1.3)  # triangular: least, most frequent, most


@dataclass(frozen=True)
class Voice:
    """A voice made of two: `percent` of the way from the first to the second; 0 for the first
    itself, below 0 for a step away from the second.

    The first decides the accent. `prosody` names the voice that lends its own, if any does.
    """

    first: str
    second: str
    percent: int
    prosody: str = ""

    @property
    def name(self) -> str:
        mixed = f"{self.first}{'+-'[self.percent < 0]}{self.second}*{abs(self.percent)}"
        return (mixed if self.percent else self.first) + (self.prosody and f"~{self.prosody}")

    @property
    def language(self) -> str:
        """Whose phonemes it speaks, by espeak-ng's name."""
        return "en-gb" if self.first.startswith("b") else "en-us"

    def styles(self, tables: dict[str, np.ndarray]) -> np.ndarray:
        """Its table, (510, 256) float32."""
        share = np.float32(self.percent / 100)
        mixed = tables[self.first] * (1 - share) + tables[self.second] * share
        if self.prosody:
            half = mixed.shape[1] // 2
            mixed = np.concatenate([mixed[:, :half], tables[self.prosody][:, half:]], axis=1)
        return mixed


def plain(name: str) -> Voice:
    """A voice as it is."""
    return Voice(name, name, 0)


def heard_voice(rng: Generator) -> Voice:
    """A voice for an utterance to train on."""
    weights = np.array([BRITISH_WEIGHT if name[0] == "b" else 1.0 for name in HEARD])
    first = HEARD[int(rng.choice(len(HEARD), p=weights / weights.sum()))]
    kin = [name for name in HEARD if name != first and name[0] == first[0]]
    prosody = kin[int(rng.integers(len(kin)))] if rng.random() < BORROWED_SHARE else ""
    if rng.random() < PLAIN_SHARE:
        return Voice(first, first, 0, prosody)
    same = rng.random() < SAME_ACCENT_SHARE
    others = kin if same else [name for name in HEARD if name != first]
    second = others[int(rng.integers(len(others)))]
    low, high = MIXES[rng.choice(len(MIXES), p=[share for _, share in MIXES])][0]
    return Voice(first, second, int(rng.integers(low, high + 1)), prosody)


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
