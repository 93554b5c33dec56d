"""The thread of the course: one sentence in two clips, heard well in one and wrongly in the other.

Who made the mistake? Lessons 02 to 04 look at the same place in both clips: the words that are
written otherwise than they were said. Where those words lie in the sound is told by the decoder,
which looks there when it predicts them (lesson 04).
"""

from typing import NamedTuple

import jiwer
import torch
from torch import Tensor

from tiny_asr.course import lesson_04_writing as writing
from tiny_asr.shapes import SAMPLE_RATE

SENTENCE = "she listens to the sea and its waves turn into words"


class Place(NamedTuple):
    """A word, and the audio embeddings from `begin` to before `end` in which it was said."""

    word: str
    begin: int
    end: int


def write(model, audio_embeddings: Tensor) -> str:
    """What the decoder writes (greedily) for the audio embeddings (1, A, llm_dim) of one clip."""
    lengths = torch.tensor([audio_embeddings.shape[1]], device=model.device)
    tokens = model.decoder.write(audio_embeddings.to(model.device), lengths)
    return model.processor.decode([int(token) for token in tokens])


def missed(said: str, written: str) -> range:
    """The words of what was said, by number, from the first that was written otherwise to the last.

    Where both are the same it is the last word alone, so that there is a place to look at. An
    invented word counts for the one that it stands before.
    """
    wrong = _differences(said, written)
    if not wrong:
        return range(len(said.split()) - 1, len(said.split()))
    last = min(wrong[-1].ref_end_idx, len(said.split()))
    first = min(wrong[0].ref_start_idx, len(said.split()) - 1)
    return range(first, max(last, first + 1))


def instead(said: str, written: str) -> list[str]:
    """The words that are written from the first difference to the last; the last word if none."""
    wrong, words = _differences(said, written), written.split()
    return words[wrong[0].hyp_start_idx : wrong[-1].hyp_end_idx] if wrong else words[-1:]


def _differences(said: str, written: str) -> list:
    """The pieces of an alignment by words that are not equal."""
    chunks = jiwer.process_words(said, written).alignments[0]
    return [chunk for chunk in chunks if chunk.type != "equal"]


@torch.no_grad()
def places(model, audio_embeddings: Tensor, text: str) -> list[Place]:
    """Where the words of a text lie among the audio embeddings (1, A, llm_dim) of one clip.

    A word begins where the decoder looks most when it predicts the word's first token, in the
    layers that move along the audio, and ends where the next one begins.
    """
    tokens = model.processor.labels([text])[0]
    weights = writing.gaze(model, audio_embeddings, tokens)
    looked = weights[writing.following(weights)].mean(dim=0).argmax(dim=1)
    decode = model.processor.tokenizer.decode
    pieces = [decode(token) for token in tokens[:-1]]
    firsts = [n for n, piece in enumerate(pieces) if n == 0 or piece.startswith(" ")]
    begins = looked[firsts].cummax(dim=0).values.tolist()
    ends = [*begins[1:], audio_embeddings.shape[1]]
    words = zip(text.split(), begins, ends, strict=True)
    return [Place(word, begin, max(end, begin + 1)) for word, begin, end in words]


def span(found: list[Place], words: range) -> slice:
    """The audio embeddings of some words, by their numbers."""
    return slice(found[words[0]].begin, found[words[-1]].end)


def spoken(model, waveform: Tensor, text: str) -> list[tuple[str, float, float]]:
    """The words of a clip (S,) at 16 kHz that says a text: (word, begin, end) in s, about."""
    step = model.config.samples_per_embedding / SAMPLE_RATE
    found = places(model, writing.heard(model, [waveform])[0], text)
    return [(word, begin * step, end * step) for word, begin, end in found]
