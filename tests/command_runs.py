"""Several `tiny-asr` commands in one process of their own, which loads the libraries once."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

PROGRAM = """
import contextlib, io, json, sys
commands, missing = map(json.loads, sys.argv[1:])
sys.modules |= dict.fromkeys(missing)  # to import one of them fails, as if it were not installed
from tiny_asr.cli.main import main
for command in commands:
    sys.argv = ["tiny-asr", *command]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    print(json.dumps([status, *(stream.buffer.getvalue().decode() for stream in (out, err))]))
"""


def run_commands(
    commands: Iterable[Sequence[str]], folder: Path, missing: Sequence[str] = ()
) -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of `tiny-asr COMMAND` for each command, run in a folder.

    Args:
        commands: arguments of `tiny-asr`; one may use what those before it wrote.
        folder: where they run.
        missing: modules that cannot be imported there.
    """
    arguments = [json.dumps([list(command) for command in commands]), json.dumps(list(missing))]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]
