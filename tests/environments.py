"""Run the unit tests on the lowest or the highest versions that pyproject.toml admits.

`python tests/environments.py lowest` takes every lower bound there (`torch>=2.6` becomes
`torch==2.6`), `highest` the newest that each upper bound allows; packages without a bound are the
newest both times. The environment stays in `.envs/`, so that a second run is quick; `make clean`
deletes it. Notebooks are not run: their stored outputs belong to the versions in constraints.txt.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENDS = ("lowest", "highest")
SHOWN = ("torch", "torchaudio", "transformers", "datasets", "accelerate", "numpy")


def make_environment(folder: Path, python: str = sys.executable) -> list[str]:
    """Make a virtual environment, unless it is there, and return the command that is its pip."""
    pip = folder / "bin" / "pip"  # pip comes last: where it is missing, making it broke off
    if not pip.exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
    return [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]


def requirements(end: str) -> list[str]:
    """pyproject's bounded dependencies as exact lowest versions, or as they stand."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounded = [line for line in project["dependencies"] if ">=" in line]
    if end == "highest":
        return bounded
    return [re.sub(r">=([\d.]+).*", r"==\1", line) for line in bounded]


def main(arguments: list[str]) -> int:
    """Install one end of the versions, say what it is, run the tests; pytest's exit code."""
    if len(arguments) != 1 or arguments[0] not in ENDS:
        print(f"environments: expected one of {', '.join(ENDS)}, not {arguments}", file=sys.stderr)
        return 2
    (end,) = arguments
    pip = make_environment(ROOT / ".envs" / end)
    wanted = requirements(end)
    print(f"{end}: installing {' '.join(wanted)}", flush=True)
    subprocess.run(
        [*pip, "install", "-q", "-U", "-e", f"{ROOT}[course,teach,dev]", *wanted], check=True
    )
    show = f"from importlib.metadata import version as v; print(*[n + ' ' + v(n) for n in {SHOWN}])"
    subprocess.run([pip[0], "-c", show], check=True)
    command = [pip[0], "-m", "pytest", "-q", "-n", "2", "--dist", "loadscope", "tests"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
