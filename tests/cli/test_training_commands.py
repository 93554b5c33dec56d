"""`tiny-asr train`, `evaluate` and `benchmark` as a user meets them."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures_models import checkpoint_dir, decoder_dir, encoder_dir
from small_runs import assert_same, clips, small_run, some_rows, train, write_rows
from test_commands import SHARED_OPTIONS, tiny_asr  # noqa: F401 (a fixture)

from tiny_asr.bench import benchmark
from tiny_asr.cli.training import now_and_then
from tiny_asr.evaluation.score import Result
from tiny_asr.training.settings import TrainingSettings

COMMANDS = ("train", "evaluate", "benchmark")
EVALUATE = ("evaluate", "--model", checkpoint_dir(), "--data", clips(), "--device", "cpu")


def options(out: Path, **changes) -> list[str]:
    """The options of a run of four steps; what has no option is in a run.yaml."""
    recipe = out.with_suffix(".yaml")
    small_run(out, log_every=3, save_every=3, max_utterances=12).save(recipe)
    given = {"config": recipe, "data": clips(), "out": out} | changes
    return ["train", *(f"--{name.replace('_', '-')}={value}" for name, value in given.items())]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_shared_options(tiny_asr, command):  # noqa: F811
    status, out, _ = tiny_asr(command, "--help")
    assert status == 0
    assert [option for option in SHARED_OPTIONS if f"{option} " not in out] == []


def test_train_shows_progress_and_leaves_a_model_and_its_recipe(tiny_asr, tmp_path):  # noqa: F811
    status, out, _ = tiny_asr(*options(tmp_path / "run"))
    assert status == 0
    assert re.search(r"^step +\d+  utterances +12/12  loss ", out, re.MULTILINE)
    assert out.splitlines()[-1].startswith(f"done: the model is in {tmp_path / 'run'}")
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert TrainingSettings.load(tmp_path / "run" / "run.yaml").max_utterances == 12


def test_train_as_json(tiny_asr, tmp_path):  # noqa: F811
    status, out, err = tiny_asr(*options(tmp_path / "run"), "--json")
    report = json.loads(out)
    assert status == 0
    assert list(report) == ["out", "step", "utterances", "best", "skipped", "seconds"]
    assert report["out"] == str(tmp_path / "run") and report["utterances"] >= 12
    assert report["skipped"] == 0 and report["best"] is None and report["seconds"] > 0
    assert "step " in err


def test_only_given_options_replace_the_recipe(tiny_asr, tmp_path):  # noqa: F811
    out = tmp_path / "run"
    status, _, _ = tiny_asr(*options(out, learning_rate=0.01, seed=3, limit=6), "--fresh")
    assert status == 0
    written = TrainingSettings.load(out / "run.yaml")
    assert (written.learning_rate, written.seed, written.limit) == (0.01, 3, 6)
    assert written.fresh is True
    expected = small_run(out, log_every=3, save_every=3, max_utterances=12)
    assert written.changed_since(out.with_suffix(".yaml")) == [
        "fresh: False -> True",
        "limit: None -> 6",
        "learning_rate: 0.001 -> 0.01",
        "seed: 0 -> 3",
    ]
    assert (written.batch_seconds, written.encoder) == (expected.batch_seconds, expected.encoder)


def test_without_a_recipe_the_defaults_hold(tiny_asr, tmp_path):  # noqa: F811
    parts = ("--encoder", encoder_dir(), "--decoder", decoder_dir(), "--device", "cpu")
    where = ("--data", clips(), "--out", tmp_path / "run", "--max-utterances", "1")
    status, _, _ = tiny_asr("train", *where, *parts)
    assert status == 0
    written = TrainingSettings.load(tmp_path / "run" / "run.yaml")
    default = TrainingSettings(data="d", out="o")
    assert (written.learning_rate, written.batch_seconds) == (
        default.learning_rate,
        default.batch_seconds,
    )


def test_a_user_s_mistakes_are_one_line_each(tiny_asr, tmp_path):  # noqa: F811
    status, out, err = tiny_asr("train", "--out", tmp_path / "run")
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert "--data did not come" in err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").touch()
    status, _, err = tiny_asr(*options(tmp_path / "run"))
    assert status == 2
    assert "holds a run already" in err.splitlines()[-1] and "--resume" in err.splitlines()[-1]
    status, out, err = tiny_asr("evaluate")
    assert (status, out) == (2, "") and "--data did not come" in err
    status, out, err = tiny_asr(*EVALUATE, "--report", tmp_path / "nowhere" / "r.html")
    assert (status, out) == (2, "") and "there is no folder" in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to handle")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_saves_and_resumes_to_the_same_weights(tiny_asr, tmp_path, number):  # noqa: F811
    """As `accelerate launch -m tiny_asr.cli` starts it."""
    long = {"max_utterances": 96, "save_every": 48}
    train(small_run(tmp_path / "whole", **long))
    out = tmp_path / "run"
    recipe = tmp_path / "recipe.yaml"
    small_run(out, **long).save(recipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "tiny_asr.cli", "train", "--config", str(recipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("step "):
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == "tiny-asr: stopped; continue with --resume"
    status, said, _ = tiny_asr("train", "--resume", "--out", out)  # its own run.yaml
    assert status == 0 and "resumed at step" in said
    assert_same(out, tmp_path / "whole")


def test_evaluate_as_json_is_the_result(tiny_asr, tmp_path):  # noqa: F811
    status, out, err = tiny_asr(*EVALUATE, "--out", tmp_path / "result.json", "--json")
    assert (status, err) == (0, "")
    assert out == (tmp_path / "result.json").read_text()
    result = Result.from_json(tmp_path / "result.json")
    assert result.to_json() + "\n" == out
    assert result.utterances == 12 and result.device == "cpu" and result.wer.value > 0


def test_evaluate_with_beams_and_hints(tiny_asr, tmp_path):  # noqa: F811
    search = (
        "--limit",
        "4",
        "--beams",
        "2",
        "--hints",
        "the cat, on",
        "--out",
        tmp_path / "r.json",
    )
    _, out, _ = tiny_asr(*EVALUATE, *search)
    assert re.search(r"^ +beams: 2, hints: 2$", out, re.MULTILINE)
    result = Result.from_json(tmp_path / "r.json")
    assert (result.beams, result.hints) == (2, 2)


def test_evaluate_for_a_terminal_with_baseline_and_report(tiny_asr, tmp_path):  # noqa: F811
    baseline, report = tmp_path / "result.json", tmp_path / "report.html"
    _, out, _ = tiny_asr(*EVALUATE, "--limit", "6", "--json")
    baseline.write_text(out)
    about = ("--limit", "6", "--baseline", baseline, "--report", report)
    status, out, err = tiny_asr(*EVALUATE, *about)
    assert (status, err) == (0, "")
    labels = ("WER ", "normaliser ", "CER ", "S / D / I ", "rows at 100 % ", "empty ")
    for label in (*labels, "shuffled ", "RTFx ", "device ", "worst length "):
        assert re.search(rf"^{label}", out, re.MULTILINE), label
    assert re.search(r"^to the baseline +\+0\.0 points .* interval \+0\.0 to \+0\.0$", out, re.M)
    assert [line for line in out.splitlines() if len(line) > 80 and "wrote" not in line] == []
    assert f"wrote {report}" in out and "<audio " in report.read_text()
    assert "Empty transcripts" in report.read_text() and "Untrained" not in report.read_text()


def test_evaluate_says_what_is_untrained_or_left_out(tiny_asr, tmp_path):  # noqa: F811
    parts = ("--encoder", encoder_dir(), "--decoder", decoder_dir(), "--device", "cpu")
    about = ("--limit", "4", "--report", tmp_path / "r.html")
    _, out, _ = tiny_asr("evaluate", "--data", clips(), *parts, *about)
    assert "Untrained: projector." in (tmp_path / "r.html").read_text()
    assert re.search(r"^untrained +projector: its text means nothing$", out, re.MULTILINE)
    _, out, _ = tiny_asr(*EVALUATE, "--shuffled-audio")
    assert "control: every clip had another one's sound" in out


def test_evaluate_names_the_clips_that_are_left_out(tiny_asr, tmp_path):  # noqa: F811
    rows = [row | {"text": "" if k < 7 else row["text"]} for k, row in enumerate(some_rows())]
    data = write_rows(tmp_path / "d.parquet", rows)
    where = (*EVALUATE[:3], "--device", "cpu", "--data", data)
    status, out, err = tiny_asr(*where)
    assert (status, err) == (0, "") and re.search(r"^left out +7: no text$", out, re.MULTILINE)
    named = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert named[0] == "left out: clip 'clip-0-0' has no text" and len(named) == 6
    assert named[-1] == "left out: 2 more; --out FILE names all"
    status, out, err = tiny_asr(*where, "--out", tmp_path / "r.json", "--json")
    names = tmp_path / "r.left_out.csv"
    assert json.loads(out)["dropped"] == {"no text": 7}
    assert err == f"left out: 7 clips, named in {names}\n"
    assert len(names.read_text().splitlines()) == 8 and "clip-0-6,no text," in names.read_text()
    tiny_asr(*EVALUATE, "--limit", "2", "--out", tmp_path / "r.json")
    assert not names.exists()


@pytest.mark.parametrize("name", ["snr.5", "snr.10", "r.csv"])
def test_the_clips_left_out_of_results_with_points_in_their_names(tiny_asr, tmp_path, name):  # noqa: F811
    rows = [row | {"text": "" if k < 2 else row["text"]} for k, row in enumerate(some_rows(4))]
    data = write_rows(tmp_path / "d.parquet", rows)
    status, _, _ = tiny_asr(*EVALUATE[:3], "--data", data, "--out", tmp_path / name)
    assert status == 0 and (tmp_path / f"{name}.left_out.csv").is_file()


def test_evaluate_says_now_and_then_how_far_it_is_where_no_bar_can_be_drawn():
    time, said = [0.0], []
    progress = now_and_then(said.append, now=lambda: time[0])
    for second in range(1, 101):  # of 200 clips in 100 s
        time[0] = second
        progress(2 * second, 200)
    assert said[0] == "20 of 200 clips, 10%, 10 s" and len(said) == 10
    for second in (120, 131, 162):  # a slow one
        time[0] = second
        progress(201, 2000)
    assert said[10:] == ["201 of 2000 clips, 10%, 131 s", "201 of 2000 clips, 10%, 162 s"]
    quick = now_and_then(said.append)
    quick(10, 10)
    assert len(said) == 12


def test_evaluate_where_nobody_speaks(tiny_asr, tmp_path):  # noqa: F811
    """Any clips will do, with texts or without: their texts are not read."""
    silent = write_rows(tmp_path / "d.parquet", [row | {"text": ""} for row in some_rows()])
    report, where = tmp_path / "r.html", (*EVALUATE[:3], "--device", "cpu")
    status, out, _ = tiny_asr(*where, "--data", silent)
    assert status == 2
    status, out, err = tiny_asr(*where, "--data", silent, "--no-speech", "--report", report)
    assert (status, err) == (0, "")
    assert re.match(r"empty +\d+\.\d % of 12 clips   95 % interval \d+\.\d to \d+\.\d\n", out)
    assert re.search(r"^heard +\d+ words where nobody speaks$", out, re.MULTILINE)
    assert re.search(r"^worst length +<2 s +\d+\.\d %   empty, \d+ clips$", out, re.MULTILINE)
    assert "WER" not in out and "n/a" not in out and "empty transcripts</p>" in report.read_text()
    _, out, _ = tiny_asr(*where, "--data", silent, "--no-speech", "--json")
    alike, other = json.loads(out), json.loads(tiny_asr(*EVALUATE, "--no-speech", "--json")[1])
    assert (alike["wer"]["value"], alike["words"], alike["utterances"]) == (None, 0, 12)
    assert 0 <= alike["empty"]["low"] <= alike["empty"]["value"] <= alike["empty"]["high"] <= 1
    assert alike["rows"] == other["rows"]


def test_evaluate_in_noise(tiny_asr, tmp_path):  # noqa: F811
    noise, report = ("--noise-data", clips(3, 7)), tmp_path / "r.html"
    status, out, _ = tiny_asr(*EVALUATE, *noise, "--snr-db", "-20", "--report", report)
    assert status == 0 and "noise in every clip, at -20 dB SNR" in out
    assert re.search(r"^empty +\d+\.\d % of 12 clips", out, re.MULTILINE)
    assert "Noise in every clip, at -20 dB SNR" in report.read_text()
    _, out, _ = tiny_asr(*EVALUATE, *noise, "--snr-db", "-20", "--json")
    loud, quiet = json.loads(out), json.loads(tiny_asr(*EVALUATE, "--json")[1])
    assert (loud["noise_snr_db"], quiet["noise_snr_db"]) == (-20, None)
    heard = [[row["hypothesis"] for row in result["rows"]] for result in (loud, quiet)]
    assert heard[0] != heard[1]
    for half in (noise, ("--snr-db", "10")):
        status, out, err = tiny_asr(*EVALUATE, *half)
        assert (status, out) == (2, "") and "--noise-data and --snr-db belong together" in err


def test_benchmark_says_that_cached_belongs_to_gpus(tiny_asr):  # noqa: F811
    status, out, err = tiny_asr("benchmark", "--cached")
    assert (status, out) == (2, "") and "--cached came without --gpus" in err


def test_benchmark_measures_with_its_options_and_prints_json(tiny_asr, monkeypatch):  # noqa: F811
    """The measurement itself, and its table, are tested in test_benchmark.py."""
    few = ("--utterances", "3", "--rounds", "1", "--batch-seconds", "12", "--device", "cpu")
    parts = ("--encoder", encoder_dir(), "--decoder", decoder_dir())
    monkeypatch.setattr(benchmark, "measure", lambda *names, say, **given: {"given": given})
    status, out, _ = tiny_asr("benchmark", *few, *parts, "--fp8", "--json")
    given = json.loads(out)["given"]
    assert status == 0
    assert (given["utterances"], given["rounds"], given["batch_seconds"]) == (3, 1, 12)
    assert (given["device"], given["mix"], given["compile"]) == ("cpu", "short", False)
    assert given["fp8"] is True
    assert (given["encoder"], given["decoder"]) == (str(encoder_dir()), str(decoder_dir()))


def test_a_tracker_is_an_option_with_commas(tiny_asr, tmp_path):  # noqa: F811
    status, _, err = tiny_asr(*options(tmp_path / "run"), "--track", "tensorboard, papyrus")
    assert status == 2 and "trackers papyrus came" in err and not (tmp_path / "run").exists()
