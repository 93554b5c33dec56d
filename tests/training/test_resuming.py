"""Nothing is lost: a run that is stopped, killed, out of disk or spread out ends the same."""

import math
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures_models import decoder_dir, pair, talkative
from safetensors.torch import load_file
from small_runs import (
    Stop,
    assert_same,
    checkpoints,
    clips,
    crash_at,
    end,
    final,
    read_until,
    small_run,
    some_rows,
    start,
    train,
    whole_run,
    write_rows,
)

from tiny_asr import ASRModel
from tiny_asr.training.checkpoint import DiskError, save_model
from tiny_asr.training.log import read_log
from tiny_asr.training.settings import TrainingSettings
from tiny_asr.training.trainer import Trainer

HARDER = {
    "accumulation": 2,
    "noise_data": clips(3, 7),
    "noise_fraction": 0.2,
    "max_utterances": 72,
    "augment": {
        "speed_factors": (0.9, 1.0, 1.1),
        "reverb_probability": 0.5,
        "noise_probability": 0.5,
        "band_limit_probability": 0.5,
        "gain_db": (-6, 6),
        "time_masks": 1,
        "frequency_masks": 1,
        "frame_dropout": 0.1,
    },
}


MIXED = {
    "data": [
        {"data": clips(5, 3), "weight": 1},
        {"data": clips(), "weight": 2.5, "limit": 10},
    ],
    "noise_data": clips(3, 7),
    "noise_fraction": 0.2,
}


# In one process ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cached", "augmented", "mixed"])
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, kind):
    changes = {"cache": tmp_path / "caches", "eval_data": clips(3, 1)} | {"eval_limit": 1}
    changes = {"cached": changes, "augmented": HARDER, "mixed": MIXED}[kind]
    whole, broken = small_run(tmp_path / "whole", **changes), tmp_path / "broken"
    train(whole)
    epochs = read_log(whole.out + "/log.csv")[-1]["epoch"]
    assert epochs >= 2
    again = small_run(broken, **changes)
    with pytest.raises(Stop):
        train(again, on_log=crash_at(1))  # before there is a checkpoint
    for step in (5, 9):
        with pytest.raises(Stop):
            train(again, resume=True, on_log=crash_at(step))
    torn = (broken / "log.csv").read_text()
    (broken / "log.csv").write_text(torn + "99,1")  # a kill in the middle of a line
    train(again, resume=True)
    assert_same(broken, Path(whole.out))
    ours, theirs = (read_log(Path(run.out) / "log.csv") for run in (again, whole))
    for key in ("step", "utterances", "wer", "skipped"):
        assert [row[key] for row in ours] == [row[key] for row in theirs]
    best = [load_file(Path(run.out) / "model.safetensors") for run in (again, whole)]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


def test_a_damaged_newest_checkpoint_costs_time_but_no_weights(tmp_path):
    broken = small_run(tmp_path / "broken")
    with pytest.raises(Stop):
        train(broken, on_log=crash_at(11))
    assert checkpoints(tmp_path / "broken") == ["latest", "step-4", "step-8"]
    weights = tmp_path / "broken" / "checkpoints" / "step-8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    _, said = train(broken, resume=True)
    assert "step-8 is damaged" in said
    assert "resumed at step 4, 12 utterances" in said
    assert_same(tmp_path / "broken", whole_run())


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_saves_after_the_step_at_hand_and_then_ends_the_run(tmp_path, number, raised):

    def ask(state, model):
        if state.step == 7:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    settings = small_run(tmp_path / "stopped", save_every=1000)
    with pytest.raises(raised) as ended:
        train(settings, on_log=ask)
    if raised is SystemExit:
        assert ended.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert checkpoints(tmp_path / "stopped") == ["latest", "step-8"]
    _, said = train(settings, resume=True)
    assert "resumed at step 8" in said
    assert_same(tmp_path / "stopped", whole_run())


