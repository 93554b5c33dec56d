"""Where training could go wrong unseen: the wrong model kept, a stale epoch, momentum, overflow."""

import hashlib
import math
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from fixtures_models import checkpoint_dir, decoder_dir, pair, talkative
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
from tiny_asr.training.settings import TrainingSettings, learning_rate_at
from tiny_asr.training.trainer import Trainer


def files(folder: Path) -> dict[str, str]:
    """A digest of every file in a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def kept_weights(out: Path) -> dict[str, torch.Tensor]:
    """The projector of the model that a run leaves for use."""
    weights = load_file(out / "model.safetensors")
    return {name.removeprefix("audio_projector."): value for name, value in weights.items()}


def copied(model: ASRModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.audio_projector.state_dict().items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


def torn(rows: list[dict], number: int) -> list[dict]:
    """The rows, with one clip that looks well and can't be decoded."""
    rows = [{"seconds": None} | row for row in rows]
    rows[number] |= {"audio": rows[number]["audio"][:60] + b"torn", "seconds": 1.0}
    return rows


# The model that is kept -------------------------------------------------------------------------


def test_the_model_with_the_lowest_wer_is_kept(tmp_path):
    seen = {}

    def remember(state, model):
        seen[state.step] = copied(model)

    # At this rate the random decoder only says more and more: the first evaluation is the best.
    changes = {"eval_data": clips(6, 1), "eval_every": 6, "max_utterances": 24}
    run = small_run(tmp_path / "run", learning_rate=0.01, **changes)
    trainer, _ = train(run, on_log=remember)
    best = min(read_log(tmp_path / "run" / "log.csv"), key=lambda row: row["wer"])
    assert best["step"] < trainer.state.step
    assert same(kept_weights(tmp_path / "run"), seen[best["step"]])
    assert trainer.state.best == pytest.approx(best["wer"], rel=1e-4)


def test_evaluation_data_without_a_word_to_score_still_keeps_a_model(tmp_path):
    rows = [row | {"text": "uh"} for row in some_rows(2)]  # the normaliser leaves nothing of it
    data = write_rows(tmp_path / "eval.parquet", rows)
    train(small_run(tmp_path / "run", eval_data=data, eval_every=6, max_utterances=12))
    assert ASRModel.from_pretrained(tmp_path / "run").untrained == ()


def test_a_crash_before_the_last_checkpoint_still_ends_with_the_last_model(tmp_path):
    with pytest.raises(Stop):
        train(small_run(tmp_path / "run"), on_log=crash_at(16))
    train(small_run(tmp_path / "run"), resume=True)
    assert_same(tmp_path / "run", whole_run())
    assert same(kept_weights(tmp_path / "run"), kept_weights(whole_run()))


def test_a_projector_that_was_trained_goes_on_or_begins_anew_if_asked(tmp_path):
    changes = {"encoder": None, "decoder": None, "learning_rate": 0.0, "max_utterances": 3}
    trainer, _ = train(small_run(tmp_path / "on", model=whole_run(), **changes))
    assert same(copied(trainer.model), kept_weights(whole_run()))
    changes |= {"fresh": True, "seed": 5}
    trainer, _ = train(small_run(tmp_path / "new", model=whole_run(), **changes))
    fresh = small_run(tmp_path / "other", seed=5)
    assert same(copied(trainer.model), copied(Trainer(fresh, say=len).model))
    assert not same(copied(trainer.model), copied(Trainer(small_run("x"), say=len).model))


@pytest.mark.parametrize("resume", [False, True])
def test_bad_data_or_another_model_leave_an_existing_run_as_it_is(tmp_path, resume):
    bad = tmp_path / "torn.parquet"
    bad.write_bytes(clips().read_bytes()[:2000])
    before = files(whole_run())
    bad_changes = [{"data": bad}, {"eval_data": bad}, {"text_column": "words"}]
    for changes in [*bad_changes, {"encoder": "bundled:tiny-encoder"}]:
        expected = "can't be read as parquet|has no column 'words'|does not fit|holds a run"
        with pytest.raises(ValueError, match=expected):
            train(small_run(whole_run(), **changes), resume)
    assert files(whole_run()) == before


