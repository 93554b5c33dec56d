"""Notebook 05's own modules, `loop`, `runs` and `figures`, against other ways to compute it."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from fixtures_models import noise, pair, parameters, talkative
from matplotlib.colors import to_hex
from small_runs import TEXT, clips, final, small_run, train
from torch import nn

from tiny_asr import ASRModel
from tiny_asr.course import lesson_05_figures as figures
from tiny_asr.course import lesson_05_loop as loop
from tiny_asr.course import lesson_05_runs as runs
from tiny_asr.data.batches import make_batches
from tiny_asr.data.dataset import load_data
from tiny_asr.fast.activations import kept_for_backward
from tiny_asr.figures.style import MARK
from tiny_asr.training.log import read_log

# The loop ----------------------------------------------------------------------------------------


def batches(model, count: int = 5, **options):
    data = list(load_data(clips()))[:count]
    return loop.Batches(model, data, **({"utterances": count, "seconds": 6.0} | options))


def test_a_cached_batch_gives_the_loss_of_its_features():
    model = pair()
    (batch,) = batches(model, 3, seconds=20.0)
    data = sorted(list(load_data(clips()))[:3], key=lambda clip: -clip.seconds)
    found = sorted(batch["encoder_lengths"].tolist(), reverse=True)
    inputs = model.processor([c.load() for c in data], [c.text for c in data], sampling_rate=16_000)
    assert found == (inputs["feature_lengths"] // 2).tolist()
    with torch.no_grad():
        assert model(**batch).loss.item() == pytest.approx(model(**inputs).loss.item(), rel=1e-4)


def test_batches_hear_each_clip_before_any_again_and_encode_it_once(monkeypatch):
    model, encoded = pair(), []
    encode = model.encode_batch
    monkeypatch.setattr(model, "encode_batch", lambda p, n: encoded.extend(n) or encode(p, n))
    given = batches(model, utterances=10)
    sizes = [len(batch["labels"]) for batch in given]
    assert sum(sizes) == given.heard == 10 and len(encoded) == 5
    assert 5 in list(itertools.accumulate(sizes))
    assert sum(len(batch["labels"]) for batch in given) == 10  # once more, from the beginning


def test_the_course_s_loop_lowers_the_loss_and_changes_the_projector_alone():
    model, losses = ASRModel(talkative().config), []
    frozen = {k: v.clone() for k, v in model.state_dict().items() if "projector" not in k}
    loop.train(model, batches(model, 2, utterances=24, seconds=20.0), losses.append)
    assert len(losses) == 12 and losses[-1] < losses[0]
    assert all(torch.equal(model.state_dict()[name], old) for name, old in frozen.items())


def test_where_there_is_no_notebook_a_line_is_printed_at_each_look(capsys):
    model = ASRModel(talkative().config)
    given = batches(model, 2, utterances=4, seconds=6.0)
    show = loop.Live(model, {"a clip": noise(1.2)}, given)
    assert show.looks[0].texts == [model.transcribe(noise(1.2), 16_000)]
    loop.train(model, given, show)
    assert [heard for heard, _ in show.losses][-1] == show.looks[-1].heard == 4
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(show.looks) and "before the first step" in lines[0]
    assert f"{show.losses[-1][1]:.2f}" in lines[-1] and show.looks[-1].texts[0][:20] in lines[-1]


def test_in_a_notebook_one_figure_is_drawn_again(monkeypatch):
    drawn, model = [], ASRModel(talkative().config)
    handle = SimpleNamespace(update=drawn.append)
    monkeypatch.setattr(loop, "get_ipython", lambda: object())
    monkeypatch.setattr(loop, "display", lambda figure, display_id: drawn.append(figure) or handle)
    given = batches(model, 2, utterances=4)
    show = loop.Live(model, {"said: go": noise(1.2)}, given)
    loop.train(model, given, show)
    assert len(drawn) == len(show.looks)
    assert "4 of 4 utterances" in drawn[-1].alt and "not measured yet" in drawn[0].alt
    story = figures.from_gibberish_to_text(show.losses, show.looks)
    assert f"{show.looks[-1].heard}: " in story.alt


def test_a_long_transcript_is_shortened_to_one_line():
    assert figures.shortened("so\nit  is") == "so it is"
    assert len(figures.shortened("word " * 40)) == 62


def test_each_mistake_changes_the_run():
    model = ASRModel(talkative().config)
    cases = loop.patients(model, list(load_data(clips()))[:2], steps=4)
    assert set(cases) == {"healthy", *loop.PATIENTS}
    assert len({tuple(case.losses) for case in cases.values()}) == 5
    letter = {mistake: letter for letter, mistake in loop.PATIENTS.items()}
    assert len(set(cases[letter["wrong weights"]].losses)) == 1
    assert "healthy: " in figures.case_curves(cases).alt


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


# Runs --------------------------------------------------------------------------------------------


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


def test_the_schedule_peaks_where_the_warm_up_ends(tmp_path):
    settings = small_run(tmp_path, max_utterances=400, warmup_utterances=100, learning_rate=0.01)
    heard, rate = figures.schedule(settings).axes[0].lines[0].get_data()
    assert heard[list(rate).index(max(rate))] == 100
    assert max(rate) == pytest.approx(0.01) and rate[-1] == pytest.approx(0)
