"""Everyday English from a grammar: orders, questions, small talk, news, with numbers and names.

What is spoken is what is written: numbers in words, no abbreviations that could be read in two
ways. Acronyms that are spelled aloud stay capital letters (TV, USB); `a.m.` is written "A M".
Words and sentences lie in words.yaml and sentences.yaml; here are the slots that count or tell the
time. With the same words and the same seed the sentences are always the same.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml
from numpy.random import Generator

from recipes.kokoro.number_words import ONES, in_words, ordinal, year

HERE = Path(__file__).parent
ANYTHING = TypeVar("ANYTHING")
SLOT = re.compile(r"\{(\w+)\}")
PARTS_OF_THE_DAY = [" in the morning", " in the afternoon", " in the evening"]
QUARTERS = [
    "half past", "quarter past", "quarter to", "a quarter past", "a quarter to", "ten to",
    "ten past", "twenty to", "twenty past", "five past", "five to",
]  # fmt: skip
CENTS = ["ninety-nine", "fifty", "seventy-five", "twenty-five", "ninety-five"]
PHONES = [(3, 3, 4), (3, 4), (5, 3, 3), (4, 3, 4), (2, 4, 4)]  # digits of a phone number's groups
# Sentences that may begin with one of these, and beginnings that then lose their capital.
CALLED = ("home", "timer", "music", "request", "direction", "weather", "question")
CALLS = [
    "Hey, ", "Okay, ", "Please, ", "Computer, ", "Can you hear me? ", "Excuse me, ", "So, ", "Hi, ",
    "Alright, ", "Hello, ",
]  # fmt: skip
ORDER = re.compile(r"[A-Z][a-z]+ (the|a|on|off|is|me|to|some|up|do|much|far)\b")
PLURALS = {
    "foxs": "foxes", "wolfs": "wolves", "sheeps": "sheep", "gooses": "geese", "mouses": "mice",
    "deers": "deer", "butterflys": "butterflies", "salmons": "salmon", "mooses": "moose",
    "glassess": "glasses", "keyss": "keys", "shoess": "shoes", "glovess": "gloves",
    "headphoness": "headphones", "watchs": "watches", "octopuss": "octopuses",
}  # fmt: skip
VOWEL = r"(?=[aeiou])(?!(?:uni|use|euro|one)\w)"  # where "an" stands


def choose(rng: Generator, items: Sequence[ANYTHING]) -> ANYTHING:
    return items[int(rng.integers(len(items)))]


def with_article(noun: str) -> str:
    return ("an " if re.match(VOWEL, noun.lower()) else "a ") + noun


def number(rng: Generator, low: int, high: int) -> str:
    return in_words(int(rng.integers(low, high + 1)))


def three_digits(rng: Generator) -> str:
    return in_words(int(rng.integers(100, 1000)), rng.random() < 0.5)


def thousand(rng: Generator) -> str:
    kind = rng.random()
    if kind < 0.4:
        value = int(rng.integers(1, 100)) * 1000
    elif kind < 0.6:
        value = int(rng.integers(10, 1000)) * 100
    else:
        value = int(rng.integers(1000, 1000000))
    return in_words(value, rng.random() < 0.5)


def million(rng: Generator) -> str:
    count = in_words(int(rng.integers(1, 400)))
    if rng.random() < 0.4:
        count = f"{number(rng, 1, 9)} point {number(rng, 1, 9)}"
    return count + (" million" if rng.random() < 0.75 else " billion")


def decimal(rng: Generator) -> str:
    whole, places = in_words(int(rng.integers(0, 100))), int(rng.integers(1, 4))
    return f"{whole} point {' '.join(number(rng, 0, 9) for _ in range(places))}"


def digits(rng: Generator, count: int) -> str:
    """So many digits, one by one; zero is at times "oh"."""
    said = [ONES[digit] for digit in rng.integers(0, 10, count)]
    if rng.random() < 0.4:
        said = ["oh" if digit == "zero" else digit for digit in said]
    return " ".join(said)


def phone(rng: Generator) -> str:
    return ", ".join(digits(rng, count) for count in choose(rng, PHONES))


def letters(rng: Generator) -> str:
    return " ".join(chr(ord("A") + letter) for letter in rng.integers(0, 26, rng.integers(2, 5)))


def some_year(rng: Generator) -> str:
    return year(int(rng.integers(1500 if rng.random() < 0.6 else 1900, 2031)))


def time(rng: Generator) -> str:
    """A time of the day, in one of the ways in which one says it."""
    hour, minute = in_words(int(rng.integers(1, 13))), int(rng.integers(1, 12)) * 5
    kind = rng.random()
    if kind < 0.22:
        after = choose(rng, ["", "", " sharp", " in the morning", " at night"])
        return f"{hour} o'clock{after}"
    if kind < 0.40:
        return f"{choose(rng, QUARTERS)} {hour}"
    if kind < 0.85:
        if rng.random() < 0.4:
            minute = int(rng.integers(1, 60))
        said = ("oh " if minute < 10 else "") + in_words(minute)
        after = choose(rng, ["", "", " A M", " P M", *PARTS_OF_THE_DAY, " tonight"])
        return f"{hour} {said}{after}"
    morning, afternoon, evening = PARTS_OF_THE_DAY
    return hour + choose(rng, [" A M", " P M", morning, evening, afternoon, ""])


def price(rng: Generator) -> str:
    money, kind = choose(rng, ["dollars", "dollars", "pounds", "euros"]), rng.random()
    if kind < 0.35:
        return f"{number(rng, 2, 99)} {money}"
    if kind < 0.55:
        return f"{three_digits(rng)} {money}"
    if kind < 0.65:
        return f"{thousand(rng)} {money}"
    if kind < 0.72:
        few = number(rng, 5, 95)
        return f"{few} {choose(rng, ['cents'] if money == 'euros' else ['cents', 'pence'])}"
    if kind < 0.85:
        few = "pence" if money == "pounds" else "cents"
        return f"{number(rng, 2, 99)} {money} and {number(rng, 5, 99)} {few}"
    return f"{number(rng, 2, 99)} {choose(rng, CENTS)}"


def tidy(sentence: str) -> str:
    """Mend the articles and plurals where slots met their surroundings."""
    sentence = re.sub(rf"\ba {VOWEL}", "an ", sentence)
    sentence = re.sub(rf"^A {VOWEL}", "An ", sentence)
    sentence = re.sub(r"\b[a-z]+s\b", lambda word: PLURALS.get(word[0], word[0]), sentence)
    sentence = re.sub(r"\bthe (?:a|an|some) (?=\w)", "the ", sentence)
    sentence = re.sub(r"\b(the|my|your|a|an) the ", r"\1 ", sentence)
    sentence = re.sub(r"\b(on|this|next|last|every) (\w+day), (\w+)", r"\1 \2, \3", sentence)
    sentence = re.sub(r"\s+", " ", sentence).strip()
    return sentence[0].upper() + sentence[1:]


class Grammar:
    """Draws sentences.

    Args:
        rare_words: capitalised; surnames, towns and words to spell come partly from these.
    """

    def __init__(self, rare_words: Sequence[str]):
        given = yaml.safe_load((HERE / "words.yaml").read_text("utf-8"))
        kinds = yaml.safe_load((HERE / "sentences.yaml").read_text("utf-8"))
        self.words = {name: words.split(", ") for name, words in given["words"].items()}
        self.phrases = {name: text.split(" | ") for name, text in given["phrases"].items()}
        self.sentences = {kind: about["sentences"].splitlines() for kind, about in kinds.items()}
        often = [about["often"] for about in kinds.values()]
        self.kinds, self.chances = list(kinds), np.cumsum(often) / sum(often)
        self.rare_words = list(rare_words)
        self.slots: dict[str, Callable[[Generator], str]] = {
            **{name: partial(self.word, name) for name in self.words},
            **{name: partial(self.phrase, name) for name in self.phrases},
            "number": partial(number, low=2, high=20),
            "small": partial(number, low=2, high=12),
            "sixty": partial(number, low=2, high=59),
            "two_digits": partial(number, low=13, high=99),
            "three_digits": three_digits,
            "thousand": thousand,
            "million": million,
            "any": self.any_number,
            "decimal": decimal,
            "ordinal": lambda rng: ordinal(int(rng.integers(1, 32))),
            "year": some_year,
            "date": self.date,
            "time": time,
            "price": price,
            "digits": lambda rng: digits(rng, int(rng.integers(3, 8))),
            "few_digits": lambda rng: digits(rng, int(rng.integers(2, 5))),
            "phone": phone,
            "letters": letters,
            "spelling": self.spelling,
            "last": self.last,
            "address": self.address,
            "rareword": lambda rng: choose(rng, self.rare_words),
            "a_job": lambda rng: with_article(self.word("job", rng)),
        }

    def word(self, slot: str, rng: Generator) -> str:
        return choose(rng, self.words[slot])

    def phrase(self, slot: str, rng: Generator) -> str:
        # All are filled before one is drawn: a seed keeps the texts that it always had.
        return choose(rng, [self.fill(phrase, rng) for phrase in self.phrases[slot]])

    def any_number(self, rng: Generator) -> str:
        return self.slots[choose(rng, ["small", "two_digits", "three_digits", "thousand"])](rng)

    def date(self, rng: Generator) -> str:
        month, day = self.word("month", rng), ordinal(int(rng.integers(1, 32)))
        ways = [f"{month} {day}", f"the {day} of {month}", f"{month} the {day}"]
        ways += [f"{self.word('day', rng)}, {month} {day}", f"{self.word('day', rng)} the {day}"]
        return choose(rng, ways)

    def spelling(self, rng: Generator) -> str:
        """A name, and its letters."""
        name = choose(rng, self.words["first"] + self.words["surname"]).replace("'", "")
        return f"{name}, {(', ' if rng.random() < 0.3 else ' ').join(name.upper())}"

    def last(self, rng: Generator) -> str:
        return self.word("surname", rng) if rng.random() < 0.6 else choose(rng, self.rare_words)

    def address(self, rng: Generator) -> str:
        house = number(rng, 1, 99) if rng.random() < 0.7 else three_digits(rng)
        return f"{house} {self.word('street', rng)}"

    def fill(self, template: str, rng: Generator) -> str:
        """Put something into each slot, from left to right."""

        def filled(slot: re.Match) -> str:
            value = self.slots[slot[1].lower()](rng)
            return value[0].upper() + value[1:] if slot[1][0].isupper() else value

        return SLOT.sub(filled, template)

    def sentence(self, rng: Generator) -> str:
        """A sentence, or two of a kind."""
        kind = self.kinds[int(np.searchsorted(self.chances, rng.random()))]
        said = tidy(self.fill(choose(rng, self.sentences[kind]), rng))
        if rng.random() < 0.06 and kind in CALLED:
            call = choose(rng, CALLS)
            said = call + (said[0].lower() + said[1:] if ORDER.match(said) else said)
        if rng.random() < 0.16:
            said += " " + tidy(self.fill(choose(rng, self.sentences[kind]), rng))
        return said
