"""The self-checks under the exercises: one line that helps, never a traceback.

A check says what came, what was expected and, where the mistake is a known one, its likely cause. A
stub that still returns `...` is "not attempted yet", so that a notebook runs from top to bottom.
The exercises of notebook 01 are declared in `exercises.lesson_01`, and so on: a function
`judge(answer)` under `@exercise("01-frames")`, which calls `ask` or `expect` as often as it likes
and may return a sentence for the tick line.
"""

import os
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from importlib import import_module

import numpy as np

LONGEST = 80  # characters of a value in a line

_judges: dict[str, Callable] = {}
_right: dict[str, object] = {}  # answers that have passed


class NotAttempted(Exception):
    """The answer, or what it returned, is still `...`."""


class Wrong(Exception):
    """The answer is wrong; the message is the line that the student reads."""


def exercise(identifier: str):
    """Decorate the judge of one exercise; `identifier` begins with the notebook's number."""

    def register(judge: Callable) -> Callable:
        _judges[identifier] = judge
        return judge

    return register


def check(identifier: str, answer) -> None:
    """Print one line about an answer: not attempted yet, a tick, or what is wrong with it.

    Args:
        identifier: of the exercise, such as "01-frames".
        answer: the student's function or value. Whatever it is or does, nothing is raised.
    Raises ValueError for an identifier that no lesson declares.
    """
    judge = judge_of(identifier)
    try:
        attempted(answer)
        praise = judge(answer)
    except NotAttempted:
        print(f"○ {identifier}: not attempted yet")
    except Wrong as wrong:
        print(f"✗ {identifier}: {wrong}")
    except Exception as error:
        print(f"✗ {identifier}: {_stopped(error)}")
    else:
        _right[identifier] = answer
        print(f"✓ {identifier}: right. {praise or ''}".rstrip())


def passed(identifier: str, ours):
    """The student's answer to an exercise once its check has passed; until then `ours`. What a
    student's function gives, float64 or an array of numpy, comes as the tensors that it got."""
    answer = _right.get(identifier, ours)
    if answer is ours or not callable(answer):
        return answer

    def theirs(*given):
        came, tensors = answer(*given), [x for x in given if hasattr(x, "new_tensor")]
        if not tensors or _numbers(came) is None or "int" in str(getattr(came, "dtype", "int")):
            return came
        return came.to(tensors[0]) if hasattr(came, "to") else tensors[0].new_tensor(came)

    return theirs


def lesson_of(identifier: str):
    """The module that declares a notebook's exercises: "01" or "01-frames"."""
    name = f"tiny_asr.course.exercises.lesson_{identifier[:2]}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # the lesson is there, and something that it imports is not
            raise
        raise ValueError(f"{identifier!r} came; expected the number of a notebook first") from error


def judge_of(identifier: str) -> Callable:
    """The judge of one exercise."""
    lesson_of(identifier)
    if identifier not in _judges:
        known = ", ".join(sorted(key for key in _judges if key[:2] == identifier[:2]))
        raise ValueError(f"{identifier!r} came; expected one of the exercises {known}")
    return _judges[identifier]


def attempted(answer) -> None:
    """Raise NotAttempted for `...`, also where it is only a part of the answer."""
    parts = answer if isinstance(answer, list | tuple) else [answer]
    if any(part is ... for part in parts):
        raise NotAttempted


def listed(answer, count: int, what: str) -> list:
    """An answer of so many items as a list, whether a list, a tuple, an array or a tensor came."""
    items = answer.tolist() if hasattr(answer, "tolist") else answer
    if not isinstance(items, list | tuple) or len(items) != count:
        raise Wrong(f"{describe(answer)} came; expected {what}")
    return list(items)


def yours(answer, ours):
    """What a student's code gave, or ours while it is not attempted yet."""
    return ours if answer is ... else answer


def ask(name: str, answer: Callable, *given, expected, causes=None, shown: str = "") -> None:
    """Call a student's function with copies of what is `given`, and `expect` its result.

    Args:
        name: of the function, for the line.
        expected, causes: as `expect` takes them.
        shown: the arguments, where they are too long to be shown as they are.
    """
    call = f"{name}({shown or ', '.join(map(describe, given))})"
    expect(call, answer(*deepcopy(given)), expected, causes)


