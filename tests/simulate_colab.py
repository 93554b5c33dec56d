"""Run the set-up cell as Colab does, on a machine made to look like it: `make test-colab`.

A fresh environment gets the versions that Colab had in June 2026 (from its published list), and a
repository made of this checkout's files stands for the published one. Real kernels then start in an
empty folder, as Colab's do in /content: the set-up cell runs twice, the kernel is restarted and it
runs again, and the sample clip is transcribed. Then each notebook named by `--notebook` runs as a
whole. It fails when one of them does, or a version of torch, torchaudio or numpy has changed.
`--python` wants 3.12, Colab's version; any that the course allows will do. Takes minutes and 6 GB
in `.envs/colab`, which is deleted in the end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from environments import ROOT, make_environment
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

sys.path.insert(0, str(ROOT / "notebooks"))
from badges import set_address

COLAB = """
    pip==24.1.2 setuptools==75.2.0 torch==2.11.0 torchaudio==2.11.0 torchvision==0.26.0
    torchcodec==0.11.0 numpy==2.0.2 transformers==5.9.0 tokenizers==0.22.2 huggingface_hub==1.17.0
    safetensors==0.7.0 accelerate==1.13.0 datasets==4.0.0 pyarrow==18.1.0 pandas==2.2.2
    fsspec==2025.3.0 soundfile==0.13.1 matplotlib==3.10.0 pillow==11.3.0 PyYAML==6.0.3
    psutil==5.9.5 tqdm==4.67.3 typer==0.25.1 packaging==26.2 ipykernel==6.17.1 ipython==7.34.0
    ipywidgets==7.7.1 anywidget==0.9.21 traitlets==5.7.1 jupyter_client==7.4.9
    tornado==6.5.1 pyzmq==26.2.1
"""
KEPT = ("torch", "torchaudio", "numpy", "torchvision")
VERSIONS = f"""\
import json
from importlib.metadata import version
import numpy  # Colab's kernels have loaded it before the first cell
print(json.dumps({{name: version(name) for name in {KEPT}}}))"""
PLACE = "from pathlib import Path; print('in', Path.cwd().relative_to(Path.cwd().parents[1]))"
TRANSCRIBE = """\
from tiny_asr import ASRModel, sample_clip
print(ASRModel.from_pretrained("tiny").transcribe(sample_clip()))"""


def publish(folder: Path) -> None:
    """Make a bare repository of this checkout's files, its own address in the set-up cells."""
    work, bare = folder / "work", folder / "course.git"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, work / name)
    for path in (work / "notebooks").glob("[0-9]*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        set_address(notebook, bare.as_uri())
        nbformat.write(notebook, path)
    author = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "the course"]):
        subprocess.run(["git", *command], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, bare], check=True)
    shutil.rmtree(work / "data")  # what is read from now on are the notebooks


def run(python: str, content: Path, notebook: nbformat.NotebookNode) -> None:
    """Run a notebook in a new kernel of `python` that starts in the folder `content`."""
    manager = AsyncKernelManager(kernel_name="python3")
    manager.kernel_spec.argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    resources = {"metadata": {"path": str(content)}}
    try:
        NotebookClient(notebook, km=manager, timeout=900, resources=resources).execute()
    finally:
        run_sync(manager.shutdown_kernel)(now=True)  # nbclient ends only kernels that it made


def printed(cell: nbformat.NotebookNode) -> str:
    """What a cell printed."""
    return "".join(output.get("text", "") for output in cell.outputs).strip()


def simulate(python: str, lessons: list[str]) -> bool:
    """Make the machine, run everything, print what was seen; True when all is well."""
    machine = ROOT / ".envs" / "colab"
    shutil.rmtree(machine, ignore_errors=True)
    try:
        pip = make_environment(machine, python)
        print("making a machine with", *COLAB.split(), flush=True)
        subprocess.run([*pip, "install", "-q", *COLAB.split()], check=True)
        with tempfile.TemporaryDirectory() as folder:
            return steps(pip[0], Path(folder), lessons)
    finally:
        shutil.rmtree(machine, ignore_errors=True)


def steps(python: str, folder: Path, lessons: list[str]) -> bool:
    """The set-up cell twice, again after a restart, and whole notebooks, in kernels of `python`."""
    publish(folder)
    (content := folder / "content").mkdir()
    notebooks = {path.stem[:2]: path for path in (folder / "work/notebooks").glob("[0-9]*.ipynb")}
    cells = nbformat.read(notebooks["00"], as_version=4).cells
    (setup,) = (cell.source for cell in cells if "setup" in cell.metadata.get("tags", []))

    def kernel(*sources: str) -> list[str]:
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        start = time.perf_counter()
        try:
            run(python, content, notebook := nbformat.v4.new_notebook(cells=cells))
        finally:
            texts = [printed(cell) for cell in notebook.cells]
            print(f"\n--- a new kernel, {time.perf_counter() - start:.0f} s")
            print(*[text or "(nothing printed)" for text in texts], sep="\n", flush=True)
        return texts

    before, _, place, twice, after, _ = kernel(VERSIONS, setup, PLACE, setup, VERSIONS, TRANSCRIBE)
    assert place == "in tiny-asr-course/notebooks" and twice == "", "the second run does nothing"
    assert kernel(setup, PLACE) == ["", place], "after a restart it only goes to the notebooks"
    passed = []
    for lesson in lessons:
        start = time.perf_counter()
        try:
            run(python, content, nbformat.read(notebooks[lesson], as_version=4))
            passed.append(lesson)
            end = "ran to its end"
        except CellExecutionError as error:
            end = f"FAILED: {error.ename}: {error.evalue}, in\n{error.traceback[:500]}\n"
        print(f"notebook {lesson} {end} in {time.perf_counter() - start:.0f} s", flush=True)
    (last,) = kernel(VERSIONS)
    same = json.loads(before) == json.loads(after) == json.loads(last)
    print("\ntorch, torchaudio and numpy:", "unchanged" if same else "CHANGED")
    return same and passed == lessons


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="3.12 is Colab's")
    parser.add_argument("--notebook", nargs="*", default=["00"], help="to run whole: 00 03 ...")
    os.environ.pop("TINY_ASR_DATA", None)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # kernels would print a warning of theirs
    options = parser.parse_args()
    sys.exit(0 if simulate(options.python, options.notebook) else 1)
