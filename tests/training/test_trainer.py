"""Training: what lies in the folder, what is said, and what bad data or bad numbers do.

That nothing is lost when a run is stopped, killed or spread is tested in test_resuming.py.
"""

import math
import shutil
import threading
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from fixtures_models import checkpoint_dir, decoder_dir, noise
from safetensors.torch import load_file
from small_runs import (
    Stop,
    assert_same,
    checkpoints,
    clips,
    crash_at,
    encoded,
    final,
    small_run,
    some_rows,
    train,
    whole_run,
    write_rows,
)

from tiny_asr import ASRModel
from tiny_asr.data.augment import AugmentConfig
from tiny_asr.training.cache import EncoderCache
from tiny_asr.training.log import read_log
from tiny_asr.training.settings import TrainingSettings, learning_rate_at
from tiny_asr.training.trainer import Trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a finished run with evaluation, and what it said."""
    out = tmp_path_factory.mktemp("training") / "run"
    _, said = train(small_run(out, eval_data=clips(3, 1)))
    return out, said


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


# What a run leaves -------------------------------------------------------------------------------


def test_the_folder_of_a_run(finished):
    out, said = finished
    names = {path.name for path in out.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert names >= {"run.yaml", "log.csv", "checkpoints"}
    assert [name for name in names if "partial" in name] == []
    assert checkpoints(out) == ["latest", "step-12", "step-16"]
    assert (out / "checkpoints" / "latest").read_text() == "step-16"

    rows = read_log(out / "log.csv")
    assert rows[-1]["step"] == 16
    assert rows[-1]["utterances"] == 48
    assert [row["utterances"] for row in rows if row["wer"] is not None] == [24, 48]
    assert all(row["loss"] > 0 and row["grad_norm"] > 0 for row in rows)
    lines = [line for line in said.splitlines() if line.startswith("step ")]
    assert len(lines) == len(rows)
    assert max(map(len, lines)) <= 80


def test_the_best_model_loads_as_a_trained_one(finished):
    model = ASRModel.from_pretrained(finished[0])
    assert model.untrained == ()
    assert isinstance(model.transcribe(noise(1.0), 16_000), str)


def test_training_changes_the_projector_and_nothing_else(tmp_path):
    trainer = Trainer(small_run(tmp_path / "run"), say=lambda line: None)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert "projector" in trainer.model.untrained
    trainer.train()
    assert trainer.model.untrained == ()
    after = trainer.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert {name.split(".")[0] for name in changed} == {"audio_projector"}
    saved = final(tmp_path / "run")
    for name, value in trainer.model.audio_projector.state_dict().items():
        assert torch.equal(saved[f"model.{name}"], value)
    # Without evaluation data the last model is the one to use.
    used = ASRModel.from_pretrained(tmp_path / "run").audio_projector.state_dict()
    assert all(torch.equal(used[name], saved[f"model.{name}"]) for name in used)


def test_run_yaml_repeats_the_run(finished, tmp_path):
    settings = TrainingSettings.load(finished[0] / "run.yaml", out=tmp_path / "again")
    train(settings)
    assert_same(tmp_path / "again", finished[0])


def test_with_a_cache_the_loss_is_the_same(tmp_path):
    train(small_run(tmp_path / "run", cache=tmp_path / "caches"))
    ours, theirs = (read_log(out / "log.csv") for out in (tmp_path / "run", whole_run()))
    losses = [row["loss"] for row in theirs]
    assert [row["loss"] for row in ours] == pytest.approx(losses, rel=2e-3)


def test_cached_versions_are_what_augmentation_makes_in_the_first_epochs(tmp_path):
    """Two epochs from two cached versions train as two epochs that augment do; then they repeat."""
    augment = {"noise_probability": 0.0, "gain_db": (-6, 6), "speed_factors": (0.9, 1.1)}
    changes = {"augment": AugmentConfig(**augment, time_masks=1), "max_utterances": 24}
    train(small_run(tmp_path / "anew", **changes))
    cached = {"cache": tmp_path / "caches", "cache_versions": 2}
    train(small_run(tmp_path / "cached", **changes, **cached))
    ours, theirs = (read_log(tmp_path / name / "log.csv") for name in ("cached", "anew"))
    losses = [row["loss"] for row in theirs]
    assert [row["loss"] for row in ours] == pytest.approx(losses, rel=2e-3)
    first, second = (EncoderCache(place) for place in sorted((tmp_path / "caches").iterdir()))
    assert first.clips.keys() == second.clips.keys()
    same = [torch.equal(first[clip], second[clip]) for clip in first.clips]
    assert not any(same)


def test_the_loss_falls(tmp_path):
    changes = {"max_utterances": 480, "learning_rate": 1e-2, "log_every": 24}
    _, said = train(small_run(tmp_path / "run", cache=tmp_path / "caches", **changes))
    losses = [row["loss"] for row in read_log(tmp_path / "run" / "log.csv")]
    assert losses[-1] < 0.8 * losses[0]
    assert "the loss has hardly fallen" not in said


def test_accumulation_is_one_larger_batch(tmp_path):
    """Loss and gradient are divided by all tokens of the step, however they are spread."""
    step = {"data": clips(2), "max_utterances": 2, "learning_rate": 1e-2, "save_every": 1}
    # Clips of 0.53 and 1.01 s: one batch of both, or two of one each.
    _, first = train(small_run(tmp_path / "one", batch_seconds=6.0, **step))
    train(small_run(tmp_path / "two", batch_seconds=1.1, accumulation=2, **step))
    ours, theirs = ([*read_log(tmp_path / n / "log.csv")] for n in ("one", "two"))
    assert len(ours) == len(theirs) == 1, first
    for key in ("loss", "grad_norm", "utterances"):
        assert ours[0][key] == pytest.approx(theirs[0][key], rel=1e-4)


def test_it_trains_in_another_thread_which_can_take_no_signals(tmp_path):
    errors = []

    def work():
        try:
            train(small_run(tmp_path / "run", max_utterances=12))
        except Exception as error:  # pytest does not see it otherwise
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
    assert (tmp_path / "run" / "model.safetensors").exists()


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


def test_a_projector_that_was_trained_goes_on_or_begins_anew_if_asked(tmp_path):
    changes = {"encoder": None, "decoder": None, "learning_rate": 0.0, "max_utterances": 3}
    trainer, _ = train(small_run(tmp_path / "on", model=whole_run(), **changes))
    assert same(copied(trainer.model), kept_weights(whole_run()))
    changes |= {"fresh": True, "seed": 5}
    trainer, _ = train(small_run(tmp_path / "new", model=whole_run(), **changes))
    fresh = small_run(tmp_path / "other", seed=5)
    assert same(copied(trainer.model), copied(Trainer(fresh, say=len).model))
    assert not same(copied(trainer.model), copied(Trainer(small_run("x"), say=len).model))


# Steps -------------------------------------------------------------------------------------------


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


# What it says and refuses ------------------------------------------------------------------------


def test_the_warning_comes_once_when_the_loss_does_not_fall(tmp_path):
    # All clips in each step: nothing but learning can change the loss.
    changes = {"batch_seconds": 60, "log_every": 12, "max_utterances": 108}
    _, said = train(small_run(tmp_path / "run", learning_rate=0, **changes))
    assert len(read_log(tmp_path / "run" / "log.csv")) == 9
    assert said.count("the loss has hardly fallen") == 1
    assert "The usual causes" in said


def test_a_folder_with_a_run_is_refused_and_stays_as_it_is(finished):
    out, _ = finished
    before = contents(out)
    with pytest.raises(ValueError, match=r"holds a run already.*--resume"):
        train(small_run(out, max_utterances=96))
    assert contents(out) == before


@pytest.mark.parametrize("resume", [False, True])
def test_bad_data_or_another_model_leave_an_existing_run_as_it_is(tmp_path, resume):
    bad = tmp_path / "torn.parquet"
    bad.write_bytes(clips().read_bytes()[:2000])
    before = contents(whole_run())
    bad_changes = [{"data": bad}, {"eval_data": bad}, {"text_column": "words"}]
    for changes in [*bad_changes, {"encoder": "bundled:tiny-encoder"}]:
        expected = "can't be read as parquet|has no column 'words'|does not fit|holds a run"
        with pytest.raises(ValueError, match=expected):
            train(small_run(whole_run(), **changes), resume)
    assert contents(whole_run()) == before


def test_the_folder_of_a_model_without_checkpoints_is_refused_too():
    before = contents(checkpoint_dir())
    with pytest.raises(ValueError, match="holds a run already"):
        train(small_run(checkpoint_dir(), model=checkpoint_dir()))
    assert contents(checkpoint_dir()) == before


def test_resuming_a_finished_run_changes_no_weights_and_resuming_nothing_starts(finished, tmp_path):
    before = final(finished[0])
    settings = TrainingSettings.load(finished[0] / "run.yaml")
    _, said = train(settings, resume=True)
    assert "resumed at step 16, 48 utterances" in said
    after = final(finished[0])
    assert all(torch.equal(before[name], after[name]) for name in before)
    _, said = train(small_run(tmp_path / "new", max_utterances=6), resume=True)
    assert "nothing to resume" in said


def test_other_settings_on_resuming_are_named(finished):
    settings = TrainingSettings.load(finished[0] / "run.yaml", learning_rate=0.5)
    _, said = train(settings, resume=True)
    assert "resume: learning_rate: 0.001 -> 0.5; the weights will differ" in said


def test_resuming_elsewhere_or_with_other_settings_that_change_no_weights_says_nothing(tmp_path):
    whole, moved = small_run(tmp_path / "whole", cache=tmp_path / "caches"), tmp_path / "moved"
    train(whole)
    broken = small_run(tmp_path / "broken", cache=tmp_path / "caches")
    with pytest.raises(Stop):
        train(broken, on_log=crash_at(8))
    shutil.move(tmp_path / "broken", moved)
    changes = {"workers": 1, "log_every": 3, "save_every": 6, "cache": tmp_path / "others"}
    settings = TrainingSettings.load(moved / "run.yaml", out=moved, **changes)
    _, said = train(settings, resume=True)
    assert "resumed at step" in said and "will differ" not in said
    assert_same(moved, Path(whole.out))
    settings = TrainingSettings.load(moved / "run.yaml", cache=None)
    assert settings.changed_since(moved / "run.yaml") == ["cache: True -> False"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: d\nout: o\nlerning_rate: 1\n", r"lerning_rate.*expected a mapping of these"),
        ("- data\n", "expected a mapping"),
        ("data: [\n", "cannot read the settings"),
        ("data: d\n", "lacks out"),
        ("data: d\nout: o\nmax_utterances: 0\n", "max_utterances=0 came"),
        ("data: d\nout: o\nlearning_rate: fast\n", "learning_rate='fast' came"),
        ("data: d\nout: o\naugment: {gain: 3}\n", "augment=.*gain"),
    ],
)
def test_a_wrong_run_yaml_is_an_error(tmp_path, content, message):
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        TrainingSettings.load(tmp_path / "run.yaml")


def test_settings_survive_run_yaml(tmp_path):
    settings = small_run(
        tmp_path / "run",
        data=[clips(), clips(3, 1)],
        learning_rate="1e-3",
        augment={"speed_factors": (0.9, 1.0), "noise_probability": 0.5},
    )
    assert settings.learning_rate == 1e-3
    settings.save(tmp_path / "run.yaml")
    assert TrainingSettings.load(tmp_path / "run.yaml") == settings
    assert yaml.safe_load((tmp_path / "run.yaml").read_text())["seed"] == 0
    assert TrainingSettings.load(tmp_path / "run.yaml", seed=3).seed == 3


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


def test_the_learning_rate_warms_up_and_falls_to_zero():
    s = TrainingSettings(
        data="d", out="o", learning_rate=2.0, warmup_utterances=99, max_utterances=1099
    )
    rates = [learning_rate_at(seen, s) for seen in range(1100)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[49] == pytest.approx(1.0)
    assert rates[99] == max(rates) == 2.0
    assert rates[99 + 500] == pytest.approx(1.0)
    assert rates[99 + 250] == pytest.approx(1 + math.sqrt(0.5))
    assert rates[1099] == 0 == learning_rate_at(5000, s)
    assert rates[:100] == sorted(rates[:100])
    assert rates[99:] == sorted(rates[99:], reverse=True)


# Number formats, and what is not finite ----------------------------------------------------------


def poisoned(trainer: Trainer, steps) -> None:
    """Make the gradients of these steps (counted from 0) NaN, as an overflow would."""
    seen = 0

    def spoil(gradient):
        nonlocal seen
        seen += 1
        return gradient * math.nan if seen - 1 in steps else gradient

    next(trainer.model.audio_projector.parameters()).register_hook(spoil)


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path):
    trainer = Trainer(small_run(tmp_path / "run", log_every=1), say=lambda line: None)
    poisoned(trainer, {3, 5, 6})
    state = trainer.train()
    assert state.skipped == 3
    rows = read_log(tmp_path / "run" / "log.csv")
    assert [row["skipped"] for row in rows][:8] == [0, 0, 0, 1, 1, 2, 3, 3]
    assert math.isnan(rows[3]["loss"])
    assert all(torch.isfinite(value).all() for value in final(tmp_path / "run").values())


def test_ten_in_a_row_stop_the_run_with_the_weights_from_before(tmp_path):
    out, lines = tmp_path / "run", []
    trainer = Trainer(small_run(out, save_every=1), say=lines.append)
    poisoned(trainer, range(2, 99))
    with pytest.raises(ValueError, match="10 steps in a row had a loss or gradient that is not"):
        trainer.train()
    assert trainer.state.skipped == 10
    assert trainer.state.step == 12
    # The same two steps alone:
    settings = small_run(tmp_path / "good", save_every=1, log_every=1)
    healthy = Trainer(settings, say=lambda line: None, on_log=crash_at(2))
    with pytest.raises(Stop):
        healthy.train()
    for name, value in trainer.model.audio_projector.state_dict().items():
        assert torch.equal(value, healthy.model.audio_projector.state_dict()[name])
    assert checkpoints(out) == ["latest", "step-10", "step-11"]


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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_trains_the_projector_in_float32(tmp_path, dtype):
    # The decoder with ordinary weights: the talkative one makes the most of every rounding.
    changes = {"decoder": decoder_dir(), "log_every": 1, "max_utterances": 12}
    train(small_run(tmp_path / "exact", **changes))
    trainer, products = Trainer(small_run(tmp_path / "low", dtype=dtype, **changes), say=len), set()
    trainer.model.audio_projector.linear1.register_forward_hook(
        lambda *call: products.add(call[-1].dtype)
    )
    trainer.train()
    assert products == {getattr(torch, dtype)}
    assert {value.dtype for value in trainer.model.audio_projector.state_dict().values()} == {
        torch.float32
    }
    assert trainer.model.decoder.token_embeddings.dtype is getattr(torch, dtype)
    exact, low = (read_log(tmp_path / name / "log.csv") for name in ("exact", "low"))
    for one, other in zip(exact, low, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=0.02)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=0.1)
    assert low[-1]["loss"] != exact[-1]["loss"]


# Bad data ----------------------------------------------------------------------------------------


def test_a_torn_table_and_a_missing_column_are_errors_before_anything_is_written(tmp_path):
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(clips().read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"torn\.parquet"):
        train(small_run(tmp_path / "run", data=torn))
    with pytest.raises(ValueError, match="transcript"):
        train(small_run(tmp_path / "run", text_column="transcript"))
    assert not (tmp_path / "run").exists()


def test_when_all_clips_are_dropped_the_reason_is_counted(tmp_path):
    rows = [row | {"text": "..."} for row in some_rows(3)]
    with pytest.raises(ValueError, match=r"no usable clip .*no text 3"):
        train(small_run(tmp_path / "a", data=write_rows(tmp_path / "no-text.parquet", rows)))
    rows = [row | {"audio": b"no sound", "seconds": 1.0} for row in rows]
    rows = [row | {"text": "the cat"} for row in rows]
    with pytest.raises(ValueError, match=r"every clip of .* was dropped .*unreadable audio 3"):
        train(small_run(tmp_path / "b", data=write_rows(tmp_path / "no-sound.parquet", rows)))


def test_an_unreadable_clip_of_noise_is_named_and_the_rest_is_mixed_in(tmp_path):
    rows = some_rows(3, seed=7)
    rows[1]["audio"] = rows[1]["audio"][:2000]  # its header still says how long it was
    noise_data = write_rows(tmp_path / "noise.parquet", rows)
    mixed = {"noise_data": noise_data, "augment": {"noise_probability": 1.0}, "max_utterances": 12}
    trainer, said = train(small_run(tmp_path / "run", noise_fraction=0, **mixed))
    assert f"left out of {noise_data}: clip 'clip-7-1'" in said
    assert len(trainer.augment.noise) == 2 and trainer.state.utterances == 12
    for row in rows:
        row["audio"] = row["audio"][:60]
    bad = write_rows(tmp_path / "bad.parquet", [row | {"seconds": 1.0} for row in rows])
    with pytest.raises(ValueError, match=r"every clip of .*bad.parquet was dropped"):
        train(small_run(tmp_path / "bad", **mixed | {"noise_data": bad}))


@pytest.mark.parametrize("cached", [False, True])
def test_an_unreadable_clip_in_the_middle_is_counted_and_the_rest_is_trained_on(tmp_path, cached):
    rows = some_rows()
    rows[6]["audio"] = rows[6]["audio"][:2000]  # its header still says how long it was
    rows[7]["audio"] = encoded(torch.full((32_000,), math.nan), "WAV", "FLOAT")
    data = write_rows(tmp_path / "clips.parquet", rows)
    cache = tmp_path / "caches" if cached else None
    trainer, said = train(small_run(tmp_path / "run", data=data, cache=cache))
    assert trainer.state.utterances >= 48
    assert trainer.state.skipped == 0
    assert trainer.data.dropped.total() == 2  # once each, in four epochs
    assert "dropped 2: " in said
    assert "NaN or Inf 1" in said
    names = tmp_path / "run" / "left_out.csv"
    assert f"; named in {names}" in said
    rows = [line.split(",")[:2] for line in names.read_text().splitlines()]
    assert rows[0] == ["id", "reason"] and ["clip-0-7", "NaN or Inf"] in rows
    assert sorted(row[0] for row in rows[1:]) == ["clip-0-6", "clip-0-7"]
