"""When was each word said? What the audio embeddings point to, put into the order of the text.

A projector that has learnt its job makes each audio embedding similar to the embedding of the token
that is said there: the decoder reads one as if it were the other. So a table of cosines, of places
in the sound and tokens of the text, shows a diagonal. The best way along it, with the tokens in
their order and places between them that belong to none, is found by dynamic programming, as in
CTC's forced alignment (Graves et al. 2006).

Audio embeddings are 0.1 s apart. But the projector can be asked about the frames in between, too:
its stacks of frames are shifted by one frame, again and again, which gives 50 embeddings a second
for one more pass through the encoder. What a word ends with often points to nothing: a word lasts
on while the sound is louder than its pauses, for 0.4 s or up to the next word at the most.

`python -m recipes.word_times` measures how far off it is, and the decoder's attention beside it.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from tiny_asr.audio import leave_out_quiet, pad_batch
from tiny_asr.shapes import SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME

POINTS = 0.5  # of the cosine that the text's tokens have at best (median): less is no pointing
LOUD = 0.2  # of the way in dB from the piece's quietest frames to the word's loudest one
LONGEST_END = 20  # frames that point to nothing may still be a word's: 0.4 s
SECONDS = SAMPLES_PER_ENCODER_FRAME / SAMPLE_RATE  # of an encoder frame


class Word(NamedTuple):
    """A word with the space before it, if any, and when it is said, in seconds.

    What stands between two spaces is a word, with its punctuation; in scripts without spaces that
    is a whole run. `"".join(word.text for word in words)` is the text.
    """

    text: str
    begin: float
    end: float


class TimedText(NamedTuple):
    """A text and its words."""

    text: str
    words: list[Word]


def in_order(scores: np.ndarray) -> list[tuple[int, int]]:
    """Give each place in the sound to one token (or word) or to none, in order, for the highest sum
    of scores.

    The same idea as the edit table: the best way to a cell is the best way to one before it.
    Scores (L, N), 0 for none -> each token's first place, and its last place + 1. Raises ValueError
    where there are more tokens than places, or none.
    """
    tokens, size = scores.shape
    if not 0 < tokens <= size:
        raise ValueError(f"{tokens} words for {size} positions came; expected 1 to {size} words")
    gains = np.zeros((size, 2 * tokens + 1))  # columns: before, token, between, token, ..., after
    gains[:, 1::2] = scores.T
    best = np.full(2 * tokens + 1, -np.inf)
    best[:2] = gains[0, :2]
    steps = np.zeros(gains.shape, dtype=np.int8)
    for place in range(1, size):
        one = np.concatenate([[-np.inf], best[:-1]])
        two = np.concatenate([[-np.inf, -np.inf], best[:-2]])
        two[::2] = -np.inf  # two columns at once only from token to token
        ways = np.stack([best, one, two])
        steps[place] = ways.argmax(axis=0)
        best = ways.max(axis=0) + gains[place]
    column = 2 * tokens - (best[-2] >= best[-1])
    path = np.empty(size, dtype=int)
    for place in range(size - 1, -1, -1):
        path[place] = column
        column -= steps[place, column]
    firsts = np.searchsorted(path, 2 * np.arange(tokens) + 1)
    lasts = np.searchsorted(path, 2 * np.arange(tokens) + 1, side="right")
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


@torch.no_grad()
def pointing(model, piece: Tensor, tokens: Tensor) -> np.ndarray:
    """The cosine of each token (L,) with what is heard around each encoder frame of a piece (S,).

    Args:
        model: an `ASRModel`.
    Returns:
        (L, T) float32, T the frames of the piece without any padding.
    """
    output, frames = model.encode_batch(*pad_batch([piece], model.config.samples_per_embedding))
    rate, size = model.config.audio_downsample_rate, output.shape[1]
    before = rate // 2  # frames of a stack in front of its middle
    around = pad(output, (0, 0, before, rate - 1 - before))
    rows = [model.audio_projector(around[:, n : n + size], frames)[0] for n in range(rate)]
    heard = torch.stack(rows, dim=1).flatten(0, 1)  # embedding n + k rate is around that frame
    said = model.decoder.token_embeddings[tokens.to(heard.device)]
    cosines = normalize(said.float(), dim=1) @ normalize(heard.float(), dim=1).T
    return cosines[:, : -(-len(piece) // SAMPLES_PER_ENCODER_FRAME)].cpu().numpy()


def tokens_of_words(tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[slice]:
    """Which tokens each word of their text (the regular expression `\\s*\\S+`) is written with.

    A token belongs to the word that its last character is in; one without a character of its own
    (the first half of one, a special token) to what comes next. A word all of whose characters
    came with a later word's has the slice of that token.
    """
    text = decode(tokens)
    reached, counts = 0, []
    for count in range(1, len(tokens) + 1):  # how far the text has come with each token
        reached = max(reached, len(decode(tokens[:count]).rstrip("\ufffd")))
        counts.append(min(reached, len(text)))
    counts[-1:] = [len(text)] if counts else []
    slices, first = [], 0
    for word in re.finditer(r"\s*\S+", text):
        last = int(np.searchsorted(counts, word.end()))
        slices.append(slice(min(first, last), last + 1))
        first = last + 1
    return slices


def words_of_piece(model, piece: Tensor, row: Tensor) -> list[Word]:
    """The words that a model wrote of a piece (S,) at 16 kHz, timed in seconds of the piece.

    Args:
        model: an `ASRModel`.
        row: the token ids (L,) that `model.generate` gave for it.
    """
    decode, added = model.processor.decode, model.processor.tokenizer.added_tokens_decoder
    tokens = [t for t in row.tolist() if t not in added or not added[t].special]
    slices = tokens_of_words(tokens, decode)
    if not slices:
        return []
    scores = pointing(model, piece, torch.tensor(tokens))
    finer = -(-len(tokens) // scores.shape[1])  # 1 but where tokens outnumber the frames
    scores = scores.repeat(finer, axis=1)
    places = in_order(scores - POINTS * np.median(scores.max(axis=1)))
    spans = [(places[s.start][0] // finer, -(-places[s.stop - 1][1] // finer)) for s in slices]
    level, longest = loudness(piece), len(piece) / SAMPLE_RATE
    quiet = np.quantile(level, 0.05)
    limits, words, last = [begin for begin, _ in spans[1:]] + [len(level)], [], 0
    texts = re.findall(r"\s*\S+", decode(tokens))
    for text, (begin, end), limit in zip(texts, spans, limits, strict=True):
        first = max(begin, last)  # two words may share a token
        last = max(end, first)
        loud = quiet + LOUD * (level[first:last].max(initial=quiet) - quiet)
        limit = min(limit, last + LONGEST_END)
        while last < limit and level[last] > loud:
            last += 1
        words.append(Word(text, *(min(frame * SECONDS, longest) for frame in (first, last))))
    return words


def loudness(piece: Tensor) -> np.ndarray:
    """The level of a piece (S,) around each encoder frame, in dB: (T,)."""
    size = SAMPLES_PER_ENCODER_FRAME
    windows = pad(piece, (0, -len(piece) % size)).unfold(0, size, size)
    return (10 * windows.square().mean(dim=1).clamp(min=1e-10).log10()).cpu().numpy()


def timed_text(
    model, waveform: Tensor, pieces: Sequence[Tensor], rows: Sequence[Tensor]
) -> TimedText:
    """What a model wrote of a clip (S,) at 16 kHz, with its words timed in seconds of the clip.

    Args:
        pieces: the clip as it was read, see `cut`.
        rows: the token ids that `model.generate` gave for each.
    """
    found = [words_of_piece(model, *both) for both in zip(pieces, rows, strict=True)]
    return joined(waveform, pieces, found)


def joined(waveform: Tensor, pieces: Sequence[Tensor], words: Sequence[list[Word]]) -> TimedText:
    """The words of a clip's pieces as those of the clip, from seconds of a piece to the clip's.

    The pieces are the clip without its long quiets, in order, and nothing is said in these: a word
    that ends where one begins ends before it.
    """
    parts = leave_out_quiet(waveform)
    starts = [part.storage_offset() - waveform.storage_offset() for part in parts]
    heard = np.cumsum([0, *map(len, parts)])[:-1]  # samples heard before each part

    def seconds(place: float, side: Literal["left", "right"]) -> float:
        part = max(0, int(np.searchsorted(heard, place, side)) - 1)
        return float(starts[part] + place - heard[part]) / SAMPLE_RATE

    before, timed = 0, []
    for piece, found in zip(pieces, words, strict=True):
        for number, (text, begin, end) in enumerate(found):
            gap = " " if timed and number == 0 else ""
            first, last = (round(before + time * SAMPLE_RATE) for time in (begin, end))
            timed.append(Word(gap + text, seconds(first, "right"), seconds(last, "left")))
        before += len(piece)
    return TimedText("".join(word.text for word in timed), timed)