def expect(
    call: str, came, expected, causes: Mapping[str, object] | None = None, tolerance: float = 1e-4
) -> None:
    """Go on if `came` is right; else raise what the student shall read.

    Args:
        call: what was asked, as the student would write it: "hz_to_mel(1000)".
        came, expected: numbers, arrays, tensors, (nested) lists of these, or any other values.
        causes: likely cause -> the value that it leads to.
        tolerance: of numbers, relative to the largest expected one.
    Raises NotAttempted or Wrong.
    """
    attempted(came)
    if _same(came, expected, tolerance):
        return
    ours, theirs = describe(came), describe(expected)
    where, how_many = _difference(came, expected, tolerance)
    line = f"{call} gave {ours}; expected {theirs if theirs != ours else 'something else'}"
    if where and theirs == ours:  # told by its shape alone, which is right
        shape = _numbers(came).shape
        line, where = f"{call} gave the right shape {shape}, but other values: {where}", ""
    for cause, value in (causes or {}).items():
        if _same(came, value, tolerance):
            raise Wrong(f"{line}. Likely cause: {cause}.")
    if came is None:
        raise Wrong(f"{line}. Likely cause: the function does not return its result.")
    raise Wrong(f"{line}{where and ': '}{where}{how_many}.")


def expect_mistakes(came: Iterable, right: str, why: Sequence[str]) -> None:
    """Go on if three letters name the mistakes in three faulty results; else say what speaks
    against the first wrong one. `came`: the student's letters. right: ours. why: what each of the
    results shows."""
    letters = [str(letter).strip(" .)").lower() for letter in came]
    expect("the number of letters", len(letters), len(right))
    places = ("the first", "the second", "the third")
    for place, letter, ours, reason in zip(places, letters, right, why, strict=True):
        if letter != ours:
            raise Wrong(f"{place} is not {letter!r}: {reason}. Which mistake leaves that?")


def describe(value) -> str:
    """A value in a few words: numbers as they are, long arrays by their shape."""
    numbers = _numbers(value)
    if numbers is None or isinstance(value, bool):
        text = " ".join(repr(value).split())
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    if numbers.ndim == 0:
        return f"{numbers:.0f}" if np.isfinite(numbers) and numbers % 1 == 0 else f"{numbers:.6g}"
    if numbers.size > 8:
        return f"numbers of shape {numbers.shape}"
    if np.isfinite(numbers).all() and (numbers % 1 == 0).all():
        numbers = numbers.astype(int)  # 5, not 5.
    text = np.array2string(numbers, precision=4, suppress_small=True, separator=", ")
    return re.sub(r"\s+(?=[],])|(?<=\[)\s+", "", " ".join(text.split()))  # not in columns


def _difference(came, expected, tolerance: float) -> tuple[str, str]:
    """Where two arrays of the same shape first differ, and in how many numbers."""
    ours, theirs = _numbers(came), _numbers(expected)
    if ours is None or theirs is None or ours.ndim == 0 or ours.shape != theirs.shape:
        return "", ""
    off = _off(ours, theirs, tolerance)
    place = tuple(np.argwhere(off)[0].tolist())
    first = f"{ours[place]:.6g} at {list(place)}, expected {theirs[place]:.6g}"
    return first, f" ({int(off.sum())} of {off.size} are off)"


def _same(came, expected, tolerance: float) -> bool:
    ours, theirs = _numbers(came), _numbers(expected)
    if ours is None or theirs is None:
        return ours is None and theirs is None and bool(came == expected)
    return ours.shape == theirs.shape and not _off(ours, theirs, tolerance).any()


def _off(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> np.ndarray:
    """Which numbers are off; counts must be exact, however large they are."""
    finite = np.abs(theirs[np.isfinite(theirs)])
    slack = tolerance * (finite.max(initial=0.0) or 1.0)
    if (finite % 1 == 0).all():
        slack = min(slack, 1e-3)
    return ~np.isclose(ours, theirs, rtol=0, atol=slack, equal_nan=True)


def _numbers(value) -> np.ndarray | None:
    """As float64 (True is 1), or None if it holds anything but numbers."""
    if hasattr(value, "detach"):  # a tensor, without importing torch for it
        value = value.detach().cpu().double().numpy()
    try:
        if isinstance(value, list | tuple):
            value = [_numbers(part) for part in value]
        array = np.asarray(value)
    except ValueError:  # rows of unlike lengths
        return None
    return array.astype(np.float64) if array.dtype.kind in "biuf" else None


def _stopped(error: Exception) -> str:
    """An exception of the student's code as one line, with the line of code that raised it."""
    ours = os.path.dirname(os.path.dirname(__file__))  # the package
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith(ours) and "site-packages" not in f[0]]
    where = f" in `{theirs[-1].line}`" if theirs and theirs[-1].line else ""
    message = " ".join(str(error).split())
    return f"your code stopped with {type(error).__name__}: {message}{where}"
