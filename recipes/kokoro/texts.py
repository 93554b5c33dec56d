"""Sentences to speak: from the novels, and everyday English from the grammar.

    python -m recipes.kokoro.texts

reads the novels and the dictionary of the shared material (TINY_ASR_SHARED, or ../shared beside the
checkout), and writes, under runs/prepare/kokoro/,

    novels.txt      300 000 sentences of 1 to 26 words, and 45 000 pairs of neighbours
    everyday.txt    300 000 sentences of grammar.py, 8 % of them runs of words without sense
    heldout.txt     sentences of the five books that text.py puts aside for tests

one a line: as a voice reads it, a tab, and as a recogniser is to write it. No two are to be written
alike, and none is, or stands in, one of the five books that text.py puts aside for tests. The same
seed gives the same files.
"""

import argparse
import lzma
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recipes.clips import NOT_SPOKEN_AS_WRITTEN
from recipes.kokoro.grammar import Grammar, choose
from recipes.text import BOOK, HELD_OUT, SHARED, SPOKEN, WORK, transcript
from tiny_asr.data.utterance import normalise_transcript

OUT = WORK / "kokoro"
NOVEL_WORDS, PAIR_WORDS, EVERYDAY_WORDS = 26, 24, 32  # at most
HELD_OUT_WORDS = 4  # a shorter sentence of a book put aside is everybody's: "yes sir"
# Words that nobody says today, and slurs.
OLD_WORDS = frozenset(
    """thee thou thy thine hath doth dost hast wilt shalt wert 'tis 'twas 'twere 'twill ye art quoth
    forsooth methinks hither thither whither whence thence hence nay yea prithee ere oft betwixt
    wherefore verily perchance hadst didst canst couldst wouldst shouldst mayst alas lo tis twas
    ma'am marquis countenance whilst ejaculated rejoined vouchsafed bosom brougham heretofore
    hitherto unto negro negroes nigger niggers""".split()  # noqa: SIM905
)
NOT_PROSE = re.compile(r"[\[\]{}*_=<>@#/\\|~^£$&%+\d]|\b[A-Z]{2,}\b")
# Here the novels' sentences were split in two, after a title's full stop.
TORN = re.compile(r"\b(Mr|Mrs|Dr|St|Messrs|Rev|Hon|Capt|Col|Gen|Prof)\.?\s*$")
TORN_TOO = re.compile(r"\b(Esq|No|vol|etc|Lieut|Sergt)\.?\s*$")
TITLE = re.compile(r"\b(?:(Mr|Mrs|Dr|St)\.|(Mr|Mrs)\b)")
DASH, ELLIPSIS = "\N{EM DASH}", "\N{HORIZONTAL ELLIPSIS}"
QUOTES = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "`": "'", "\u201c": "", "\u201d": "", '"': "", "(": "", ")": ""}
)


class Sentence(NamedTuple):
    """spoken, target: as read and as written down; words: of the target; modern: the more, the
    likelier it is chosen."""

    spoken: str
    target: str
    words: int
    modern: float


def cleaned(line: str) -> str | None:
    """A printed sentence, tidied for a synthesiser; None if it isn't good."""
    if NOT_PROSE.search(line) or TORN.search(line) or TORN_TOO.search(line):
        return None
    line = line.translate(QUOTES).replace("''", "")
    line = TITLE.sub(lambda title: SPOKEN[(title[1] or title[2]).lower()].capitalize(), line)
    line = re.sub(r"(?<![A-Za-z])'|'(?![A-Za-z])", "", line)
    line = re.sub(r"\s+-+\s+|\s*--+\s*|\u2014|\u2013", f" {DASH} ", line)
    line = re.sub(r"\s*\.\s*\.\s*\.[\s.]*", f"{ELLIPSIS} ", line)
    line = re.sub(r"\s+([,;:.!?])", r"\1", line)
    line = re.sub(rf"(\s*{DASH}\s*)+$", ".", line)
    line = re.sub(rf"^[\s{DASH},.;:!?]+", "", line)
    line = re.sub(r"\s+", " ", line).strip()
    if not line or not line[0].isalpha() or not line.translate({0x2014: "", 0x2026: ""}).isascii():
        return None
    if line[-1] not in f".!?{ELLIPSIS}":
        line = line.rstrip(",;:") + "."
    return line[0].upper() + line[1:]


@dataclass
class Novels:
    """What the novels give.

    sentences, pairs: to choose from.
    held_out: transcripts of the books put aside.
    counts: how often each word stands in the others.
    """

    sentences: list[Sentence] = field(default_factory=list)
    pairs: list[Sentence] = field(default_factory=list)
    held_out: set[str] = field(default_factory=set)
    counts: Counter = field(default_factory=Counter)

    def add(
        self, line: str, year: int, before: Sentence | None, known: set[str]
    ) -> Sentence | None:
        """Take a line of a book of that year if it is good; `before` is the line before it."""
        spoken = cleaned(line)
        target = normalise_transcript(spoken or "")
        words = target.split()
        self.counts.update(words)
        if (
            not 1 <= len(words) <= NOVEL_WORDS
            or NOT_SPOKEN_AS_WRITTEN.search(target)
            or not OLD_WORDS.isdisjoint(words)
            or not all(word in known or word.removesuffix("'s") in known for word in words)
        ):
            return None
        talk = '"' in line or line.lstrip().startswith("'")
        modern = (1.0 if talk else 0.0) + (year - 1840) / 80 * 1.2 - (0.25 if ";" in spoken else 0)
        this = Sentence(spoken, target, len(words), modern)
        self.sentences.append(this)
        if before and before.words + this.words <= PAIR_WORDS:
            pair = f"{before.spoken} {spoken}", f"{before.target} {target}"
            self.pairs.append(Sentence(*pair, before.words + this.words, modern))
        return this


