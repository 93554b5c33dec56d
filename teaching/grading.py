"""Grade the notebooks of a class: every answer judged by the course's checks, in a subprocess.

One process judges all answers of one student, since importing torch takes longer than they do. If
an answer takes too long or ends the process, it is named, and a new process goes on with the next.
The process gets an empty folder of its own as working directory and home, no network for models,
no secrets from the environment, and bounds on time and (on Linux) memory.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from queue import Empty, Queue
from tempfile import TemporaryDirectory
from typing import NamedTuple

from teaching.judging import MEDDLED
from teaching.submissions import Lesson, Submission, code_cells, find_answer, standalone

PASSED, FAILED, NOT_ATTEMPTED = "passed", "failed", "not attempted"
ERROR, TIMEOUT, MISSING = "error", "timeout", "missing"
NOT_HANDED_IN = "not handed in"
MARKS = {PASSED: "✓", FAILED: "✗", NOT_ATTEMPTED: "○", ERROR: "!", TIMEOUT: "t", MISSING: "-"}
RESULTS = {mark: result for result, mark in MARKS.items()}  # a check's line begins with its mark
SECONDS_TO_START = 300  # torch from a slow disk
SECRET = re.compile("TOKEN|SECRET|PASSWORD|CREDENTIAL|KEY", re.IGNORECASE)


class Grade(NamedTuple):
    """The result of one student's exercise, and what the check, or the grader, said about it."""

    student: str
    notebook: str
    exercise: str
    result: str
    said: str = ""


def grade_class(
    submissions: list[Submission], seconds: float, memory_bytes: int
) -> Iterator[list[Grade]]:
    """Grade a class, a student at a time; for each the grades of all lessons handed in by anyone.

    Args:
        submissions: sorted by student, as `find_submissions` returns them.
        seconds: that one answer may take.
        memory_bytes: that a student's process may take.
    """
    lessons = {each.lesson.stem: each.lesson for each in submissions}
    for student, theirs in groupby(submissions, key=lambda each: each.student):
        handed_in = {each.lesson.stem: each.path for each in theirs}
        answers, settled = [], []
        for stem in sorted(lessons):
            given, others = answers_in(handed_in.get(stem), lessons[stem])
            answers += given
            settled += others
        known = dict(settled)
        for answer, result in zip(answers, judge(answers, seconds, memory_bytes), strict=True):
            known[answer["identifier"]] = result
        yield [
            Grade(printable(student), stem, exercise.identifier, *known[exercise.identifier])
            for stem in sorted(lessons)
            for exercise in lessons[stem].exercises
        ]


def answers_in(path: Path | None, lesson: Lesson) -> tuple[list[dict], list[tuple]]:
    """The answers to judge in a student's notebook; and (ID, (result, reason)) of the others."""
    identifiers = [exercise.identifier for exercise in lesson.exercises]
    if path is None:
        return [], [(key, (MISSING, NOT_HANDED_IN)) for key in identifiers]
    try:
        cells = code_cells(path)
    except ValueError as error:
        return [], [(key, (ERROR, str(error))) for key in identifiers]
    answers, missing = [], []
    for exercise in lesson.exercises:
        place = find_answer(cells, exercise)
        if place is None:
            said = f"no cell up to its check defines `{exercise.answer}`"
            missing.append((exercise.identifier, (MISSING, said)))
            continue
        above = ["from IPython.display import display", lesson.imports, *cells[:place]]
        code = standalone(cells[place], above)
        fields = {"identifier": exercise.identifier, "answer": exercise.answer}
        answers.append(fields | {"code": code, "check": exercise.check})
    return answers, missing


def judge(answers: list[dict], seconds: float, memory_bytes: int) -> Iterator[tuple[str, str]]:
    """The result of each answer, in order, and what was said about it."""
    while answers:
        # Windows can't delete a folder in which a process, just killed, still is.
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            job = Path(folder) / "job.json"
            job.write_text(json.dumps({"answers": answers, "memory_bytes": memory_bytes}))
            identifiers = [answer["identifier"] for answer in answers]
            with Judge(job) as process:
                judged = list(process.results(identifiers, seconds))
        yield from judged
        answers = answers[len(judged) :]


def printable(text: str) -> str:
    """On one line, without the control characters that move a terminal's cursor or colour it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class Judge:
    """A process of `judging`, as a context: at its end the process is gone."""

    def __init__(self, job: Path):
        home = job.parent / "home"
        home.mkdir()
        secret = {name for name in os.environ if SECRET.search(name)}
        environment = {name: v for name, v in os.environ.items() if name not in secret}
        environment |= dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), str(home))
        environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        # The package must be found from another folder and another home, too.
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(each) for each in sys.path)
        if data := environment.get("TINY_ASR_DATA"):
            environment["TINY_ASR_DATA"] = os.path.abspath(data)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-X", "utf8", "-m", "teaching.judging", str(job)],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.lines: Queue = Queue(maxsize=1000)  # a flood of them must not fill the memory
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """Carry the process's lines to the queue: reading a pipe has no timeout, a queue has."""
        while line := self.process.stdout.readline(100_000):
            self.lines.put(line)
        self.lines.put(b"")

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_) -> None:
        if hasattr(os, "killpg"):  # with what the answers started
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def results(self, identifiers: list[str], seconds: float) -> Iterator[tuple[str, str]]:
        """The results of the answers, up to the first that the process did not survive whole."""
        if self._next(SECONDS_TO_START) != ["ready"]:
            raise RuntimeError("the process that judges the answers did not start")
        for identifier in identifiers:
            try:
                message = self._next(seconds)
            except Empty:
                yield TIMEOUT, f"stopped after {seconds:g} s: a loop without an end?"
                return
            match message:
                case [key, str(line)] if key == identifier and line[:1] in RESULTS:
                    yield RESULTS[line[0]], printable(line[1:])
                case _:
                    yield ERROR, "the answer ended the process, or meddled with it"
                    return
            if line.startswith(MEDDLED):
                return

    def _next(self, seconds: float) -> object:
        """The next message of the process; None if it is no message. Raises queue.Empty."""
        try:
            return json.loads(self.lines.get(timeout=seconds))
        except ValueError:
            return None


def write_csv(path: Path, grades: list[Grade]) -> None:
    """One line for each student and exercise. Raises ValueError if it can't be written."""
    try:
        with path.open("w", newline="", encoding="utf-8-sig") as file:  # as spreadsheets like it
            writer = csv.writer(file)
            writer.writerow(Grade._fields)
            writer.writerows(grades)
    except OSError as error:
        raise ValueError(
            f"cannot write '{path}' ({error.strerror}); choose another --out"
        ) from error
