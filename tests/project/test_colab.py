"""The set-up cell: nothing where the course is installed; elsewhere the course, and no other torch.

Real git, pip and virtual environments, without a network: a machine that has "torch", "torchaudio"
and "numpy", and a folder of packages with newer ones, which a careless install would take. They are
all but empty packages with real metadata. `make test-colab` does the same with the real ones.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import colab
import nbformat
import pip
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("[0-9]*.ipynb"))
GIVEN = {"torch": "2.11.0+cu128", "torchaudio": "2.11.0+cu128", "numpy": "2.0.2"}
TOO_OLD = {"transformers": "5.9.0"}
# All that pip can find besides what the machine has: name, version, what it needs.
OFFERED = [
    ("torch", "2.10.0", ""),
    ("numpy", "2.4.6", ""),
    ("jiwer", "4.0.0", "numpy"),
    ("matplotlib", "3.10.0", "numpy"),
    ("transformers", "5.17.0", "numpy>=2"),
    ("transformers", "5.20.0", "numpy>=2.3"),  # would bring another numpy: not to be taken
    ("hungry", "1.0", "numpy>=2.3"),
]
# A small course. Its build backend needs nothing from the network, unlike the real one's.
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny-asr"
version = "0.1.0"
dependencies = ["torch>=2.6,<2.11", "torchaudio", "numpy", {needs}]
[project.optional-dependencies]
course = ["jupyterlab", "nbval", "matplotlib"]
"""
NEEDS = '"transformers>=5.17,<6", "jiwer"'
BACKEND = """
import zipfile
from pathlib import Path
{wheel}
def build_editable(folder, config_settings=None, metadata_directory=None):
    return wheel(folder, "tiny-asr", "0.1.0", "torch<2.11", ("course.pth", str(Path.cwd())))
"""
# Where we are and what is installed, one line of JSON each time.
LOOK = """
import importlib.metadata as m, json, os
print(json.dumps([os.getcwd(), {d.name: d.version for d in m.distributions()}]))
"""

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def wheel(folder, name: str, version: str, needs: str, extra: tuple[str, str] = ()) -> str:
    """Write a wheel with metadata and one empty module, or one other file; its file name."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {needs}\n" if needs else ""
    path = Path(folder) / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(*(extra or (f"{name}.py", "")))
        archive.writestr(f"{stem}.dist-info/METADATA", metadata)
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        names = [*archive.namelist(), f"{stem}.dist-info/RECORD"]
        archive.writestr(names[-1], "".join(f"{name},,\n" for name in names))
    return path.name


def setup_cell(path: Path):
    (first, *_) = (c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    return first


CELL = setup_cell(NOTEBOOKS[0]).source


class Machine:
    """A computer with one Python, a folder `content` where kernels start, and no network."""

    def __init__(self, folder: Path, packages: dict[str, str]):
        self.folder, self.content = folder, folder / "content"
        self.content.mkdir()
        (folder / "offered").mkdir()
        for package in OFFERED:
            wheel(folder / "offered", *package)
        venv.create(folder / "python", symlinks=True, with_pip=False)
        (site,) = (folder / "python").glob("lib/python*/site-packages")
        (site / "pip").symlink_to(Path(pip.__file__).parent)  # ensurepip takes longer than the rest
        for name, version in packages.items():
            with zipfile.ZipFile(folder / wheel(folder, name, version, "")) as archive:
                archive.extractall(site)

    def publish(self, needs: str = NEEDS) -> str:
        """Make a repository with a small course around the real `colab.py`; its address."""
        course = self.folder / "course"
        files = {
            "pyproject.toml": PYPROJECT.format(needs=needs),
            "backend.py": BACKEND.format(wheel=inspect.getsource(wheel)),
            "tiny_asr/__init__.py": "",
            "notebooks/colab.py": inspect.getsource(colab),
            "notebooks/00.ipynb": "{}",
        }
        for name, text in files.items():
            (course / name).parent.mkdir(parents=True, exist_ok=True)
            (course / name).write_text(text, encoding="utf-8")
        me = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
        for command in (["init", "-q"], ["add", "-A"], [*me, "commit", "-qm", "course"]):
            subprocess.run(["git", *command], cwd=course, check=True)
        return course.as_uri()

    def kernel(self, *cells: str, folder: Path | None = None) -> subprocess.CompletedProcess:
        """Run cells one after the other in one new process, as a kernel does."""
        settings = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
        settings |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        settings |= {"PIP_FIND_LINKS": str(self.folder / "offered")}
        program = "import sys\nfor cell in sys.argv[1:]:\n    exec(cell, globals())"
        command = [self.folder / "python/bin/python", "-c", program, *cells]
        return subprocess.run(
            command, cwd=folder or self.content, env=settings, capture_output=True, text=True
        )


def cell_with(address: str) -> str:
    """The set-up cell with this address, whatever `make badges` has put there."""
    return re.sub(r'^ADDRESS = ".*?"', f'ADDRESS = "{address}"', CELL, flags=re.MULTILINE)


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path, GIVEN | TOO_OLD)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_the_first_code_cell_and_the_same_in_every_notebook(path):
    cell = setup_cell(path)
    assert cell.metadata.tags == ["setup"] and cell.outputs == []
    assert cell.source == CELL


def test_where_the_course_is_installed_it_does_nothing(tmp_path):
    look = "\nimport os, sys\nassert 'tiny_asr' not in sys.modules\nprint(os.getcwd())"
    command = [
        sys.executable,
        "-c",
        "import sys\nexec(sys.argv[1])\nexec(sys.argv[1])",
        CELL + look,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(tmp_path.resolve())] * 2
    assert list(tmp_path.iterdir()) == []


def test_without_an_address_it_says_what_to_do(machine):
    done = machine.kernel(cell_with(""))
    assert (
        "ModuleNotFoundError: no tiny_asr in this kernel: `make lab`, or set ADDRESS" in done.stderr
    )
    assert list(machine.content.iterdir()) == []


@needs_git
def test_a_checkout_opened_with_a_wrong_kernel_is_not_cloned_into_itself(machine):
    cell = cell_with(machine.publish())
    done = machine.kernel(cell, folder=machine.folder / "course/notebooks")
    assert "no tiny_asr in this kernel: `make lab`" in done.stderr
    folder = machine.folder / "course/notebooks"
    assert sorted(path.name for path in folder.iterdir()) == ["00.ipynb", "colab.py"]


@needs_git
def test_a_machine_like_colab_gets_the_course_once_and_keeps_its_torch(machine):
    cell = cell_with(machine.publish())
    imported = "import tiny_asr, jiwer, pathlib; print(pathlib.Path(tiny_asr.__file__).parent)"
    done = machine.kernel(LOOK, cell, LOOK, cell, LOOK, imported)
    assert done.returncode == 0, done.stderr
    first, waiting, said, second, third, place = done.stdout.splitlines()
    clone = (machine.content / "tiny-asr-course").resolve()
    assert json.loads(first) == [str(machine.content.resolve()), GIVEN | TOO_OLD]
    assert waiting.startswith("installing the course")
    assert said == (
        "installed: jiwer 4.0.0, matplotlib 3.10.0, tiny-asr 0.1.0, transformers 5.17.0"
    )
    now = GIVEN | {"jiwer": "4.0.0", "matplotlib": "3.10.0"}
    now |= {"tiny-asr": "0.1.0", "transformers": "5.17.0"}
    assert json.loads(second) == json.loads(third) == [str(clone / "notebooks"), now]
    assert place == str(clone / "tiny_asr")

    restarted = machine.kernel(cell, LOOK, imported)
    assert restarted.returncode == 0, restarted.stderr
    third, place = restarted.stdout.splitlines()
    assert json.loads(third) == [str(clone / "notebooks"), now] and place == str(clone / "tiny_asr")


@needs_git
def test_a_package_replaced_under_a_running_kernel_asks_for_a_restart(machine):
    done = machine.kernel("import transformers, torch", cell_with(machine.publish()))
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last == "Restart the session now (menu Runtime): it still uses the old transformers."


@needs_git
def test_what_needs_another_numpy_is_refused_and_nothing_moves(machine):
    done = machine.kernel(cell_with(machine.publish(f'{NEEDS}, "hungry"')))
    assert "RuntimeError: pip failed" in done.stderr and "numpy>=2.3" in done.stderr
    assert json.loads(machine.kernel(LOOK).stdout)[1] == GIVEN | TOO_OLD


@needs_git
def test_a_python_without_torch_is_told_of_make_lab(tmp_path):
    machine = Machine(tmp_path, {"numpy": "2.0.2"})
    done = machine.kernel(cell_with(machine.publish()))
    assert "RuntimeError: this Python has no torch, torchaudio" in done.stderr
    assert "run `make lab` in " in done.stderr
    assert json.loads(machine.kernel(LOOK).stdout)[1] == {"numpy": "2.0.2"}


def test_pip_is_asked_for_the_real_dependencies_but_for_those_settled():
    asked = {colab.name_of(line) for line in colab.requirements(REPOSITORY)}
    assert {"transformers", "datasets", "jiwer", "huggingface-hub", "matplotlib"} <= asked
    settled = {*colab.GIVEN, *colab.NOT_NEEDED}
    assert not asked & settled
    listed = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f'"{name}' in listed for name in settled)


def test_of_two_packages_with_one_name_the_first_on_the_path_counts(tmp_path, monkeypatch):
    for folder, version in (("second", "1.0"), ("first", "2.0")):
        (tmp_path / folder).mkdir()
        with zipfile.ZipFile(tmp_path / wheel(tmp_path, "twice", version, "")) as archive:
            archive.extractall(tmp_path / folder)
        monkeypatch.syspath_prepend(tmp_path / folder)
    assert colab.installed()["twice"] == "2.0"
