"""Notebook 05's own modules, `runs` and `figures`, against other ways to compute it."""

import itertools

import pytest
import torch
from fixtures_models import noise, pair, parameters, talkative
from matplotlib.colors import to_hex
from small_runs import TEXT, clips, final, small_run, train
from torch import nn
from torch.nn import functional as F

from tiny_asr import ASRModel
from tiny_asr.course import lesson_05_figures as figures
from tiny_asr.course import lesson_05_runs as runs
from tiny_asr.data.batches import make_batches
from tiny_asr.data.dataset import load_data
from tiny_asr.decoder import TextDecoder, token_loss
from tiny_asr.fast.activations import kept_for_backward
from tiny_asr.figures.style import MARK
from tiny_asr.training.checkpoint import TrainingState
from tiny_asr.training.log import read_log

# Watching ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watch():
    """What was seen of a clip at 0, 10, 20, ... 90 utterances, as the projector gets louder."""
    watch = runs.Watch(noise(1.2), say=lambda line: None)
    model = ASRModel(talkative().config)
    for utterances in range(0, 100, 10):
        losses = [5 - utterances / 20] if utterances else []
        watch(TrainingState(utterances=utterances, losses=losses), model)
        with torch.no_grad():
            for weight in model.audio_projector.parameters():
                weight.mul_(1.1)
    return watch


def test_a_snapshot_is_what_the_model_writes_and_its_embeddings():
    model, lines = talkative(), []
    watch = runs.Watch(noise(1.2), say=lines.append)
    watch(TrainingState(utterances=40, losses=[4.0, 2.5]), model)
    (shot,) = watch.snapshots
    assert shot.text == model.transcribe(noise(1.2), 16_000)
    expected = model.audio_projector(model.encode(noise(1.2), 16_000))[0]
    assert torch.equal(shot.embeddings, expected)
    assert lines == [f"    40 utterances  loss  2.50  {runs.shortened(shot.text)}"]


def test_a_trainer_calls_the_watch_after_each_interval(tmp_path):
    watch = runs.Watch(noise(0.8), say=lambda line: None)
    trainer, _ = train(small_run(tmp_path / "run", max_utterances=24), on_log=watch)
    rows = read_log(tmp_path / "run" / "log.csv")
    assert [shot.utterances for shot in watch.snapshots] == [row["utterances"] for row in rows]
    assert [shot.loss for shot in watch.snapshots] == pytest.approx([row["loss"] for row in rows])
    last = trainer.model.audio_projector(trainer.model.encode(noise(0.8), 16_000))[0]
    assert torch.equal(watch.snapshots[-1].embeddings, last)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_some_snapshots_go_from_the_first_to_the_last(watch, count):
    heard = [shot.utterances for shot in watch.some(count)]
    assert heard[0] == 0 and heard[-1] == 90 and heard == sorted(set(heard))
    assert len(heard) <= count


def test_a_long_transcript_is_shortened_to_one_line():
    assert runs.shortened("so\nit  is") == "so it is"
    assert len(runs.shortened("word " * 40)) == runs.LONGEST


# What is kept ------------------------------------------------------------------------------------


def test_the_table_of_gradients_counts_the_projector_alone():
    model = ASRModel(talkative().config)
    inputs = model.processor([noise(1.0)], ["the cat"], sampling_rate=16_000)
    model(**inputs).loss.backward()
    rows = {row["part"]: row for row in runs.gradient_table(model).rows}
    count = parameters(model.audio_projector)
    assert rows["projector"]["with a gradient"] == f"{count:,}"
    assert rows["projector"]["MB of AdamW"] == f"{8 * count / 1e6:.1f}"
    for part in ("encoder", "decoder"):
        assert rows[part]["with a gradient"] == "0"
        assert rows[part]["weights"] == f"{parameters(getattr(model, part)):,}"


def test_activations_are_counted_once_and_weights_not_at_all():
    model = nn.Linear(10, 10)
    inputs = torch.randn(50, 10, requires_grad=True)

    def compute():
        hidden = model(inputs).exp()  # keeps its result: 50 x 10
        return (hidden * hidden).sum()  # keeps the same again

    loss, kept = kept_for_backward(model, compute)
    assert kept == 4 * (inputs.numel() + 50 * 10)
    loss.backward()
    assert inputs.grad is not None


