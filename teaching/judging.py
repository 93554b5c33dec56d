"""One student's answers, judged in a process of their own: `python -m teaching.judging JOB`.

`grading` starts this program, gives it a JSON file of answers, and kills it where one takes
too long. Students' code is code: it may loop, fill the memory, print for ever, or stop the process.
What it prints goes nowhere; the verdicts leave on a copy of standard output, a line of JSON after
each answer, so that the grader knows which one it was that never came to an end.

This keeps accidents apart, and cheap tricks out. It is no sandbox: the answers run in the same
process as the checks, as the user who grades.
"""

import builtins
import io
import json
import linecache
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from tiny_asr.course import checks

LARGEST_FILE = 100_000_000  # bytes that an answer may write into one file
KEPT = 10_000  # characters of what is printed while an answer is judged
MEDDLED = "! the answer changes"


class Tail(io.StringIO):
    """A stream that keeps the end of what is written to it: at least `KEPT` characters."""

    def write(self, text: str) -> int:
        super().write(text[-KEPT:])
        if self.tell() > 2 * KEPT:
            end = self.getvalue()[-KEPT:]
            self.seek(0)
            self.truncate()
            super().write(end)
        return len(text)


def limit(memory_bytes: int) -> None:
    """Bound this process's memory and the files it writes, where the platform can: Linux."""
    try:
        import resource
    except ImportError:
        return
    for kind, most in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        allowed = resource.getrlimit(kind)[1]
        most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(kind, (most, most))


def seals(identifier: str) -> dict:
    """What an answer must leave as it is: the functions that judge it, as objects and as code."""
    modules = (checks, checks.lesson_of(identifier), np, builtins)
    return {
        f"{module.__name__}.{name}": (value, getattr(value, "__code__", None))
        for module in modules
        for name, value in vars(module).items()
        if callable(value)
    }


def judged(identifier: str, answer: str, code: str, check: str) -> str:
    """The line that the course's check cell prints about an answer; "! ..." where it cannot say.

    Args:
        identifier: of the exercise.
        answer: the name that the code shall define.
        code: the student's cell and what it needs.
        check: the source of the course's check cell.
    """
    before, namespace, said = seals(identifier), {"__name__": "__main__"}, Tail()
    name = f"<{identifier}>"
    linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name
    with redirect_stdout(said):
        try:
            exec(compile(code, name, "exec"), namespace)
        except BaseException as error:
            # Code below the answer may fail: in the notebook, too, the check looks at the answer.
            if answer not in namespace or not isinstance(error, Exception):
                return f"! {stopped(error)}"
        try:
            exec(check, namespace | {"check": checks.check})
        except BaseException as error:
            return f"! {stopped(error)}"
        kept = sys.stdout is said
    after = seals(identifier)
    changed = [key for key in before if after.get(key) != before[key]]
    if changed or not kept:
        return f"{MEDDLED} {changed[0] if changed else 'sys.stdout'}"
    line = said.getvalue().splitlines()[-1]
    return line.replace(f" {identifier}:", "", 1)


def stopped(error: BaseException) -> str:
    """What stopped the code, on one line."""
    place = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
    words = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"the cell stopped with {type(error).__name__}: {words}{place}".split())


def main() -> None:
    """Say that it begins, then judge every answer of the job and tell what the check said."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    def tell(*message: str) -> None:
        print(json.dumps(message), file=channel, flush=True)

    for answer in job["answers"]:  # first, so that no answer's time pays for it
        checks.judge_of(answer["identifier"])
    limit(job["memory_bytes"])
    tell("ready")
    for answer in job["answers"]:
        tell(answer["identifier"], judged(**answer))
    os._exit(0)  # threads that an answer started would keep the process alive


if __name__ == "__main__":
    main()
