"""`pip install .` recognises, evaluates and trains: Jupyter and matplotlib come with extras."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_runs import run_commands

from tiny_asr import data_dir

REPOSITORY = Path(__file__).resolve().parents[2]
HEARD = "she listens to the sea and its waves turn into words"
# What the extras `course`, `demo` and `teach` bring, as it is imported.
EXTRAS = ("matplotlib", "PIL", "IPython", "ipywidgets", "anywidget", "jupyterlab", "nbval")
EXTRAS += ("nbformat", "gradio")
TEST_CLIPS = ("--data", "data/speech/test.parquet", "--limit", "4")
COMMANDS = {
    "help": ("--help",),
    "info": ("info",),
    "transcribe": ("transcribe", "data/sample.flac"),
    "trace": ("trace", "data/sample.flac", "--out", "pictures"),
    "evaluate": ("evaluate", *TEST_CLIPS),
    "report": ("evaluate", *TEST_CLIPS, "--report", "report.html"),
    "train": ("train", *TEST_CLIPS, "--max-utterances", "8", "--out", "run", "--fresh"),
    "demo": ("demo", "--no-open"),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict[str, tuple[int, str, str]]:
    """Command -> exit status, stdout and stderr where no extra is installed; `out`: a folder."""
    out = tmp_path_factory.mktemp("bare")
    (out / "data").symlink_to(data_dir())
    results = run_commands(COMMANDS.values(), out, missing=EXTRAS)
    return dict(zip(COMMANDS, results, strict=True)) | {"out": out}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("help", "Usage: tiny-asr"),
        ("info", "device cpu"),
        ("transcribe", HEARD),
        ("evaluate", "WER"),
        ("train", "run"),
    ],
)
def test_the_command_needs_no_extra(ran, command, says):
    status, out, err = ran[command]
    assert status == 0, err
    assert says in out


def test_a_trace_without_pictures_is_a_table_and_a_line_on_what_to_install(ran):
    status, out, err = ran["trace"]
    assert status == 0 and "audio_embeddings   1 x 30 x 288" in out and HEARD in out
    (line,) = err.splitlines()
    assert "without pictures" in line and "pip install '.[course]'" in line
    assert "wrote" not in out and not (ran["out"] / "pictures").exists()


@pytest.mark.parametrize(("command", "extra"), [("report", "course"), ("demo", "demo")])
def test_what_cannot_do_without_one_says_which(ran, command, extra):
    status, out, err = ran[command]
    assert status == 2 and out == ""
    (line,) = err.splitlines()
    assert f"pip install '.[{extra}]'" in line


@pytest.mark.slow  # 5 GB, and minutes where pip has not cached them
def test_pip_install_into_an_empty_environment_transcribes_and_brings_no_jupyter(tmp_path):
    python = tmp_path / "bare" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    # Without constraints.txt, as somebody else's project would: the bounds alone must be right.
    subprocess.run([*pip, "install", "-q", REPOSITORY], check=True, cwd=tmp_path)

    def said(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    listed = said(*pip, "list", "--format=json")
    names = {package["name"].lower() for package in json.loads(listed)}
    assert {"tiny-asr", "torch", "transformers"} <= names
    unwanted = re.compile(r"jupyter|ipy|notebook|matplotlib|pillow|nb|anywidget|gradio|pytest")
    assert not [name for name in names if unwanted.match(name)]
    program = "from tiny_asr.cli.main import main; main()"
    clip = REPOSITORY / "data/sample.flac"
    assert said(python, "-I", "-c", program, "transcribe", clip).strip() == HEARD
