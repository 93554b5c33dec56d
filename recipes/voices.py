"""The voices that read for the course: which are heard in training, which never, how one speaks.

A voice is a synthesiser's command with random settings. Needs `flite` and `espeak-ng` (Debian and
Ubuntu: apt install flite espeak-ng); FLITE and ESPEAK may name them.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

from tiny_asr.audio import load_audio

FLITE = os.environ.get("FLITE", "flite")
ESPEAK = os.environ.get("ESPEAK", "espeak-ng")

# Voices heard in training. flite: how often, and the range of mean pitch in Hz around its own.
HEARD_FLITE = {
    "awb": (0.38, 85, 185),
    "slt": (0.38, 110, 240),
    "kal16": (0.2, 75, 165),
    "kal": (0.04, 75, 165),  # 8 kHz
}
# espeak-ng's plain voice of British English answers to en-gb, but with a variant only to en.
HEARD_ESPEAK = {
    "en-gb": "en",
    "en-us": "en-us",
    "en-gb-x-rp": "en-gb-x-rp",
    "en-gb-x-gbclan": "en-gb-x-gbclan",
    "en-gb-x-gbcwmd": "en-gb-x-gbcwmd",
    "en-029": "en-029",
    "en-us-nyc": "en-us-nyc",
}
UNHEARD_FLITE = "rms"
UNHEARD_ESPEAK = "en-gb-scotland"
# espeak-ng's variants without whispers, robots, echoes, doubles of others, or a language of their
# own.
VARIANTS = """
Alex Alicia Andrea Andy Annie AnxiousAndy Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario
Michael Mike Nguyen RicishayMax RicishayMax2 RicishayMax3 Tweaky adam anika antonio aunty belinda
benjamin boris david ed edward edward2 f1 f2 f3 f4 f5 grandma grandpa gustave iven2 iven3 iven4 john
kaukovalta klatt klatt2 klatt3 klatt4 klatt5 linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo max michel miguel
norbert pablo paul pedro quincy rob robert sandro shelby steph travis victor zac
""".split()  # noqa: SIM905
FLITE_SHARE = 0.55
PLAIN_SHARE = 0.1  # of espeak-ng's clips: no variant


@dataclass(frozen=True)
class Voice:
    """A voice with its settings: `command` and then a text speaks."""

    name: str
    command: tuple[str, ...]

    @property
    def engine(self) -> str:
        return self.name.partition("/")[0]


def flite(name: str, rng: np.random.Generator, pitch: tuple[float, float] | None = None) -> Voice:
    """A voice of flite at a random pace; with `pitch`, a mean from there to there in Hz as well."""
    settings = {"duration_stretch": rng.uniform(0.8, 1.3)}
    if pitch and rng.random() < 0.75:
        settings["int_f0_target_mean"] = rng.uniform(*pitch)
    if pitch and rng.random() < 0.75:
        settings["int_f0_target_stddev"] = rng.uniform(8, 35)
    given = [word for key, value in settings.items() for word in ("--setf", f"{key}={value:.3f}")]
    return Voice(f"flite/{name}", (FLITE, "-voice", name, *given, "-o", "/dev/stdout", "-t"))


def espeak(name: str, base: str, rng: np.random.Generator) -> Voice:
    """A voice of espeak-ng with a random variant, pitch and pace."""
    variant = "" if rng.random() < PLAIN_SHARE else f"+{rng.choice(VARIANTS)}"
    words_a_minute = int(np.clip(rng.normal(165, 22), 120, 210))
    settings = ["-s", words_a_minute, "-p", rng.integers(20, 81), "-a", 80]
    if rng.random() < 0.2:
        settings += ["-g", rng.integers(1, 9)]  # a gap between words, in 10 ms
    command = (ESPEAK, "-v", base + variant, *map(str, settings), "-z", "--stdout")
    return Voice(f"espeak-ng/{name}{variant}", command)


def heard_voice(rng: np.random.Generator) -> Voice:
    """A voice of those that training hears."""
    if rng.random() < FLITE_SHARE:
        names = list(HEARD_FLITE)
        name = names[rng.choice(len(names), p=[share for share, _, _ in HEARD_FLITE.values()])]
        return flite(name, rng, HEARD_FLITE[name][1:])
    name = str(rng.choice(list(HEARD_ESPEAK)))
    return espeak(name, HEARD_ESPEAK[name], rng)


def family_voice(family: str, rng: np.random.Generator) -> Voice:
    """A random voice of one family of the test."""
    if family == "flite rms":
        return flite(UNHEARD_FLITE, rng)
    if family == "espeak-ng scotland":
        return espeak(UNHEARD_ESPEAK, UNHEARD_ESPEAK, rng)
    return heard_voice(rng)


def check_synthesisers() -> None:
    """Exit if a synthesiser, a voice or a variant is missing: espeak-ng would not say so."""
    asked = [FLITE, "-lv"], [ESPEAK, "--voices=en"], [ESPEAK, "--voices=variant"]
    try:
        said = [subprocess.run(command, capture_output=True, check=True) for command in asked]
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{error}; on Debian and Ubuntu: apt install flite espeak-ng")
    voices, bases, variants = (done.stdout.decode() for done in said)
    missing = {*HEARD_FLITE, UNHEARD_FLITE} - set(voices.split())
    missing |= {*HEARD_ESPEAK, UNHEARD_ESPEAK} - set(bases.split())
    missing |= set(VARIANTS) - set(re.findall(r"!v/(\S+)", variants))
    if missing:
        sys.exit(
            f"the synthesisers lack {', '.join(sorted(missing))}; expected flite 2.2 and "
            "espeak-ng 1.51 with all their voices"
        )


def speak(voice: Voice, text: str) -> np.ndarray:
    """Speak a text: (S,) float32 at 16 kHz, as the synthesiser gives it.

    Raises ValueError if that fails or gives no sound.
    """
    try:
        done = subprocess.run([*voice.command, text], capture_output=True, timeout=60, check=True)
    except subprocess.SubprocessError as error:
        raise ValueError("synthesiser failed") from error
    header, sound = done.stdout[:44], done.stdout[44:]  # espeak-ng's header lies about the length
    samples = np.frombuffer(sound[: len(sound) // 2 * 2], "<i2")
    if not samples.any():
        raise ValueError("no sound")
    return load_audio(samples, int.from_bytes(header[24:28], "little")).numpy()
