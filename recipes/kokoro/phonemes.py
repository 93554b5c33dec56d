"""Text to the phonemes that Kokoro reads, by espeak-ng, as the package kokoro-onnx does it.

Needs `pip install '.[recipes]'`, which brings espeak-ng as a library.
"""

import logging
import re

# A letter by itself is its name; espeak-ng takes "A" for the article ("A M", "B, A, T").
LETTER_A = re.compile(
    r"\bA(?= [A-Z]\b|,? [A-Z](?:[ ,.]|$)| [PM]\b)|(?<=\b[A-Z] )A\b|(?<=\b[A-Z], )A\b"
)


class Phonemes:
    """Turns sentences into token ids. Raises ValueError where the packages are missing."""

    def __init__(self):
        try:
            from kokoro_onnx.tokenizer import Tokenizer
            from phonemizer.backend import EspeakBackend
        except ImportError as error:
            raise ValueError(f"{error}; pip install '.[recipes]' in the clone") from error
        self.tokenizer = Tokenizer()  # and tells phonemizer where espeak-ng lies
        quiet = logging.getLogger("recipes.kokoro")  # else a line for each word in another language
        quiet.setLevel(logging.CRITICAL)
        self.backends = {
            language: EspeakBackend(
                language, preserve_punctuation=True, with_stress=True, logger=quiet
            )
            for language in ("en-us", "en-gb")
        }

    def tokens(self, texts: list[str], language: str) -> list[list[int]]:
        """The ids of each text's phonemes, without the 0 that stands at either end."""
        spelt = [LETTER_A.sub("eigh", text.strip()) for text in texts]
        said = self.backends[language].phonemize(spelt, strip=False)
        known = self.tokenizer.vocab
        kept = ("".join(sign for sign in phonemes if sign in known).strip() for phonemes in said)
        return [self.tokenizer.tokenize(phonemes, limit=None) for phonemes in kept]
