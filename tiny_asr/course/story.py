"""The thread through the lessons: one sentence, two voices, and a word that was written wrongly.

`sample_clip` is a natural voice that `tiny` writes without an error, `puzzle_clip` a robot's, in
which two are wrong; lessons follow the first. When words are said was read off the waveforms.
"""

import math
from typing import NamedTuple

import torch
from IPython.display import Markdown
from torch import Tensor

from tiny_asr.evaluation.score import align
from tiny_asr.shapes import SAMPLE_RATE

SENTENCE = "She listens to the sea, and its waves turn into words."
_ENDS = {  # where each word begins and ends, in s
    "sample": (
        *((0.03, 0.18), (0.18, 0.56), (0.58, 0.68), (0.68, 0.75), (0.75, 1.13), (1.42, 1.49)),
        *((1.49, 1.66), (1.66, 2.02), (2.04, 2.26), (2.26, 2.46), (2.46, 2.97)),
    ),
    "puzzle": (
        *((0.06, 0.28), (0.28, 0.75), (0.77, 0.85), (0.85, 0.93), (0.94, 1.18), (1.37, 1.47)),
        *((1.47, 1.69), (1.69, 1.92), (1.93, 2.13), (2.13, 2.37), (2.37, 2.93)),
    ),
}


def words_of(clip: str) -> list[tuple[str, float, float]]:
    """Word, begin and end in s, of the clip called "sample" or "puzzle"."""
    words = SENTENCE.lower().replace(",", "").rstrip(".").split()
    return [(word, *ends) for word, ends in zip(words, _ENDS[clip], strict=True)]


SAID = " ".join(word for word, _, _ in words_of("sample"))  # as the decoder writes it


def missed(written: str, said: str = SAID) -> range:
    """The words of what was said, by number, where the first mistake is, up to the next right word.
    Where both are the same it is the last word alone, so that there is a place to look at. An
    invented word counts for the one that it stands before."""
    before, mistake = _first_mistake(written, said)
    first, count = (sum(step[0] != "insert" for step in part) for part in (before, mistake))
    first = min(first, len(said.split()) - 1)
    return range(first, first + max(1, count))


def instead(written: str, said: str = SAID) -> str:
    """The words that are written in the place of the first mistake; the last word if none."""
    mistake = _first_mistake(written, said)[1]
    return " ".join(word for operation, _, word in mistake if operation != "delete")


def _first_mistake(written: str, said: str) -> tuple[list, list]:
    """The steps of an alignment before the first mistake, and its own; if none, the last."""
    steps = align(said, written)
    right = [operation == "equal" for operation, _, _ in steps]
    begin = right.index(False) if False in right else len(steps) - 1
    end = next((n for n in range(begin + 1, len(steps)) if right[n]), len(steps))
    return steps[:begin], steps[begin:end]


class Place(NamedTuple):
    """A word, and the audio embeddings from `begin` to before `end` in which it is said."""

    word: str
    begin: int
    end: int


def places(clip: str, model) -> list[Place]:
    """Where the words of the clip called "sample" or "puzzle" lie among its audio embeddings."""
    a_second = SAMPLE_RATE / model.config.samples_per_embedding
    times = [(word, begin * a_second, end * a_second) for word, begin, end in words_of(clip)]
    return [Place(word, int(begin), math.ceil(end)) for word, begin, end in times]


def span(clip: str, model, words: range) -> slice:
    """The audio embeddings of some words of a clip, by their numbers."""
    found = places(clip, model)
    return slice(found[words[0]].begin, found[words[-1]].end)


def marked(texts: dict[str, str | None], said: str = SENTENCE) -> Markdown:
    """What was said, and below it each text: in bold what is wrong, struck through what is missing.
    Case and punctuation don't count. `texts`: what each row is called -> its text; None for an
    exercise not attempted yet."""
    rows = [f"| said | {said} |", "|---|---|"]
    styles = {"equal": "{1}", "delete": "~~{0}~~"}
    for name, text in texts.items():
        if text is None:
            words = ["(not written yet: the function above)"]
        else:
            words = [styles.get(op, "**{1}**").format(*both) for op, *both in align(said, text)]
        rows.append(f"| {name} | {' '.join(words)} |")
    return Markdown("\n".join(rows))


def read_out(model, audio_embeddings: Tensor) -> str | None:
    """What a model's decoder writes when it reads these audio embeddings (1, A, llm_dim). None for
    `...`, an exercise that is not attempted yet."""
    if audio_embeddings is ...:
        return None
    rows = torch.as_tensor(audio_embeddings).to(model.device)
    steps = list(model.decoder.write(rows, torch.tensor([rows.shape[1]])))
    return model.processor.decode(torch.cat(steps)) if steps else ""
