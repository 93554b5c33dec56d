"""What the set-up cell of a notebook runs where the course is not installed: on Colab, or Kaggle.

Such a machine comes with torch, torchaudio and numpy, chosen together, and its kernel has loaded
some of them before the first cell runs. Another version of one of them would mean gigabytes, a
restart, or an import error, so they stay as they are: pip adds what is missing and replaces what
is too old, and must not touch these. Only the standard library is used here, because nothing else
is sure to be there yet.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import invalidate_caches
from importlib.metadata import distributions, packages_distributions
from importlib.util import find_spec
from pathlib import Path

GIVEN = ("torch", "torchaudio", "numpy")  # without these the machine is not one of that kind
KEPT = (*GIVEN, "torchvision")  # transformers imports torchvision, too, wherever it finds it
NOT_NEEDED = ("jupyterlab", "nbval")  # the machine shows notebooks already; nbval only tests them


def setup() -> None:
    """Install the course this file belongs to into the running kernel, and go to its notebooks.

    Where `tiny_asr` can be imported already nothing is installed, so it is safe to call it again.

    Raises:
        RuntimeError: torch, torchaudio or numpy is not there, or pip failed; says what to do.
    """
    course = Path(__file__).resolve().parents[1]
    if find_spec("tiny_asr") is None:
        install(course)
    os.chdir(course / "notebooks")


def install(course: Path) -> None:
    """Install what the package at `course` lacks, then the package itself without dependencies."""
    before = installed()
    if absent := [name for name in GIVEN if name not in before]:
        raise RuntimeError(
            f"this Python has no {', '.join(absent)}, so it is not Colab or the like: "
            f"run `make lab` in {course}, or choose the kernel of an environment that has them"
        )
    print("installing the course; this takes about a minute ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{n}=={before[n]}\n" for n in KEPT if n in before))
        pip_install("--constraint", str(constraints), *requirements(course))
    pip_install("--no-deps", "--editable", str(course))
    sys.path.insert(0, str(course))  # a running kernel does not see a new editable install
    invalidate_caches()
    report(before, installed())


def requirements(course: Path) -> list[str]:
    """What the package and its notebooks need, by pyproject.toml, that pip may choose here."""
    project = tomllib.loads((course / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    settled = {*KEPT, *NOT_NEEDED}
    wanted = project["dependencies"] + project["optional-dependencies"]["course"]
    return [line for line in wanted if name_of(line) not in settled]


def name_of(requirement: str) -> str:
    """`"Huggingface_Hub>=1"` -> `"huggingface-hub"`, the one spelling that pip compares."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def installed() -> dict[str, str]:
    """Name -> version of every package; of two with one name the first counts, as for import."""
    found = reversed([package for package in distributions() if package.name])
    return {name_of(package.name): package.version for package in found}


def pip_install(*arguments: str) -> None:
    """Run `pip install`; what it says is only shown when it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"pip failed: run this cell again, or see why:\n{done.stdout[-2000:]}")


def report(before: dict[str, str], after: dict[str, str]) -> None:
    """Print what has changed, and ask for a restart where the kernel still holds an old version."""
    changed = sorted(name for name in after if before.get(name) != after[name])
    print("installed:", ", ".join(f"{name} {after[name]}" for name in changed))
    modules = packages_distributions().items()
    loaded = {name_of(name) for module, names in modules if module in sys.modules for name in names}
    if stale := sorted(loaded & set(changed)):
        print(f"Restart the session now (menu Runtime): it still uses the old {', '.join(stale)}.")
