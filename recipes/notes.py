"""Messy notes: what the embeddings of a projector look like, made from text alone.

A note is a row of vectors as loud as token embeddings, ten a second, in which a sentence can be
made out with some effort. Where a projector is unsure, its output lies between the embeddings of
what might have been said; so a note is a mixture too:

- each word lasts as long as its letters take at this speaker's rate, and its pieces share that
  time; a vector is the sum of the pieces around its moment, and of `<|silence|>` between them;
- a word may be cut into other pieces than the tokenizer would (BPE-dropout, Provilkov et al. 2020),
  misspelt, or replaced by one that sounds like it (CMUdict, one phoneme apart);
- two such readings of a sentence may lie over each other;
- Gaussian noise lies over all, and some vectors are nothing but noise.

Everything is drawn on the device, from tables of every word's forms.
"""

import lzma
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

MAX_PIECES = 16  # of a word; longer ones are left out of the text
DROPOUTS = (0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
SEGMENTED = slice(1, 1 + len(DROPOUTS))  # form 0 is the tokenizer's own
ALIKE = slice(SEGMENTED.stop, SEGMENTED.stop + 4)  # words that sound alike
MISSPELT = slice(ALIKE.stop, ALIKE.stop + 5)
FORMS = MISSPELT.stop
SOUND_ALIKE = ("sz", "ck", "td", "pb", "fv", "mn", "gj", "ae", "ei", "iy", "ou", "ao", "lr")
EMPTY_SHARE = 0.04  # of notes in which nobody says anything


@dataclass
class Text:
    """One text: word numbers (N,), where its sentences begin (K,), its tokens as plain text."""

    words: Tensor
    starts: Tensor
    tokens: Tensor


class Words:
    """Every word of the texts, and the forms in which a note may show it.

    forms: (words, FORMS, MAX_PIECES) pieces that begin with a space, -1 where there is none.
    first: (words, MAX_PIECES) the tokenizer's pieces of the word without a space.
    letters: (V,) how many letters (or spaces) a piece has.
    """

    def __init__(self, tokenizer: Tokenizer, texts: dict[str, list[str]], cmudict: Path, seed: int):
        counts = Counter(
            word for lines in texts.values() for line in lines for word in line.split()
        )
        rng = random.Random(seed)
        known = list(counts)
        plain = tokenizer.encode_batch([" " + word for word in known])
        known = [w for w, e in zip(known, plain, strict=True) if len(e.ids) <= MAX_PIECES]
        self.numbers = {word: number for number, word in enumerate(known)}
        forms = np.full((len(known), FORMS, MAX_PIECES), -1, np.int16)
        alike = sounding_alike(known, counts, cmudict)
        columns = {0: (known, None)}
        for column, dropout in enumerate(DROPOUTS, SEGMENTED.start):
            columns[column] = (known, dropout)
        for k in range(4):
            words = [rng.choice(alike[w]) if alike[w] else misspelt(w, rng) for w in known]
            columns[ALIKE.start + k] = (words, None)
        for k in range(5):
            columns[MISSPELT.start + k] = ([misspelt(w, rng) for w in known], 0.1)
        for column, (words, dropout) in columns.items():
            fill(forms[:, column], tokenizer, [" " + word for word in words], dropout)
        first = np.full((len(known), MAX_PIECES), -1, np.int16)
        fill(first, tokenizer, known, None)
        self.forms, self.first = torch.from_numpy(forms), torch.from_numpy(first)
        pieces = [tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())]
        self.letters = torch.tensor([max(1, len(piece)) for piece in pieces], dtype=torch.float32)
        self.texts = {name: self._text(tokenizer, lines) for name, lines in texts.items()}

    def _text(self, tokenizer: Tokenizer, lines: list[str]) -> Text:
        rows = [[self.numbers[w] for w in line.split() if w in self.numbers] for line in lines]
        rows = [row for row in rows if row]
        starts = np.cumsum([0] + [len(row) for row in rows])
        words = np.fromiter((w for row in rows for w in row), np.int32, starts[-1])
        newline = tokenizer.encode("\n").ids
        tokens = [i for e in tokenizer.encode_batch(lines) for i in (*e.ids, *newline)]
        return Text(
            torch.from_numpy(words).long(),
            torch.from_numpy(starts),
            torch.tensor(tokens, dtype=torch.int16),
        )

    def to(self, device) -> "Words":
        """Move every table to a device."""
        self.forms, self.first = self.forms.to(device), self.first.to(device)
        self.letters = self.letters.to(device)
        for text in self.texts.values():
            text.words, text.starts = text.words.to(device), text.starts.to(device)
            text.tokens = text.tokens.to(device)
        return self


