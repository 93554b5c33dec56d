"""Notebook 06, evaluation: judges of the exercises."""

import math
import re
from collections.abc import Sequence
from copy import deepcopy
from difflib import SequenceMatcher

import jiwer
import numpy as np

from tiny_asr.course.checks import Wrong, ask, attempted, describe, exercise, expect, listed
from tiny_asr.evaluation.score import normalise


def _fewest(said: list[str], heard: list[str], substitution: float = 1, free: str = "") -> float:
    """The edit distance with a price for substitutions, and with free borders for wrong answers."""
    table = np.zeros((len(said) + 1, len(heard) + 1))
    table[:, 0] = 0 if "column" in free else np.arange(len(said) + 1)
    table[0] = 0 if "row" in free else np.arange(len(heard) + 1)
    for i, word in enumerate(said, start=1):
        for j, other in enumerate(heard, start=1):
            ways = [table[i - 1, j - 1] + substitution * (word != other)]
            ways += [] if "above" in free else [table[i - 1, j] + 1]
            ways += [] if "left" in free else [table[i, j - 1] + 1]
            table[i, j] = min(ways)
    return table[-1, -1]


def _first_found(said: Sequence[str], heard: Sequence[str]) -> int:
    """Errors by the longest matches first, which is not always the cheapest way."""
    steps = SequenceMatcher(None, list(said), list(heard), autojunk=False).get_opcodes()
    return sum(max(i - h, k - j) for kind, h, i, j, k in steps if kind != "equal")


@exercise("06-edits")
def edits(answer) -> str:
    """edits(said, heard) -> the fewest edits, as an integer."""
    cases = (
        ("the cat sat", "the cat sat"),
        ("the cat sat", "the dog sat"),
        ("the cat sat down", "cat sat down"),
        ("cat sat", "the cat sat now"),
        ("a b c d e", "b a c x y"),
        ("a b c d e f", "b c x e f g"),
        ("yes", ""),
        ("", "oh no"),
        ("the the a", "the a a"),
    )
    for said, heard in cases:
        a, b = said.split(), heard.split()
        right = len(a or b) * (a != b)
        if a and b:  # another way than the solution's
            found = jiwer.process_words(said, heard)
            right = found.substitutions + found.deletions + found.insertions
        longer, first_row = abs(len(a) - len(b)), _fewest(a, b, free="row")
        by_place = longer + sum(x != y for x, y in zip(a, b, strict=False))
        as_sets = max(len(set(a) - set(b)), len(set(b) - set(a)))
        first_column = _fewest(a, b, free="column")
        causes = {
            "there is a way to lay the two side by side with fewer errors": _first_found(a, b),
            "comparing place by place: after one missing word everything is shifted": by_place,
            "a substitution is one error, not two": _fewest(a, b, substitution=2),
            "row 0 is not all 0: from nothing to j words it takes j insertions": first_row,
            "column 0 is not all 0: from i words to nothing it takes i deletions": first_column,
            "a word may be left out: the way from above is missing": _fewest(a, b, free="above"),
            "a word may be added: the way from the left is missing": _fewest(a, b, free="left"),
            "the order of the words counts, too": as_sets,
            "this is only the difference of the lengths": longer,
            "return the number in the last cell, not divided by anything": right / max(len(a), 1),
        }
        ask("edits", answer, a, b, expected=right, causes=causes)
    return "S + D + I, without trying out every way to lay the two side by side."


@exercise("06-guess")
def guess(guesses) -> str:
    """Four WERs in per cent, guessed before they are counted."""
    guesses = listed(guesses, 4, "a list of four numbers")
    attempted(guesses)
    causes = (
        {"added words are errors, too, and a WER has no upper limit": 100, "in per cent": 2},
        {
            "laid side by side: two substitutions, and one word that was left out": 66.7,
            "one of three words counts as right only if it is the same word": 33.3,
        },
        {
            "nothing written is not nothing wrong: each word said is a deletion": 0,
            "there are 3 deletions in 3 words": 300,
        },
        {
            "this is the mean of the clips' rates; sum first, divide once": 31.25,
            "this is the share of clips with an error": 100,
        },
    )
    rights = (200, 100, 100, 20)
    for number, (came, right, each) in enumerate(zip(guesses, rights, causes, strict=True), 1):
        expect(f"guess {number}", came, right, each, tolerance=5e-3)
    return "The next cell counts them."