def test_a_crash_before_the_last_checkpoint_still_ends_with_the_last_model(tmp_path):
    with pytest.raises(Stop):
        train(small_run(tmp_path / "run"), on_log=crash_at(16))
    train(small_run(tmp_path / "run"), resume=True)
    assert_same(tmp_path / "run", whole_run())
    ours, theirs = (load_file(out / "model.safetensors") for out in (tmp_path / "run", whole_run()))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_signal_that_comes_twice_at_once_is_one(tmp_path):
    """A launcher passes on to its processes what the terminal has sent them already."""

    def interrupt(state, model):
        if state.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    lines = []
    trainer = Trainer(small_run(tmp_path / "run"), say=lines.append, on_log=interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert lines[-1] == "stopped; a checkpoint of step 8 is saved: use --resume"
    trainer.on_log = None
    trainer.train(resume=True)  # as in a notebook, with the trainer still at hand
    assert_same(whole_run(), tmp_path / "run")


def test_a_second_signal_stops_at_once(tmp_path):
    steps = []

    def twice(gradient):
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.1)
            os.kill(os.getpid(), signal.SIGINT)

    trainer = Trainer(small_run(tmp_path / "run", save_every=1), say=len)
    trainer.model.audio_projector.linear1.weight.register_hook(twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert checkpoints(tmp_path / "run") == ["latest", "step-1"]


def test_a_float16_run_resumes_with_its_gradient_scale(tmp_path):
    """An overflow halves the scale; a resumed run that forgot it would overflow again."""

    def overflowing(run: TrainingSettings, on_log=None) -> Trainer:
        trainer = Trainer(run, say=len, on_log=on_log)

        def overflow(gradient):
            return gradient * math.inf if trainer.scaler.get_scale() > 200 else gradient

        trainer.model.audio_projector.linear1.weight.register_hook(overflow)
        return trainer

    changes = {"dtype": "float16", "save_every": 3, "log_every": 3, "max_utterances": 36}
    broken = small_run(tmp_path / "broken", **changes)
    with pytest.raises(Stop):
        overflowing(broken, crash_at(8)).train()
    trainer = overflowing(broken)
    trainer.train(resume=True)
    assert trainer.scaler.get_scale() == 128 and trainer.state.skipped == 3
    overflowing(small_run(tmp_path / "whole", **changes)).train()
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_a_full_disk_while_the_model_is_written_leaves_the_old_one(tmp_path):
    resource = pytest.importorskip("resource")  # not there on Windows
    pair().save_pretrained(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, unlimited[1]))  # less than the tokenizer
    try:
        with pytest.raises(DiskError, match=r"cannot write .*; is the disk full\? .* and whole"):
            save_model(tmp_path, talkative().save_pretrained)
        with pytest.raises(DiskError, match="is the disk full"):
            small_run(tmp_path, text_column="x" * 6000).save(tmp_path / "run.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert ASRModel.from_pretrained(tmp_path).untrained == ()


def test_a_run_on_real_speech_with_the_real_encoder(tmp_path, shared):
    changes = {
        "encoder": shared / "weights" / "whisper-tiny.en",
        "data": shared / "speech" / "train-two-voices.parquet",
        "eval_data": shared / "speech" / "dev.parquet",
        "cache": tmp_path / "cache",
        "limit": 8,
        "eval_limit": 2,
        "batch_seconds": 40.0,
        "max_utterances": 32,
        "eval_every": 32,
    }
    train(small_run(tmp_path / "whole", **changes))
    broken = small_run(tmp_path / "broken", **changes)
    with pytest.raises(Stop):
        train(broken, on_log=crash_at(4))
    train(broken, resume=True)
    assert_same(tmp_path / "whole", tmp_path / "broken")
    losses = [row["loss"] for row in read_log(tmp_path / "broken" / "log.csv")]
    assert losses[-1] < losses[0] - 0.3
    model = ASRModel.from_pretrained(tmp_path / "broken")
    assert model.untrained == () and model.config.encoder_dim == 384


# In processes of their own -----------------------------------------------------------------------


def killed_and_resumed(folder: Path, kills: int, seed: int) -> None:
    """Kill a run again and again, at other moments each time; compare with an undisturbed one."""
    # A checkpoint after every step: saving takes longer than training.
    changes = {"max_utterances": 24 * (1 + kills), "save_every": 1, "workers": 1}
    settings = small_run(folder / "whole", **changes)
    train(settings)
    rng, killed, runs = random.Random(seed), 0, 0
    while killed < kills:  # should a run end before its kill, another one begins
        runs += 1
        out = folder / f"killed-{runs}"
        own = TrainingSettings.load(folder / "whole" / "run.yaml", out=out)
        status = None
        while status != 0:
            process = start(own, flags=("--resume",))
            if killed < kills:
                read_until(process, "device:")
                for _ in range(rng.randrange(7)):  # loading, then up to five lines of progress
                    read_until(process, "/")
                time.sleep(rng.random() * 0.15)
                status, said = end(process, signal.SIGKILL)
                killed += status != 0
                at = sorted(path.name for path in out.glob("checkpoints/*"))
                print(f"kill {killed}: status {status}, {at}")
                assert status in (0, -signal.SIGKILL), said
            else:
                status, said = end(process)
                print(said.splitlines()[-1])
                assert status == 0, said
        assert_same(out, folder / "whole")


def test_killed_3_times_and_resumed_it_ends_with_the_same_weights(tmp_path):
    killed_and_resumed(tmp_path, kills=3, seed=0)


@pytest.mark.slow
def test_killed_20_times_and_resumed_it_ends_with_the_same_weights(tmp_path):
    killed_and_resumed(tmp_path, kills=20, seed=1)


def test_a_full_disk_is_an_error_that_keeps_the_last_good_checkpoint(tmp_path):
    settings = small_run(tmp_path / "full")
    with pytest.raises(Stop):
        train(settings, on_log=crash_at(7))
    good = tmp_path / "full" / "checkpoints" / "step-4"
    # Room for the model, and not for its moments, which take twice as much.
    room = (good / "model.safetensors").stat().st_size + 10_000
    before = final(tmp_path / "full")
    status, said = end(start(settings, flags=("--resume", "--largest-file", str(room))))
    assert status == 1
    last = said.strip().splitlines()[-1]
    assert "is the disk full?" in last
    assert f"The last good checkpoint is {good}" in last
    assert checkpoints(tmp_path / "full") == ["latest", "step-4"]
    after = final(tmp_path / "full")
    assert all(torch.equal(before[name], after[name]) for name in before)
    train(settings, resume=True)
    assert_same(tmp_path / "full", whole_run())


def test_sigterm_and_a_kill_within_the_saving(tmp_path):
    """How a process ends: its status after SIGTERM, and kill -9 while a checkpoint is written."""
    run = small_run(tmp_path / "run", save_every=1, log_every=1)
    process = start(run)
    read_until(process, "step ")
    status, said = end(process, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert said.splitlines()[-1].startswith("stopped; a checkpoint of step")

    process = start(run, flags=("--resume",))
    assert "resumed at step" in read_until(process, "resumed")
    places = (tmp_path / "run", tmp_path / "run" / "checkpoints")
    while not any(path.is_dir() for place in places for path in place.glob("*.partial")):
        assert process.poll() is None, "the run ended and was never seen saving"
    status, said = end(process, signal.SIGKILL)
    assert status == -signal.SIGKILL
    train(run, resume=True)
    assert_same(tmp_path / "run", whole_run())
    assert not list((tmp_path / "run").rglob("*.partial"))


def assert_close(out: Path, other: Path) -> None:
    """Two runs ended with the same tensors, but for rounding: sums are taken in another order."""
    ours, theirs = final(out), final(other)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(theirs[key], value, rtol=1e-4, atol=1e-5)


# `accelerate launch` starts torchrun where there are GPUs, and one process only on a CPU.
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def test_two_processes_train_as_one_does_and_take_over_from_each_other(tmp_path):
    rows = some_rows()
    rows[6]["audio"] = rows[6]["audio"][:2000]  # unreadable; one process misses a clip
    changes = {
        # Batches of one clip (2.4 s) and of several: at times a process has nothing to do.
        "plain": {"data": write_rows(tmp_path / "clips.parquet", rows), "batch_seconds": 2.5},
        "cached": {"cache": tmp_path / "caches", "accumulation": 2, "eval_data": clips(3, 1)},
        "resumed": {"augment": {"speed_factors": (0.9, 1.1), "frame_dropout": 0.1}},
    }
    # The talkative decoder would make a per cent of the last digit within ten steps.
    runs = {
        (place, name): small_run(tmp_path / place / name, decoder=decoder_dir(), **change)
        for place in ("one", "two")
        for name, change in changes.items()
    }
    for name in changes:
        train(runs["one", name])
    with pytest.raises(Stop):  # one process begins, two go on
        train(runs["two", "resumed"], on_log=crash_at(8))
    two = [runs["two", name] for name in changes]
    status, said = end(start(*two, launcher=TWO, flags=("--resume",)))
    assert status == 0, said
    assert said.count("processes: 2") == len(two)
    assert "dropped 1" in said
    assert "clip-0-6,torn file," in (tmp_path / "two/plain/left_out.csv").read_text()
    assert "resumed at step" in said
    for name in changes:
        ours, theirs = (read_log(tmp_path / place / name / "log.csv") for place in ("one", "two"))
        assert [row["utterances"] for row in ours] == [row["utterances"] for row in theirs]
        assert [row["wer"] for row in ours] == [row["wer"] for row in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        first = 0 if name != "resumed" else 6  # the interval that it resumed in is a shorter one
        losses = [[row["loss"] for row in rows[first:]] for rows in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert_close(tmp_path / "one" / name, tmp_path / "two" / name)
    # Two processes began, and were killed before their last checkpoint; one goes on.
    for name in ("plain", "cached"):
        alone = tmp_path / "alone" / name
        shutil.copytree(tmp_path / "two" / name, alone)
        *_, before, last = sorted(alone.glob("checkpoints/step-*"), key=lambda p: int(p.name[5:]))
        shutil.rmtree(last)
        _, said = train(replace(runs["two", name], out=str(alone)), resume=True)
        assert "processes: 1" in said and f"resumed at {before.name.replace('-', ' ')}," in said
        assert_close(tmp_path / "one" / name, alone)
