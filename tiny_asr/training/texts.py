"""Whether a decoder's tokenizer can write what it is to learn."""

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from tiny_asr.shapes import IGNORE

if TYPE_CHECKING:
    from tiny_asr.processor import ASRProcessor

LOOKED_AT = 2000  # texts: a second of work


def lost_by_tokenizer(processor: "ASRProcessor", texts: Iterable[str]) -> str:
    """A line about the texts that come back changed from the tokenizer; empty if there are none.

    Some tokenizers know lower case only, and some have no token for another script: a model can't
    learn to write what its labels don't hold.
    """
    texts = [text for text in islice(texts, LOOKED_AT) if text]
    back = [
        processor.decode(row[row != IGNORE])
        for row in map(processor.labels, zip(texts, strict=True))
    ]
    changed = [(text, other) for text, other in zip(texts, back, strict=True) if text != other]
    if not changed:
        return ""
    text, other = changed[0]
    return (
        f"{len(changed)} of the first {len(texts)} texts are changed by the decoder's tokenizer, "
        f"such as {text!r:.60} to {other!r:.60}; expected them unchanged: choose another --decoder "
        "if that matters"
    )