def test_the_folder_of_a_model_without_checkpoints_is_refused_too():
    before = files(checkpoint_dir())
    with pytest.raises(ValueError, match="holds a run already"):
        train(small_run(checkpoint_dir(), model=checkpoint_dir()))
    assert files(checkpoint_dir()) == before


def test_a_full_disk_while_the_model_is_written_leaves_the_old_one(tmp_path):
    resource = pytest.importorskip("resource")  # not there on Windows
    pair().save_pretrained(tmp_path)
    before = files(tmp_path)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, unlimited[1]))  # less than the tokenizer
    try:
        with pytest.raises(DiskError, match=r"cannot write .*; is the disk full\? .* and whole"):
            save_model(tmp_path, talkative().save_pretrained)
        with pytest.raises(DiskError, match="is the disk full"):
            small_run(tmp_path, text_column="x" * 6000).save(tmp_path / "run.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert files(tmp_path) == before
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


# Steps --------------------------------------------------------------------------------------------


def test_the_learning_rate_follows_the_utterances(tmp_path):
    run = small_run(tmp_path / "run", log_every=1, max_utterances=24)
    train(run)
    rows = read_log(tmp_path / "run" / "log.csv")
    before = [0.0, *(row["utterances"] for row in rows[:-1])]
    expected = [learning_rate_at(utterances, run) for utterances in before]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected, rel=1e-5)


def test_accumulated_batches_keep_their_own_epoch(tmp_path):
    """A step across the end of an epoch is the mean of its batches as each would be alone.

    All texts are alike, so the tokens of a batch are proportional to its clips; nothing is learnt,
    so the losses depend on the clips and their augmentation only.
    """
    rows = [row | {"text": "the cat sat"} for row in some_rows(9)]
    changes = {"data": write_rows(tmp_path / "same.parquet", rows), "learning_rate": 0.0}
    changes |= {"log_every": 1, "augment": {"time_masks": 4}, "max_utterances": 36}
    train(small_run(tmp_path / "one", **changes))
    train(small_run(tmp_path / "two", **changes, accumulation=2))
    one, two = (read_log(tmp_path / name / "log.csv") for name in ("one", "two"))
    seen = [0.0] + [row["utterances"] for row in one]
    counts = [after - before for before, after in pairwise(seen)]
    assert sum(row["epoch"] == 0 for row in one) % 2 == 1, "no step crosses the end of an epoch"
    for first, row in zip(range(0, len(one) - 1, 2), two, strict=False):
        together = sum(counts[i] * one[i]["loss"] for i in (first, first + 1))
        expected = together / (counts[first] + counts[first + 1])
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_batch_with_no_readable_clip_leaves_the_weights_alone(tmp_path):
    """The momentum of earlier steps must not move them, nor a loss of 0 count."""
    data = write_rows(tmp_path / "torn.parquet", torn(some_rows(3), 1))
    alone = {"data": data, "batch_seconds": 1.9, "log_every": 1, "max_utterances": 8}
    trainer, _ = train(small_run(tmp_path / "run", **alone))
    assert trainer.state.utterances == 8 < trainer.state.step  # which counts those steps too
    moments = final(tmp_path / "run")
    assert {float(value) for name, value in moments.items() if name.endswith(".step")} == {8.0}
    losses = [row["loss"] for row in read_log(tmp_path / "run" / "log.csv")]
    assert len(losses) == 8 and all(loss > 1 for loss in losses)


def test_a_loss_that_falls_is_not_warned_about(tmp_path):
    rows = [row | {"text": "the cat sat"} for row in some_rows()]
    data = write_rows(tmp_path / "same.parquet", rows)
    run = small_run(tmp_path / "run", data=data, max_utterances=96, learning_rate=0.01)
    trainer, said = train(run)
    assert len(trainer.state.losses) > 6
    assert trainer.state.losses[-1] < 0.8 * trainer.state.losses[0]
    assert "hardly fallen" not in said