def read_novels(lines: Iterable[str], known: set[str]) -> tuple[Novels, Novels]:
    """From the shared file's lines and the words that a dictionary knows: what is trained on, and
    the same of the books put aside."""
    novels, aside, name, year, before, torn = Novels(), Novels(), "", 0, None, False
    for line in lines:
        line = line.rstrip("\n")
        if line.startswith(BOOK):
            name, before, torn = line.removeprefix(BOOK).strip(), None, False
            printed = re.search(r"1[89]\d\d", name)
            year = int(printed[0]) if printed else 1864
            continue
        continued, torn = torn, bool(TORN.search(line))
        if name in HELD_OUT:
            novels.held_out |= {transcript(line), normalise_transcript(cleaned(line) or "")}
            if not (continued or torn):
                aside.add(line, year, None, known)
        elif continued or torn:
            before = None
        else:
            before = novels.add(line, year, before, known)
    return novels, aside


class Texts:
    """Sentences chosen so far: each target once, none of `held_out`'s of 4 words and more."""

    def __init__(self, held_out: set[str]):
        self.seen = {text for text in held_out if len(text.split()) >= HELD_OUT_WORDS}

    def new(self, rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Those (spoken, target) whose target is new."""
        for spoken, target in rows:
            if target not in self.seen:
                self.seen.add(target)
                yield spoken, target


def most_modern(sentences: list[Sentence], rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """All of them, (spoken, target), the modern ones first, with some chance."""
    keys = np.array([sentence.modern for sentence in sentences])
    for place in np.argsort(-(keys + rng.normal(0, 0.8, len(keys)))):
        yield sentences[place][:2]


def everyday(
    rare: list[str], common: list[str], tries: int, rng: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """(spoken, target) of the grammar; names come from the rare words, at times from the common."""
    with_names = Grammar([word.capitalize() for word in rare])
    plain = Grammar(common)
    for _ in range(tries):
        spoken = (plain if rng.random() < 0.06 else with_names).sentence(rng)
        if rng.random() < 0.06:  # a run of words without sense: nothing to guess from
            length = int(rng.integers(1, 9))
            run = [choose(rng, rare if rng.random() < 0.5 else common) for _ in range(length)]
            spoken = " ".join(run).capitalize() + "."
        target = normalise_transcript(spoken)
        if not re.search(r"\d", target) and 1 <= len(target.split()) <= EVERYDAY_WORDS:
            yield spoken, target


def take(rows: Iterator[tuple[str, str]], count: int, what: str) -> list[tuple[str, str]]:
    """The first so many. Raises ValueError where there are fewer."""
    taken = list(islice(rows, count))
    if len(taken) < count:
        raise ValueError(f"{len(taken)} {what}; expected {count}: add text, or ask for fewer")
    return taken


def write(path: Path, rows: list[tuple[str, str]], rng: np.random.Generator) -> None:
    """One a line, in a random order."""
    lines = [f"{rows[place][0]}\t{rows[place][1]}\n" for place in rng.permutation(len(rows))]
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path}: {len(lines)} sentences", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make sentences to speak.")
    novels = SHARED / "text" / "public-domain-english.txt.xz"
    words = SHARED / "text" / "cmudict.dict.xz"
    parser.add_argument("--text", type=Path, default=novels, help="sentences, one a line, .txt.xz")
    parser.add_argument("--dictionary", type=Path, default=words, help="CMU's, .xz")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder to write to")
    parser.add_argument("--novels", type=int, default=300_000, help="sentences of the novels")
    parser.add_argument("--pairs", type=int, default=45_000, help="pairs of the novels' sentences")
    parser.add_argument("--everyday", type=int, default=300_000, help="sentences of the grammar")
    parser.add_argument("--seed", type=int, default=19, help="another seed, other sentences")
    arguments = parser.parse_args()
    for path in (arguments.text, arguments.dictionary):
        if not path.is_file():
            parser.error(f"no file {path}; name another, or set TINY_ASR_SHARED")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with lzma.open(arguments.dictionary, "rt", encoding="utf-8", errors="replace") as source:
        known = {re.sub(r"\(\d\)$", "", line.split()[0]) for line in source}
    with lzma.open(arguments.text, "rt", encoding="utf-8") as source:
        found, aside = read_novels(source, known)
    rng, texts = np.random.default_rng(arguments.seed), Texts(found.held_out)
    try:
        singles = texts.new(most_modern(found.sentences, rng))
        rows = take(singles, arguments.novels, "sentences in the novels")
        pairs = texts.new(most_modern(found.pairs, rng))
        rows += take(pairs, arguments.pairs, "pairs of sentences in the novels")
        write(arguments.out / "novels.txt", rows, rng)
        # Names and modern words: those of the dictionary that the novels hardly have.
        plain = sorted(word for word in known if re.fullmatch(r"[a-z]{4,12}", word))
        rare = [word for word in plain if found.counts[word] <= 2]
        common = [word for word in plain if found.counts[word] > 8]
        more = texts.new(everyday(rare, common, 3 * arguments.everyday, rng))
        rows = take(more, arguments.everyday, "different sentences of the grammar")
        write(arguments.out / "everyday.txt", rows, rng)
        trained = {target for _, target in rows} | {one.target for one in found.sentences}
        kept = {one.target: one.spoken for one in aside.sentences if one.target not in trained}
        rows = [(spoken, target) for target, spoken in kept.items()]
        write(arguments.out / "heldout.txt", rows, rng)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
