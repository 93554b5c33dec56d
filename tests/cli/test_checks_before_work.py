"""What can't end well is refused before work starts, in one line; what was measured is not lost.

A table of inputs and outcomes: `load` in place of the model's loading fails, so whatever is refused
here was refused before minutes were spent.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures_models import checkpoint_dir
from small_runs import clips, some_rows, write_rows
from test_commands import tiny_asr  # noqa: F401 (a fixture)

from tiny_asr import ASRModel
from tiny_asr.evaluation.score import Result, Row, score
from tiny_asr.search.beam import MOST_BEAMS

EVALUATE = ("evaluate", "--model", checkpoint_dir(), "--data", clips(), "--device", "cpu")
TRAIN = ("train", "--data", clips(), "--device", "cpu")
NULL, LATIN = "n\0ull", "caf\udce9"  # the second is what Python makes of Latin-1 bytes in a name


def result_of(rows: list[Row]) -> Result:
    return score(rows, seconds_elapsed=None, device="cpu", dtype="float32")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with a FILE, a FOLDER, and baselines; nothing in it may change."""
    (tmp_path / "FILE").write_text("precious")
    (tmp_path / "FOLDER").mkdir()
    rows = [Row(row["id"], row["text"], row["text"], 1.0) for row in some_rows()]
    baselines = {
        "same": rows,
        "fewer": rows[:6],
        "more": [*rows, Row("another", "the cat", "the cat", 1.0)],
        "other-texts": [Row(row.id, f"not {row.reference}", "", 1.0) for row in rows],
        "silent": [Row(row.id, "", "", 1.0) for row in rows],
    }
    for name, chosen in baselines.items():
        (tmp_path / f"{name}.json").write_text(result_of(chosen).to_json())
    write_rows(tmp_path / "silent.parquet", [row | {"text": ""} for row in some_rows()])
    (tmp_path / "broken.json").write_text('{"wer": 0.1}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ASRModel, "from_pretrained", lambda *_, **__: pytest.fail("work began"))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*EVALUATE, "--out", "FOLDER"), "--out 'FOLDER': it is a folder or a device; expected"),
        ((*EVALUATE, "--out", "/dev/full"), "--out '/dev/full': it is a folder or a device"),
        ((*EVALUATE, "--out", "nowhere/r.json"), "--out 'nowhere/r.json': there is no folder"),
        ((*EVALUATE, "--out", "FILE/r.json"), "--out 'FILE/r.json': FILE is a file"),
        ((*EVALUATE, "--out", LATIN), "--out 'caf\\udce9': its name is not UTF-8"),
        ((*EVALUATE, "--out", "n" * 300), "File name too long"),
        ((*EVALUATE, "--out", NULL), "--out': Value error, embedded null byte"),
        ((*EVALUATE, "--report", "FOLDER"), "--report 'FOLDER': it is a folder or a device"),
        ((*EVALUATE, "--report", "nowhere/r.html"), "there is no folder nowhere"),
        ((*EVALUATE, "--report", LATIN), "its name is not UTF-8"),
        ((*EVALUATE, "--baseline", "nowhere.json"), "nowhere.json is not an evaluation result"),
        ((*EVALUATE, "--baseline", "FOLDER"), "FOLDER is not an evaluation result"),
        ((*EVALUATE, "--baseline", "broken.json"), "broken.json is not an evaluation result"),
        ((*EVALUATE, "--baseline", NULL), "--baseline': Value error, embedded null byte"),
        ((*EVALUATE, "--baseline", "fewer.json"), "not measured on the same rows: 6 ids"),
        ((*EVALUATE, "--baseline", "more.json"), "1 ids (another) only in the baseline"),
        ((*EVALUATE, "--baseline", "other-texts.json"), "with another reference"),
        (
            (*EVALUATE[:3], "--data", "silent.parquet", "--no-speech", "--baseline", "silent.json"),
            "no reference holds a word",
        ),
        ((*EVALUATE, "--model", NULL), "model 'n\\x00ull' was not found"),
        ((*EVALUATE, "--data", NULL), "there is no file or folder"),
        ((*EVALUATE, "--data", LATIN), "caf"),
        ((*EVALUATE, "--noise-data", NULL, "--snr-db", "3"), "there is no file or folder"),
        (
            (*EVALUATE, "--out", "r", "--report", "FOLDER/../r"),
            "--out and --report are both r; expected two files",
        ),
        ((*EVALUATE, "--batch-seconds", "nan"), "nan came; expected a finite number"),
        ((*EVALUATE, "--batch-seconds", "inf"), "inf came; expected a finite number"),
        ((*EVALUATE, "--ctc-weight", "inf"), "inf came; expected a finite number"),
        ((*EVALUATE, "--snr-db", "nan", "--noise-data", clips()), "nan came; expected a finite"),
        (("benchmark", "--batch-seconds", "inf"), "inf came; expected a finite number"),
        (("benchmark", "--gpus", "0"), "Invalid value for '--gpus'"),
        (("demo", "--port", "99999"), "Invalid value for '--port'"),
        (("demo", "--beams", "0"), "Invalid value for '--beams'"),
        (("demo", "--beams", MOST_BEAMS + 1), "Invalid value for '--beams'"),
        ((*TRAIN, "--out", "run", "--gpus", "FILE"), "--gpus FILE came without --plan; expected"),
        ((*TRAIN, "--out", "FILE"), "--out 'FILE': FILE is a file; expected a folder"),
        ((*TRAIN, "--out", "FILE/run"), "--out 'FILE/run': FILE is a file; expected a folder"),
        ((*TRAIN, "--out", "/dev/full"), "--out '/dev/full': /dev/full is a file; expected"),
        ((*TRAIN, "--out", NULL), "--out 'n\\x00ull': its name holds a null character"),
        ((*TRAIN, "--out", LATIN), "--out 'caf\\udce9': its name is not UTF-8"),
        ((*TRAIN, "--out", "n" * 300), "File name too long"),
        ((*TRAIN, "--out", "run", "--cache", "FILE"), "--cache 'FILE': FILE is a file; expected"),
        ((*TRAIN, "--out", "run", "--cache", "FILE/a/b"), "--cache 'FILE/a/b': FILE is a file"),
        ((*TRAIN, "--out", "run", "--cache", NULL), "its name holds a null character"),
        ((*TRAIN, "--out", "run", "--cache", LATIN), "--cache 'caf\\udce9': its name is not UTF-8"),
        ((*TRAIN, "--config", NULL), "--config': Value error, embedded null byte"),
        ((*TRAIN, "--config", "FOLDER"), "cannot read the settings FOLDER"),
        ((*TRAIN, "--out", "run", "--resume", "--config", "nowhere"), "cannot read the settings"),
        (("trace", "--out", "FILE"), "--out 'FILE': FILE is a file; expected a folder"),
        (("trace", "--out", LATIN), "--out 'caf\\udce9': its name is not UTF-8"),
        (("trace", NULL), "null"),
        (("transcribe", NULL), "null"),
        (("transcribe", LATIN), "caf"),
        (("info", "--model", NULL), "model 'n\\x00ull' was not found"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows has other names and no /dev/full")
def test_it_is_refused_in_one_line_before_work_starts(tiny_asr, place, arguments, message):  # noqa: F811
    before = {path: path.is_dir() or path.read_bytes() for path in place.rglob("*")}
    status, out, err = tiny_asr(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("tiny-asr: ") and err.count("\n") == 1 and message in err
    assert {path: path.is_dir() or path.read_bytes() for path in place.rglob("*")} == before


def test_a_baseline_may_lack_what_could_not_be_decoded(tiny_asr, tmp_path):  # noqa: F811
    rows = some_rows(4)
    for row in rows:
        row["seconds"] = 1.0  # stated: the header is not looked at when the table is read
    rows[2]["audio"] = b"no sound"
    data = write_rows(tmp_path / "data.parquet", rows)
    for row, seconds in zip(rows, (0.53, 1.01, 1.0, 2.38), strict=True):
        row["seconds"] = seconds
    data = write_rows(tmp_path / "data.parquet", rows)
    arguments = (*EVALUATE[:3], "--device", "cpu", "--data", data)
    status, _, _ = tiny_asr(*arguments, "--out", tmp_path / "first.json")
    assert status == 0 and Result.from_json(tmp_path / "first.json").utterances == 3
    status, out, _ = tiny_asr(*arguments, "--baseline", tmp_path / "first.json")
    assert status == 0 and "to the baseline" in out


def test_a_disk_that_fills_up_loses_no_result(tiny_asr, tmp_path, monkeypatch):  # noqa: F811
    def full(path, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    place = tmp_path / "r.json"
    place.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        status, out, err = tiny_asr(*EVALUATE, "--limit", "2", "--out", place, "--json")
    assert status == 2 and json.loads(out)["utterances"] == 2
    assert (
        err == f"tiny-asr: cannot write {place} (No space left on device): choose another --out\n"
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_that_lies_where_no_new_one_can_be_made(tiny_asr, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "r.json").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may do all
    status, out, err = tiny_asr(*EVALUATE, "--out", tmp_path / "r.json")
    assert (status, out) == (2, "") and f"{tmp_path} can't be written to" in err


def test_a_picture_that_does_not_fit_on_the_disk_is_named(tiny_asr, tmp_path, monkeypatch):  # noqa: F811
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` does: it has no name

    monkeypatch.setattr(Path, "write_bytes", full)
    status, _, err = tiny_asr("trace", "--model", checkpoint_dir(), "--out", tmp_path)
    file = tmp_path / "encoder_output.png"
    assert (status, err.splitlines()[-1]) == (
        2,
        f"tiny-asr: cannot write {file} (No space left on device): choose another place",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["info", "--device", "cpu"], ["--help"]])
def test_where_nothing_can_be_printed_it_says_so(arguments):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "tiny_asr.cli", *arguments]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "tiny-asr: cannot print the result (No space left on device)\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are not UTF-8")
def test_a_file_whose_name_is_not_utf8_is_read_or_named(tiny_asr, tmp_path):  # noqa: F811
    path = tmp_path / f"{LATIN}.parquet"
    path.write_bytes(clips().read_bytes())
    status, out, err = tiny_asr(*EVALUATE[:3], "--data", path)
    assert (status, out) == (2, "")
    assert err == f"tiny-asr: {str(path)!r} can't be used: its name is not UTF-8; rename it\n"