def fill(table: np.ndarray, tokenizer: Tokenizer, words: list[str], dropout: float | None) -> None:
    """Write the pieces of each word into its row, at most MAX_PIECES of them."""
    tokenizer.model.dropout = dropout
    for row, encoded in zip(table, tokenizer.encode_batch(words), strict=True):
        ids = encoded.ids[:MAX_PIECES]
        row[: len(ids)] = ids
    tokenizer.model.dropout = None


def sounding_alike(words: list[str], counts: Counter, cmudict: Path) -> dict[str, list[str]]:
    """For each word up to 8 at most one phoneme away, homophones and frequent ones first."""
    sounds = {}
    with lzma.open(cmudict, "rt", encoding="utf-8") as lines:
        for line in lines:
            word, *phonemes = line.split("#")[0].split()
            if word in counts:
                sounds[word] = tuple(re.sub(r"\d", "", p) for p in phonemes)
    near = defaultdict(list)  # a sound with one phoneme hidden -> its words
    for word, sound in sounds.items():
        for key in hidden(sound):
            near[key].append(word)
    result = {word: [] for word in words}
    for word, sound in sounds.items():
        if word not in result:
            continue
        found = {other for key in hidden(sound) for other in near[key]} - {word}
        by_rank = sorted(found, key=lambda w: (sounds[w] != sound, -counts[w], w))
        result[word] = by_rank[:8]
    return result


def hidden(sound: tuple[str, ...]) -> list[tuple]:
    """The sound, with each phoneme replaced by a wildcard, and with each left out."""
    places = range(len(sound)) if len(sound) > 1 else ()
    gaps = [(*sound[:i], "?", *sound[i + 1 :]) for i in places]
    return [sound, *gaps, *(sound[:i] + sound[i + 1 :] for i in places)]


def misspelt(word: str, rng) -> str:
    """The word with one letter dropped, doubled, or replaced by one that sounds like it."""
    place = rng.randrange(len(word))
    letter = word[place]
    pairs = [pair for pair in SOUND_ALIKE if letter in pair]
    kind = rng.random()
    if kind < 0.3 and len(word) > 2:
        new = ""
    elif kind < 0.5 or not pairs:
        new = letter * 2
    else:
        new = rng.choice(pairs).replace(letter, "")
    return word[:place] + new + word[place + 1 :]


@dataclass
class Notes:
    """Notes (B, A, llm_dim) with lengths (B,), and what they say: labels (B, L), -100 beyond."""

    embeddings: Tensor
    lengths: Tensor
    labels: Tensor


def spans(text: Text, batch: int, fewest: int, most: int, generator) -> tuple[Tensor, Tensor]:
    """Words (B, most) of the running text and their number (B,); many begin or end a sentence."""
    device = text.words.device

    def draw(*shape):
        return torch.rand(*shape, generator=generator, device=device)

    begin = (draw(batch) * (len(text.words) - most)).long()
    sentence = text.starts[(draw(batch) * (len(text.starts) - 1)).long()]
    begin = torch.where(draw(batch) < 0.6, sentence, begin).clamp(max=len(text.words) - most)
    count = fewest + (draw(batch) * (most - fewest + 1)).long()
    at_end = text.starts[torch.searchsorted(text.starts, begin + count, right=True) - 1] - begin
    count = torch.where((draw(batch) < 0.6) & (at_end >= fewest), at_end, count)
    return text.words[begin[:, None] + torch.arange(most, device=device)], count


