"""`pip install .` alone recognises, evaluates and trains: Jupyter and matplotlib come with extras."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_asr import data_dir, sample_clip

REPOSITORY = Path(__file__).resolve().parents[2]
HEARD = "she listens to the sea and its waves turning towards"
# What the extras `course`, `demo` and `teach` bring, as it is imported.
EXTRAS = ("matplotlib", "PIL", "IPython", "ipywidgets", "anywidget", "jupyterlab", "nbval")
EXTRAS += ("nbformat", "gradio")
# Runs commands one after the other; writes what each printed, and its exit status, as JSON.
PROGRAM = f"""
import contextlib, io, json, sys
for name in {EXTRAS}:
    sys.modules[name] = None  # as if it were not installed
from tiny_asr.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["tiny-asr", *arguments]
    with contextlib.redirect_stdout(io.StringIO(newline=None)) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            out.reconfigure = lambda **_: None
            try:
                main()
            except SystemExit as end:
                status = end.code
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""
TEST_CLIPS = ("--data", "DATA/speech/test.parquet", "--limit", "4")
COMMANDS = {
    "help": ("--help",),
    "info": ("info",),
    "transcribe": ("transcribe", "CLIP"),
    "trace": ("trace", "CLIP", "--out", "OUT/pictures"),
    "evaluate": ("evaluate", *TEST_CLIPS),
    "report": ("evaluate", *TEST_CLIPS, "--report", "OUT/report.html"),
    "train": ("train", *TEST_CLIPS, "--max-utterances", "8", "--out", "OUT/run", "--fresh"),
    "demo": ("demo", "--no-open"),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict[str, tuple[int, str, str]]:
    """Command -> its exit status, stdout and stderr where no extra is installed; `out`: a folder."""
    out = tmp_path_factory.mktemp("bare")
    places = {"DATA": str(data_dir()), "CLIP": str(sample_clip()), "OUT": str(out)}

    def placed(argument: str) -> str:
        return re.sub(r"\b(DATA|CLIP|OUT)\b", lambda found: places[found[0]], argument)

    commands = [[placed(argument) for argument in command] for command in COMMANDS.values()]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    results = map(json.loads, done.stdout.splitlines())
    return dict(zip(COMMANDS, map(tuple, results), strict=True)) | {"out": out}


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
    assert status in (0, None), err
    assert says in out


def test_a_trace_without_pictures_is_a_table_and_a_line_on_what_to_install(ran):
    status, out, err = ran["trace"]
    assert status in (0, None) and "audio_embeddings   1 x 30 x 288" in out and HEARD in out
    (line,) = err.splitlines()
    assert "without pictures" in line and "pip install 'tiny-asr[course]'" in line
    assert "wrote" not in out and not (ran["out"] / "pictures").exists()


@pytest.mark.parametrize(("command", "extra"), [("report", "course"), ("demo", "demo")])
def test_what_cannot_do_without_one_says_which(ran, command, extra):
    status, out, err = ran[command]
    assert status == 2 and out == ""
    (line,) = err.splitlines()
    assert f"pip install 'tiny-asr[{extra}]'" in line


@pytest.mark.slow  # 5 GB, and minutes where pip has not cached them
def test_pip_install_into_an_empty_environment_transcribes_and_brings_no_jupyter(tmp_path):
    python = tmp_path / "bare" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    constraints = ["-c", REPOSITORY / "constraints.txt"]
    subprocess.run([*pip, "install", "-q", *constraints, REPOSITORY], check=True, cwd=tmp_path)

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
