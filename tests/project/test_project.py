"""The set-up files agree with one another, the README's commands run, and a wheel stands alone.

These are the things that rot unseen, because whoever works on the project has everything installed.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml
from command_runs import run_commands
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tiny_asr

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
DEPENDENCIES = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
INSTALLED = ("course", "teach", "dev")  # by `make lab`
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

# What this machine's own checkout, home and package servers are called is nobody else's business.
PRIVATE = re.compile(
    r"(?<![\w.-])/(?:work|root|home|Users|opt)/|[A-Z]:\\Users"
    r"|pypi\.org|pythonhosted\.org|download\.pytorch\.org|conda\.anaconda\.org|npmjs\.org"
)
HEARD = "she listens to the sea and its waves turn into words"

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def fenced(language: str) -> list[str]:
    """The README's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a command as from a fresh shell with this environment active."""
    ours = ("TINY_ASR_DATA", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    settings = {name: value for name, value in os.environ.items() if name not in ours}
    settings["PATH"] = os.pathsep.join([str(BIN), settings["PATH"]])
    return subprocess.run(
        command, cwd=folder, env=settings | environment, capture_output=True, text=True, check=False
    )


def check(result: subprocess.CompletedProcess) -> str:
    """The command's output, once it is sure that it succeeded."""
    assert result.returncode == 0, f"{result.args}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def project_files() -> list[Path]:
    """Every file that is in git or would be with the next `git add`."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = check(run(command, REPOSITORY)).split("\0")
    return [path for name in names if name and (path := REPOSITORY / name).is_file()]


def checkout(folder: Path) -> Path:
    """A checkout to run commands in: what they write lands here, and it has no `.venv`."""
    for entry in REPOSITORY.iterdir():
        if entry.is_file():
            shutil.copy(entry, folder)
        elif entry.name in ("data", "notebooks", "tests", "tiny_asr"):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return checkout(tmp_path)


@needs_make
def test_conda_and_make_lab_install_the_course_what_teaching_needs_and_the_tests(workspace):
    wanted = f".[{','.join(INSTALLED)}]"
    assert f"pip install -c constraints.txt -e '{wanted}'" in " ".join(
        check(run(["make", "-n", "lab"], workspace)).split()
    )
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))
    *from_conda, from_pip = conda["dependencies"]
    assert from_conda == ["python" + PYPROJECT["project"]["requires-python"], "pip"]
    assert from_pip["pip"] == ["-c constraints.txt", f"-e {wanted}"]


def test_constraints_pin_every_direct_dependency_to_a_version_that_pyproject_allows():
    pins = {}
    for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        # Names and versions only: a download address would tie everyone to one server.
        pin = re.fullmatch(r'([\w.-]+)==(\d[\w.]*)(; sys_platform == "linux")?', line)
        assert pin, f"{line!r} is not NAME==VERSION"
        name = canonicalize_name(pin[1])
        assert name not in pins, f"{name} is pinned twice"
        pins[name] = pin[2]
    extras = [text for extra in INSTALLED for text in EXTRAS[extra]]
    for text in [*DEPENDENCIES, *extras, *PYPROJECT["build-system"]["requires"]]:
        wanted = Requirement(text)
        version = pins[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), f"{version} is pinned, {text} is asked for"
    assert pins["torch"] == pins["torchaudio"]


def test_the_installed_version_is_the_packages_own():
    assert importlib.metadata.version("tiny-asr") == tiny_asr.__version__


def test_the_citation_names_the_packages_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == tiny_asr.__version__


def test_the_licence_is_mit():
    assert PYPROJECT["project"]["license"] == "MIT"
    assert (REPOSITORY / "LICENSE").read_text(encoding="utf-8").startswith("MIT License\n")


def test_both_ci_systems_run_the_same_script():
    script = REPOSITORY / ".ci" / "run"
    assert {"make lint", "make test"} <= set(script.read_text(encoding="utf-8").splitlines())
    assert os.access(script, os.X_OK)
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["steps"][-1] == {"run": "bash .ci/run"}


def test_no_file_outside_data_is_larger_than_one_megabyte():
    outside = [path for path in project_files() if not path.is_relative_to(REPOSITORY / "data")]
    assert REPOSITORY / "README.md" in outside
    assert [path.name for path in outside if path.stat().st_size > 1_000_000] == []


def test_no_file_names_this_machine_or_a_package_server():
    found = []
    for path in project_files():
        content = path.read_bytes()
        if b"\0" in content:  # not text
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
            if match := PRIVATE.search(line):
                found.append(f"{path.relative_to(REPOSITORY)}:{number}: {match[0]}")
    assert found == []


def test_every_path_that_a_page_or_a_notebook_names_is_there():
    parts = (path.relative_to(REPOSITORY).parts for path in project_files())
    tops = "|".join(sorted({part[0] for part in parts if len(part) > 1}))
    named = re.compile(rf"`((?:{tops})/[\w./-]*)`")
    pages = [path for path in project_files() if path.suffix in (".md", ".ipynb", ".yml")]
    missing = {
        f"{page.relative_to(REPOSITORY)}: {name}"
        for page in pages
        if page.name != "CHANGELOG.md"  # tells of what was
        for name in named.findall(page.read_text(encoding="utf-8"))
        if not (REPOSITORY / name).exists() and not re.search("[A-Z]{4}", name)  # stands for any
        if name != "notebooks/runs"  # the lessons make it
    }
    assert missing == set()


@needs_make
def test_make_alone_lists_every_target(workspace):
    targets = re.search(r"^\.PHONY: (.*)$", (workspace / "Makefile").read_text(), re.MULTILINE)[1]
    listed = [line.split()[1] for line in check(run(["make"], workspace)).splitlines()]
    assert listed == targets.split()


@needs_make
def test_make_installs_once_and_again_only_when_the_packages_change(workspace):
    assert "pip install" in check(run(["make", "-n", "lab"], workspace))
    for name in ("bin/pip", ".installed"):
        (workspace / ".venv" / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / ".venv" / name).touch()
    planned = check(run(["make", "-n", "lab"], workspace))
    assert "pip install" not in planned and "--ip=127.0.0.1" in planned
    os.utime(workspace / ".venv/.installed", (0, 0))  # older than constraints.txt
    assert "pip install" in check(run(["make", "-n", "lab"], workspace))


@needs_make
def test_make_installs_from_the_wheelhouse_alone_where_there_is_one(workspace):
    assert "--no-index" not in check(run(["make", "-n", "lab"], workspace))
    (workspace / "wheelhouse").mkdir()
    (workspace / "wheelhouse/six-1.17.0-py3-none-any.whl").touch()
    planned = check(run(["make", "-n", "lab"], workspace))
    assert "pip install --no-index --find-links wheelhouse" in planned


@needs_make
def test_make_says_what_to_do_when_python_is_too_old(workspace):
    old = workspace / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")  # what Python 3.9 answers to the Makefile's question
    old.chmod(0o755)
    result = run(["make", "lab", "PYTHON=./python3.9"], workspace)
    assert result.returncode != 0
    assert "needs Python 3.11 or newer, and ./python3.9 is not" in result.stderr
    assert not (workspace / ".venv").exists()


LINES = "".join(fenced("bash")).splitlines()
# The benchmark takes a minute, and has tests of its own: here its options are read, and no more.
COMMANDS = [
    [*line.split()[1:], *(["--help"] if "benchmark" in line else [])]
    for line in LINES
    if line.startswith("tiny-asr ")
]


@needs_make
@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make")])
def test_make_knows_the_readmes_target(line, workspace):
    """What it would do: most install gigabytes or start a server, and `trace` is run below."""
    planned = check(run([*line.split(), "-n", "-o", ".venv/.installed"], workspace))
    assert ".venv/bin/" in planned
    if line == "make trace":
        assert planned == ".venv/bin/tiny-asr trace --out trace\n"


def test_the_readmes_commands_run(tmp_path):
    folder = checkout(tmp_path)
    assert "Usage: tiny-asr" in check(run(["tiny-asr", "--help"], folder))
    results = dict(zip(map(tuple, COMMANDS), run_commands(COMMANDS, folder), strict=True))
    assert [status for status, *_ in results.values()] == [0] * len(COMMANDS), results
    said = {command[0]: out for command, (_, out, _) in results.items()}
    assert {"--help", "info", "trace", "transcribe", "benchmark"} == said.keys()
    assert "tiny" in said["info"] and "Usage: tiny-asr benchmark" in said["benchmark"]
    assert json.loads(said["transcribe"])["files"][0]["text"] == HEARD
    pictures = {path.name for path in (folder / "trace").iterdir()}
    assert pictures == {"encoder_output.png", "projector_output.png", "journey.png"}


def test_a_wheel_in_an_empty_folder_runs_the_readmes_python_without_network(tmp_path):
    wheels, target, elsewhere = (tmp_path / name for name in ("wheels", "target", "elsewhere"))
    (elsewhere / "data").mkdir(parents=True)
    shutil.copy(REPOSITORY / "data/sample.flac", elsewhere / "data")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", str(REPOSITORY), "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    check(run(pip + build, elsewhere))
    (wheel,) = wheels.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert "tiny_asr/py.typed" in names  # so that a type checker believes the annotations
    folders = {name.split("/")[0] for name in names}
    assert folders == {"tiny_asr", f"tiny_asr-{tiny_asr.__version__}.dist-info"}
    check(run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], elsewhere))

    (block,) = fenced("python")
    program = f"""
from pathlib import Path
import tiny_asr
from tiny_asr import data_dir, sample_clip
target = Path({str(target)!r}).resolve()
for place in (Path(tiny_asr.__file__).resolve(), data_dir(), sample_clip()):
    assert place.is_relative_to(target), place
{block}"""
    home = {"HOME": str(elsewhere), "PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1"}
    text, shapes = check(run([sys.executable, "-c", program], elsewhere, **home)).splitlines()
    assert text == HEARD and shapes == "(1, 150, 256) (1, 30, 288)"


def test_executing_a_notebook_twice_writes_the_same_bytes(tmp_path):
    path = tmp_path / "widget.ipynb"
    cells = ["import ipywidgets", "ipywidgets.IntSlider(3)", "for i in range(3):\n    print(i)"]
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path
    )
    command = [sys.executable, str(REPOSITORY / "notebooks/execute.py"), str(path)]
    check(run(command, tmp_path))
    first = path.read_bytes()
    check(run(command, tmp_path))
    assert path.read_bytes() == first

    notebook = nbformat.reads(first.decode("utf-8"), as_version=4)
    assert "widgets" not in notebook.metadata
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
    assert notebook.cells[1].outputs[0].data == {"text/plain": "IntSlider(value=3)"}
    assert notebook.cells[2].outputs[0].text == "0\n1\n2\n"


def test_a_notebook_that_fails_is_left_as_it_was(tmp_path):
    path = tmp_path / "fails.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    result = run([sys.executable, str(REPOSITORY / "notebooks/execute.py"), str(path)], tmp_path)
    assert result.returncode == 1
    assert "ZeroDivisionError" in result.stdout
    assert path.read_bytes() == before
