"""What is levelled before words are counted, and what a word is where there are no spaces.

A WER says little without its normaliser: "Don't!" and "do not" differ in two words, or in none. So
each has a name, which stands beside every number. None ever touches a training target.

Mandarin, Japanese and Thai are written without spaces between words. There each character is a
word: the word error rate of such a text is its character error rate, and in a text of two scripts
it is what is called the mixed error rate.
"""

import re
import unicodedata
from functools import cache

from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

# As results and reports call them.
NAMES = {"english": "whisper-english", "basic": "whisper-basic", "none": "none"}
# What fits the text that a checkpoint writes, where nobody says otherwise; see `ASRConfig.text`.
FOR_TEXT = {"plain": "english", "written": "basic"}
# Thai, Lao, Myanmar, Khmer; kana; Han, with its punctuation; half-width kana.
UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3001-\u303f\u3040-\u30ff\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)


def normalise(text: str, normaliser: str = "english") -> str:
    """The words of a text that count, separated by spaces.

    For scoring only, on references and hypotheses alike; training targets never see it.

    Args:
        normaliser: `english`: Whisper's, which levels case, punctuation, spelling, contractions and
            numbers. `basic`: Whisper's for all other languages: case, punctuation and what stands
            in brackets; it takes the vowel signs of Thai and of India's scripts for punctuation.
            `none`: nothing but Unicode's NFC and the spaces.
    Source: `whisper/normalizers` of openai/whisper, from the package whisper-normalizer.
    """
    if normaliser == "none":
        levelled = unicodedata.normalize("NFC", text)
    else:
        levelled = _whispers(check_normaliser(normaliser))(text)
    return " ".join(UNSPACED.sub(r" \g<0> ", levelled).split())


def check_normaliser(normaliser: str) -> str:
    """The same; ValueError if there is none of this name."""
    if normaliser not in NAMES:
        raise ValueError(f"normaliser {normaliser!r} came; expected one of {', '.join(NAMES)}")
    return normaliser


def characters(words: str) -> str:
    """What the CER compares: normalised words, without the spaces that `normalise` put in."""
    letter = UNSPACED.pattern
    return re.sub(rf"(?<={letter}) | (?={letter})", "", words)


def is_unspaced(texts: list[str]) -> bool:
    """Whether most letters of these texts are of scripts without spaces between words."""
    letters = "".join("".join(text.split()) for text in texts)
    return 2 * len(UNSPACED.findall(letters)) > len(letters)


@cache
def _whispers(normaliser: str):
    return EnglishTextNormalizer() if normaliser == "english" else BasicTextNormalizer()