def _within_a_rank(came, gaps: np.ndarray, percentiles: np.ndarray):
    """What is right for the ends of the middle 95 %: numpy's percentiles, which lie between two of
    the sorted differences, or what came, if it is one of these two or their neighbour."""
    try:
        low_end, high_end = map(float, came)
    except (TypeError, ValueError):
        return percentiles
    ranked, spare = np.sort(gaps), int(len(gaps) >= 100)
    for end, bound in ((0.025, low_end), (0.975, high_end)):
        place = end * (len(ranked) - 1)
        low = ranked[max(0, math.floor(place) - spare)]
        high = ranked[min(len(ranked) - 1, math.ceil(place) + spare)]
        if not low - 1e-9 <= bound <= high + 1e-9:
            return percentiles
    return came


@exercise("06-paired")
def paired(answer) -> str:
    """difference(mine, ours, words, draws) -> (low, high) of the difference of two WERs."""
    rng = np.random.default_rng(0)
    words = rng.integers(2, 20, 40)
    hard = rng.uniform(0.05, 0.6, 40)  # hard for both
    mine, ours = rng.binomial(words, hard), rng.binomial(words, 0.7 * hard)
    small = [1, 0, 2], [0, 1, 1], [4, 8, 2], [[0, 0, 1], [1, 1, 1], [2, 1, 2]]
    cases = {
        "[1, 0, 2], [0, 1, 1], [4, 8, 2], [[0, 0, 1], [1, 1, 1], [2, 1, 2]]": map(np.array, small),
        "<errors of 40 clips>, <the same of ours>, <words>, <500 draws>": (
            mine,
            ours,
            words,
            rng.integers(40, size=(500, 40)),
        ),
    }
    for shown, (a, b, of, draws) in cases.items():
        rates, theirs = a[draws].sum(1) / of[draws].sum(1), b[draws].sum(1) / of[draws].sum(1)
        other = draws[::-1]
        apart = rates - b[other].sum(1) / of[other].sum(1)
        means = ((a - b) / of)[draws].mean(axis=1)

        def middle(values, ends=(2.5, 97.5)):
            return np.percentile(values, ends)

        gaps, flat = rates - theirs, (a - b)[draws].sum(axis=0) / of[draws].sum(axis=0)
        causes = {
            "mine minus ours: a lower WER of mine is negative": middle(-gaps),
            "these are the ends of two intervals, subtracted; subtract first, draw by draw": (
                middle(rates) - middle(theirs)
            ),
            "both must be counted on the *same* draw": middle(apart),
            "this is the mean of the clips' differences; sum the errors and the words of a draw": (
                middle(means)
            ),
            "divide by the words of the same draw, not of all clips": (
                middle((a - b)[draws].sum(1) / of.sum())
            ),
            "these are the 5th and the 95th percentile: the middle 90 %": middle(gaps, [5, 95]),
            "np.percentile takes per cent: 2.5 and 97.5": middle(gaps, [0.025, 0.975]),
            "fractions are asked for, not per cent": middle(100 * gaps),
            "sum over the clips of each draw, axis=1, not axis=0": middle(flat),
            "this is the interval of mine alone": middle(rates),
        }
        came = answer(*deepcopy((a, b, of, draws)))
        expect(f"difference({shown})", came, _within_a_rank(came, gaps, middle(gaps)), causes)
    return "What is hard for both cancels, draw by draw."


def _plain(text: str) -> str:
    """Lower case, words only."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


@exercise("06-fool")
def fool(pair) -> str:
    """(a, b): two texts with other words, which the normaliser takes for the same."""
    both = isinstance(pair, list | tuple) and len(pair) == 2
    if not both or not all(isinstance(text, str) for text in pair):
        raise Wrong(f"{describe(pair)} came; expected two texts in a pair: (said, heard)")
    a, b = pair
    left, right = normalise(a), normalise(b)
    if not left and not right:
        raise Wrong("nothing is left of either text: take some that has words in it")
    if left != right:
        raise Wrong(f"they stay different: {left!r} and {right!r}. Look for what it throws away")
    if a == b:
        raise Wrong("both texts are the same; expected other words that are *taken* for the same")
    if _plain(a) == _plain(b):
        raise Wrong("they differ in case, space or punctuation only; expected other *words*")
    if {_plain(a), _plain(b)} == {"o'brien", "zero brien"}:
        raise Wrong("that one was in the text above; find one of your own")
    return f"Both become {left!r}. Would a reader of your subtitles agree?"