# Broken runs -------------------------------------------------------------------------------------


def test_a_run_as_it_should_be_is_the_trainer_s(tmp_path):
    settings = small_run(tmp_path / "ours", max_utterances=24)
    outcome = runs.run_ablation("as it should be", settings)
    train(small_run(tmp_path / "theirs", max_utterances=24))
    theirs = read_log(tmp_path / "theirs" / "log.csv")
    assert [row["loss"] for row in outcome.rows] == [row["loss"] for row in theirs]


def test_each_ablation_changes_the_run(tmp_path):
    losses = {}
    for name in runs.ABLATIONS:
        settings = small_run(tmp_path, max_utterances=24, eval_limit=2)
        losses[name] = [row["loss"] for row in runs.run_ablation(name, settings, 2).rows]
    assert len({tuple(each) for each in losses.values()}) == len(losses)


def test_a_stale_optimiser_changes_no_weight(tmp_path):
    before = {}

    class Noting(runs.StaleOptimizer):
        def train(self, resume=False):
            before.update({k: v.clone() for k, v in self.projector.state_dict().items()})
            return super().train(resume)

    settings = small_run(tmp_path, max_utterances=24)
    trainer = Noting(settings, say=lambda line: None)
    runs.ABLATIONS["frozen by mistake"].spoil(trainer)
    trainer.train()
    after = trainer.projector.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_without_a_prompt_trains_without_and_writes_with_it(tmp_path, monkeypatch):
    seen = {}
    text_logits, write = TextDecoder.text_logits, TextDecoder.write
    monkeypatch.setattr(
        TextDecoder,
        "text_logits",
        lambda self, *a: seen.update(train=self.prompt_length) or text_logits(self, *a),
    )
    monkeypatch.setattr(
        TextDecoder,
        "write",
        lambda self, *a, **k: seen.update(write=self.prompt_length) or write(self, *a, **k),
    )
    runs.run_ablation("no prompt in training", small_run(tmp_path, max_utterances=12), 2)
    assert seen == {"train": 0, "write": pair().decoder.prompt_length}