def make_notes(
    words: Words,
    text: Text,
    table: Tensor,
    silence: int,
    end: int,
    *,
    batch: int,
    fewest: int,
    most: int,
    longest: int,
    generator: torch.Generator,
) -> Notes:
    """Draw spans of a text and scribble them down.

    Args:
        table: token embeddings (V, llm_dim).
        silence, end: ids of the two special tokens.
        fewest, most: words in a note; longest: vectors in a note.
    """
    device = table.device

    def draw(*shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=generator, device=device)

    def mostly_zero(share_of_zero: float, high: float):
        return draw(batch, high=high) * (draw(batch) >= share_of_zero)

    numbers, count = spans(text, batch, fewest, most, generator)
    spoken = torch.arange(most, device=device) < count[:, None]  # (B, W)
    spoken &= (draw(batch) >= EMPTY_SHARE)[:, None]

    # When each word is said, in vectors.
    canonical = words.forms[numbers, 0].long()
    letters = (words.letters[canonical.clamp(min=0)] * (canonical >= 0)).sum(-1)  # (B, W)
    rate = draw(batch, 1, low=0.45, high=1.1)  # vectors a letter: 9 to 22 letters a second
    duration = letters * rate * draw(*letters.shape, low=0.7, high=1.3)
    pausing = draw(*letters.shape) < mostly_zero(0.3, 0.25)[:, None]
    pause = pausing * draw(*letters.shape, low=0.5, high=5.0)
    lead, trail = draw(batch, 1, high=5.0), draw(batch, 1, high=5.0)
    until = ((duration + pause) * spoken).cumsum(1)
    begin = lead + until - (duration + pause) * spoken
    total = lead + until[:, -1:] + trail
    squeeze = (longest / total).clamp(max=1.0)  # those that speak too long for the row speak faster
    begin, duration = begin * squeeze, duration * squeeze
    lengths = (total * squeeze).ceil().clamp(1, longest).long()[:, 0]

    # What is written there: two readings, one over the other.
    sharp = draw(batch, 1, high=1.3)
    changes = (mostly_zero(0.3, 1.0), mostly_zero(0.4, 0.3), mostly_zero(0.4, 0.25))
    blend = mostly_zero(0.5, 0.5)[:, None, None]
    moments = torch.arange(longest, device=device) + 0.5
    mixture = 0
    for weight in (1 - blend, blend):
        form = choose_forms(numbers.shape, changes, draw)
        pieces = words.forms[numbers, form].long()  # (B, W, MAX_PIECES)
        there = (pieces >= 0) & spoken[..., None]
        size = words.letters[pieces.clamp(min=0)] * there
        share = size / size.sum(-1, keepdim=True).clamp(min=1)
        centre = begin[..., None] + duration[..., None] * (share.cumsum(-1) - share / 2)
        reach = 0.55 + sharp[..., None] * duration[..., None] * share / 2
        room = 3 * most + 6
        pieces, centre, reach = compact(there, room, pieces, centre, reach)
        overlap = (1 - (moments[:, None] - centre[:, None]).abs() / reach[:, None]).clamp(min=0)
        overlap = overlap * (pieces >= 0)[:, None]  # (B, A, pieces)
        quiet = (1 - overlap.sum(-1, keepdim=True)).clamp(min=0)
        reading = overlap @ table[pieces.clamp(min=0)] + quiet * table[silence]
        mixture = mixture + weight * reading

    # Noise over all, and as loud as tokens.
    def level(x):
        return x / x.pow(2).mean(-1, keepdim=True).sqrt().clamp(min=1e-6)

    noise = torch.randn(mixture.shape, generator=generator, device=device)
    lost = draw(batch, longest) < mostly_zero(0.5, 0.2)[:, None]
    loudness = mostly_zero(0.2, 1.3)[:, None, None] + 1e-3
    notes = level(mixture) * ~lost[..., None] + noise * torch.where(lost[..., None], 1.0, loudness)
    notes = level(notes) * table.detach().pow(2).mean().sqrt()

    # The transcript.
    target = canonical.clone()
    target[:, 0] = words.first[numbers[:, 0]].long()
    there = (target >= 0) & spoken[..., None]
    (labels,) = compact(there, 2 * most + 6, target)
    labels = torch.where(labels < 0, -100, labels)
    fits = there.sum((1, 2)) < labels.shape[1]
    last = (labels >= 0).sum(1, keepdim=True).clamp(max=labels.shape[1] - 1)
    labels = labels.scatter(1, last, end)
    labels = labels.masked_fill(~fits[:, None], -100)  # too long for the row: learn nothing from it
    return Notes(notes, lengths, labels)


def choose_forms(shape, changes, draw) -> Tensor:
    """A form for each word (B, W): its own, or one of the kinds this row is prone to."""
    form = torch.zeros(shape, dtype=torch.long, device=changes[0].device)
    for kind, share in zip((SEGMENTED, ALIKE, MISSPELT), changes, strict=True):
        other = kind.start + (draw(*shape) * (kind.stop - kind.start)).long()
        form = torch.where(draw(*shape) < share[:, None], other, form)
    return form


def compact(there: Tensor, room: int, *tables: Tensor) -> list[Tensor]:
    """(B, W, MAX_PIECES) -> (B, room): what is there, side by side; -1 where nothing is left."""
    there = there.flatten(1)
    place = torch.where(there, there.cumsum(1) - 1, room).clamp(max=room)
    rows = [t.new_full((len(there), room + 1), -1) for t in tables]
    flat = [t.flatten(1) for t in tables]
    return [row.scatter(1, place, t)[:, :room] for row, t in zip(rows, flat, strict=True)]
