"""Notebook 06, evaluation: judges of the exercises."""

import re
import string

import jiwer
import numpy as np
import torch

from tiny_asr.course.checks import ask, exercise


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


@exercise("06-wer")
def wer(answer) -> str:
    """wer(errors, words) -> all errors / all words."""
    cases = (([1, 2], [10, 4]), ([0, 3, 0], [20, 2, 8]), ([2, 0, 1], [6, 3, 0]), ([3, 4], [1, 2]))
    for errors, words in cases:
        total, clips = sum(errors) / sum(words), list(zip(errors, words, strict=True))
        rates = [e / w for e, w in clips if w]
        with_words, at_least_one = sum(e for e, w in clips if w), sum(max(1, w) for w in words)
        causes = {
            "a WER has no upper limit: words that nobody said count, too": min(1, total),
            "this is the mean of the clips' rates; sum first, divide once": sum(rates) / len(rates),
            "the mean of the clips' rates is another number; sum first, divide once": (
                sum(rates) / len(words)
            ),
            "a fraction is asked for, not per cent": 100 * total,
            "this is the share of clips with an error": sum(e > 0 for e in errors) / len(errors),
            "divide by the words, not by the clips": sum(errors) / len(errors),
            "a clip without words adds 0 words, not 1": sum(errors) / at_least_one,
            "errors count in clips without words as well": with_words / sum(words),
        }
        ask("wer", answer, errors, words, expected=total, causes=causes)
    return "A clip of 20 words now counts ten times as much as one of 2."


@exercise("06-normal")
def normal(answer) -> str:
    """simplify(text) -> lower case, letters digits apostrophes, single spaces."""
    cases = {
        "Hello": "hello",
        "Twenty-one,  please!": "twenty one please",
        "  I DON'T\nknow... ": "i don't know",
        "wait--what? No. 7": "wait what no 7",
        "Señor,\tyou": "señor you",
        "take_2, please": "take 2 please",
        "\u201cHello\u201d \u2014 he said": "hello he said",
    }
    ascii_only = set("abcdefghijklmnopqrstuvwxyz0123456789'")

    def spaced(text, kept=lambda c: c.isalnum() or c == "'"):
        return "".join(c if kept(c) else " " for c in text)

    def single(text):
        return " ".join(text.split())

    for text, right in cases.items():
        lower = text.lower()
        plain = "".join(c for c in lower if c.isalnum() or c in "' \n\t")
        known = lower.translate({ord(c): " " for c in string.punctuation if c != "'"})
        no_apostrophes = single(spaced(lower).replace("'", ""))
        no_digits = single(spaced(lower, lambda c: c.isalpha() or c == "'"))
        causes = {
            "case is still there": single(spaced(text)),
            "a character that goes leaves a space: twenty-one is two words": single(plain),
            "several spaces in a row, or at the ends, are still there": spaced(lower),
            "several spaces in a row are still there": spaced(lower).strip(),
            "white space at the ends is still there": plain,
            "apostrophes are to be kept": single(spaced(lower).replace("'", " ")),
            "apostrophes are to be kept, like this one: don't": no_apostrophes,
            "there is more punctuation than string.punctuation has: ask `isalnum`": single(known),
            "punctuation is still there": single(lower),
            "the underscore is no letter, though \\w in a regular expression takes it for one": (
                single(re.sub(r"[^\w']", " ", lower))
            ),
            "digits are to be kept": no_digits,
            "letters are more than a to z: `isalnum` knows them all": (
                single(spaced(lower, ascii_only.__contains__))
            ),
        }
        ask("simplify", answer, text, expected=right, causes=causes, shown=repr(text))
    return "Three rules; Whisper's has hundreds more, most of them spellings."