# Number formats, and what is not finite ----------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_trains_the_projector_in_float32(tmp_path, dtype):
    # The decoder with ordinary weights: the talkative one makes the most of every rounding.
    changes = {"decoder": decoder_dir(), "log_every": 1, "max_utterances": 12}
    train(small_run(tmp_path / "exact", **changes))
    trainer, products = Trainer(small_run(tmp_path / "low", dtype=dtype, **changes), say=len), set()
    trainer.projector.linear1.register_forward_hook(lambda *call: products.add(call[-1].dtype))
    trainer.train()
    assert products == {getattr(torch, dtype)}
    assert {value.dtype for value in trainer.projector.state_dict().values()} == {torch.float32}
    assert trainer.model.decoder.token_embeddings.dtype is getattr(torch, dtype)
    exact, low = (read_log(tmp_path / name / "log.csv") for name in ("exact", "low"))
    for one, other in zip(exact, low, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=0.02)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=0.1)
    assert low[-1]["loss"] != exact[-1]["loss"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_loss_that_is_not_finite_leaves_the_weights_alone_and_training_recovers(tmp_path, dtype):
    seen, weights = [], {}

    def hook(module, inputs, output):
        seen.append(1)
        return output * math.inf if 4 <= len(seen) < 9 else output

    def remember(state, model):
        weights[state.step] = copied(model)

    run = small_run(tmp_path / "run", log_every=1, dtype=dtype, max_utterances=36)
    trainer = Trainer(run, say=len, on_log=remember)
    trainer.model.encoder.register_forward_hook(hook)
    trainer.train()
    rows = read_log(tmp_path / "run" / "log.csv")
    assert [row["skipped"] for row in rows][2:10] == [0, 1, 2, 3, 4, 5, 5, 5]
    assert all(same(weights[step], weights[3]) for step in range(4, 9))
    assert not same(weights[9], weights[8])
    assert all(map(math.isfinite, trainer.state.losses))
    assert all(value.isfinite().all() for value in final(tmp_path / "run").values())


def test_a_float16_run_resumes_with_its_gradient_scale(tmp_path):
    """An overflow halves the scale; a resumed run that forgot it would overflow again."""

    def overflowing(run: TrainingSettings, on_log=None) -> Trainer:
        trainer = Trainer(run, say=len, on_log=on_log)

        def overflow(gradient):
            return gradient * math.inf if trainer.scaler.get_scale() > 200 else gradient

        trainer.projector.linear1.weight.register_hook(overflow)
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


# Signals and kills -------------------------------------------------------------------------------


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
    trainer.projector.linear1.weight.register_hook(twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert checkpoints(tmp_path / "run") == ["latest", "step-1"]


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


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"save_every": 0}, "save_every=0 came; expected a number from 1 up"),
        ({"workers": 0}, "workers=0 came"),
        ({"eval_limit": 0}, "eval_limit=0 came"),
        ({"limit": -1}, "limit=-1 came"),
        ({"learning_rate": math.nan}, "learning_rate=nan came"),
        ({"learning_rate": -1e-3}, r"learning_rate=-0\.001 came; expected a number from 0 up"),
        ({"max_grad_norm": math.inf}, "max_grad_norm=inf came"),
        ({"accumulation": 1.5}, r"accumulation=1\.5 came; expected int"),
        ({"seed": "7"}, "seed='7' came; expected int"),
        ({"max_utterances": True}, "max_utterances=True came"),
        ({"model": None}, "model=None came; expected str"),
        ({"augment": {"reverb_probability": 2}}, "reverb_probability=2 came"),
    ],
)
def test_bad_numbers_are_errors_before_anything_begins(changes, message):
    with pytest.raises(ValueError, match=message):
        small_run("out", **changes)