def test_unmasked_labels_are_a_mean_over_every_position(tmp_path):
    settings = small_run(tmp_path, limit=1)
    trainer = runs.Unmasked(settings, say=lambda line: None)
    (batch,) = first_batch(trainer)
    labels = trainer.model.processor.labels(batch.texts)
    came = trainer._summed_loss(0, batch, labels) / labels.numel()
    # One clip, no padding: the ids of the whole sequence, 0 where the audio is, one by one.
    model, decoder = trainer.model, trainer.model.decoder
    frames, lengths = trainer._encoder_output(0, batch)
    audio = model.audio_projector(frames)
    before, after = decoder.prompt_before[0].tolist(), decoder.prompt_after[0].tolist()
    ids = [0] * (len(before) + audio.shape[1]) + after + labels[0].tolist()
    text = decoder.embed(torch.tensor([after + labels[0].tolist()]))
    embeddings = torch.cat([decoder.embed(torch.tensor([before])), audio, text], dim=1)
    logits = decoder.language_model(inputs_embeds=embeddings).logits[0, :-1]
    expected = F.cross_entropy(logits, torch.tensor(ids[1:]))
    assert came.item() == pytest.approx(expected.item(), rel=1e-4)
    assert came.item() != pytest.approx(
        token_loss(decoder.text_logits(audio, lengths // 5, labels), labels).item(), rel=1e-3
    )


def first_batch(trainer):
    """The one batch of a run on one clip."""
    return [batch for _, batch in itertools.islice(trainer._stream(), 1)]


def test_outcomes_are_stored_and_read_again(tmp_path):
    rows = [{"utterances": 100.0, "loss": 4.125}, {"utterances": 201.0, "loss": 0.5}]
    outcomes = {
        "one, first": runs.Outcome(rows, 0.25),
        "two": runs.Outcome(rows[:1], 1.0),
    }
    runs.write_outcomes(tmp_path / "runs.csv", outcomes)
    assert runs.read_outcomes(tmp_path / "runs.csv") == outcomes


def test_a_folder_that_is_taken_gets_a_number(tmp_path):
    assert runs.unused(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").mkdir()
    assert runs.unused(tmp_path / "run") == tmp_path / "run-3"


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    changes = {"log_every": 1, "save_every": 12, "max_utterances": 48}
    killed = small_run(tmp_path / "killed", **changes)
    line = runs.kill_at(6, killed)
    assert line.startswith("step") and 6 <= int(line.split()[1]) < 16
    assert not (tmp_path / "killed" / "checkpoints" / "step-16").exists()
    _, said = train(killed, resume=True)
    assert "resumed at step" in said
    train(small_run(tmp_path / "whole", **changes))
    ours, theirs = final(tmp_path / "killed"), final(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    logs = [read_log(tmp_path / name / "log.csv") for name in ("killed", "whole")]
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]


def test_a_run_that_ends_before_it_is_killed_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="not killed at step 99"):
        runs.kill_at(99, small_run(tmp_path / "run", max_utterances=12))


# What it costs -----------------------------------------------------------------------------------


def test_what_stays_in_memory_is_two_bytes_a_frozen_weight_and_sixteen_a_trained_one():
    model = pair()
    frozen = parameters(model.encoder) + parameters(model.decoder)
    trained = parameters(model.audio_projector)
    assert runs.training_bytes(model.config) == 2 * frozen + 16 * trained
    assert runs.training_bytes(model.config, all_trained=True) == 16 * (frozen + trained)


# Figures -----------------------------------------------------------------------------------------


def test_the_padded_share_is_that_of_the_blocks_of_zeros():
    data = load_data(clips())
    for batches in (
        figures.random_batches(data, 6.0),
        make_batches(data, max_seconds=6.0, seed=0, epoch=0),
    ):
        assert sorted(itertools.chain(*batches)) == list(range(len(data)))
        computed = padding = 0.0
        for batch in batches:
            longest = max(data[index].seconds for index in batch)
            assert len(batch) * longest <= 6.0
            computed += len(batch) * longest
            padding += sum(longest - data[index].seconds for index in batch)
        assert figures.padded_share(data, batches) == pytest.approx(padding / computed)


def test_the_mask_marks_each_target_once():
    model = pair()
    labels = model.processor.labels([TEXT])[0]
    figure = figures.loss_mask(model, TEXT, embeddings=17)
    faces = [to_hex(patch.get_facecolor()).upper() for patch in figure.axes[0].patches]
    assert faces.count(MARK) == len(labels)
    assert f"{model.decoder.prompt_length + 17 + len(labels) - 1} positions" in figure.alt
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown.count("-100") == len(faces) // 2 - len(labels)


def test_loss_curves_leave_out_what_is_not_finite():
    rows = [{"utterances": 10.0 * i, "loss": loss} for i, loss in enumerate((5.0, None, 2.0))]
    rows.append({"utterances": 30.0, "loss": float("nan")})
    figure = figures.loss_curves({"a run": rows}, "some runs")
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[0.0, 5.0], [20.0, 2.0]]
    assert "a run: 5.00 at 0, 2.00 at 20" in figure.alt


def test_the_schedule_peaks_where_the_warm_up_ends(tmp_path):
    settings = small_run(tmp_path, max_utterances=400, warmup_utterances=100, learning_rate=0.01)
    heard, rate = figures.schedule(settings).axes[0].lines[0].get_data()
    assert heard[list(rate).index(max(rate))] == 100
    assert max(rate) == pytest.approx(0.01) and rate[-1] == pytest.approx(0)


def test_the_pictures_of_a_run_tell_what_was_seen(watch):
    rows = [{"utterances": float(u), "loss": 5 - u / 20} for u in range(10, 100, 10)]
    figure = figures.from_gibberish_to_text(rows, watch)
    assert "90: 0.50" in figure.alt and f"{watch.snapshots[-1].text[:4]}" in figure.alt
    moving = figures.moving(watch, talkative())
    table = talkative().decoder.token_embeddings
    for place in (0, 4, 8):
        shot = watch.snapshots[place]
        pairs = F.cosine_similarity(shot.embeddings[:, None], table[None], dim=2)
        near = pairs.amax(dim=1).mean()
        assert f"{shot.utterances}: {near:.2f}" in moving.alt