@exercise("06-bootstrap")
def bootstrap(answer) -> str:
    """interval(errors, words, draws) -> (low, high) of the middle 95 % of the draws' WERs."""
    rng = np.random.default_rng(0)
    words = rng.integers(2, 20, 40)
    larger = rng.binomial(words, 0.3), words, rng.integers(40, size=(500, 40))
    small = [1, 0, 2], [4, 8, 2], [[0, 0, 1], [2, 1, 2], [1, 1, 1]]
    cases = {
        "[1, 0, 2], [4, 8, 2], [[0, 0, 1], [2, 1, 2], [1, 1, 1]]": map(np.array, small),
        "<errors of 40 clips>, <words of 40 clips>, <500 draws>": larger,
    }
    for shown, (errors, words, draws) in cases.items():
        drawn, of = errors[draws], words[draws]
        rates, flat = drawn.sum(axis=1) / of.sum(axis=1), drawn.sum() / of.sum()
        whole, columns = drawn.sum(axis=1) / words.sum(), drawn.sum(axis=0) / of.sum(axis=0)
        means, bell = (errors / words)[draws].mean(axis=1), 2 * rates.std()

        def middle(values, ends=(2.5, 97.5)):
            return np.percentile(values, ends)

        causes = {
            "this is the mean of the clips' rates; sum the errors and the words of a draw": (
                middle(means)
            ),
            "divide by the words of the same draw, not of all clips": middle(whole),
            "these are the 5th and the 95th percentile: the middle 90 %": middle(rates, [5, 95]),
            "np.percentile takes per cent: 2.5 and 97.5": middle(rates, [0.025, 0.975]),
            "these are the lowest and the highest rate": [rates.min(), rates.max()],
            "fractions are asked for, not per cent": middle(100 * rates),
            "sum over the clips of each draw, axis=1, not over all draws": [flat, flat],
            "sum over the clips of each draw, axis=1, not axis=0": middle(columns),
            "this is the WER plus and minus two standard deviations": [
                rates.mean() - bell,
                rates.mean() + bell,
            ],
        }
        given = {"expected": middle(rates), "causes": causes, "shown": shown}
        ask("interval", answer, errors, words, draws, **given)
    return "No formula, no bell curve: only drawing again."


@exercise("06-snr")
def snr(answer) -> str:
    """mix(speech, noise, snr_db) -> speech plus noise of the right power."""
    speech = torch.tensor([0.2, -0.4, 0.1, 0.3])
    noise = torch.tensor([0.1, 0.3, -0.1, 0.05])
    for snr_db in (10, 0, -6, 20):
        ratio = 10 ** (snr_db / 10)
        loud, soft = speech.square().mean(), noise.square().mean()
        powers = loud / soft
        factor = (powers / ratio).sqrt()
        right, with_20 = speech + factor * noise, powers.sqrt() * 10 ** (-snr_db / 10)
        no_decibels = (powers / snr_db).sqrt() if snr_db > 0 else 1
        factors = {
            "a factor multiplies the power by its square: take the square root": powers / ratio,
            "under the root stand powers, and theirs is 10 ** (snr_db / 10); with / 20 the root is "
            "taken already": (powers / ratio**0.5).sqrt(),
            "the sign: the higher the SNR, the softer the noise": (powers * ratio).sqrt(),
            "decibels of power are 10 * log10, not 20": with_20,
            "the noise's own power matters, too: divide by it": (loud / ratio).sqrt(),
            "the speech's power matters, too": (1 / soft / ratio).sqrt(),
            "the noise is not scaled": 1,
            "decibels are a logarithm: the ratio is 10 ** (snr_db / 10)": no_decibels,
        }
        causes = {cause: speech + each * noise for cause, each in factors.items()}
        causes |= {
            "this is the noise alone; add it to the speech": factor * noise,
            "the speech stays as it is; scale the noise": right / factor,
        }
        ask("mix", answer, speech, noise, snr_db, expected=right, causes=causes)
    return "At 0 dB both are equally strong; each 10 dB less is ten times the noise's power."


@exercise("06-rtfx")
def rtfx(answer) -> str:
    """rtfx(sound, took) -> seconds of sound for each second of computing."""
    for sound, took in (([10, 30], [1, 1]), ([60, 60], [2, 6]), ([5], [10])):
        whole = sum(sound) / sum(took)
        each = [s / t for s, t in zip(sound, took, strict=True)]
        mean = sum(each) / len(each)
        causes = {
            "this is upside down: sound divided by time": 1 / whole,
            "this is the mean of the batches' speeds; sum first, divide once": mean,
            "this is the fastest batch": max(each),
            "this is only the last batch": each[-1],
            "these are only the seconds of sound": sum(sound),
        }
        ask("rtfx", answer, sound, took, expected=whole, causes=causes)
    return "Now say beside it: which device, which number format, which batch."
