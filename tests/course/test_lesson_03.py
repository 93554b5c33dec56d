"""Notebook 03's own module, `lesson_03_gap`, against other ways to compute the same."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from tiny_asr import ASRModel, AudioProjector, load_audio, sample_clip
from tiny_asr.course import explorers
from tiny_asr.course import lesson_03_gap as gap
from tiny_asr.figures import plots


@pytest.fixture(scope="module")
def model():
    return ASRModel.from_pretrained("tiny")


@pytest.fixture(scope="module")
def clip():
    return load_audio(sample_clip())


@pytest.fixture(scope="module")
def encoder_output(model, clip):
    return model.encode(clip, 16_000)


@pytest.fixture(scope="module")
def labels(model):
    return model.processor.labels(["she listens to the sea"])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_fresh_projector_is_what_training_begins_with_and_leaves_the_model_alone(model):
    own = copy.deepcopy(model.audio_projector.state_dict())
    fresh = gap.fresh_projector(model).state_dict()
    now = model.audio_projector.state_dict()
    assert all(torch.equal(now[name], own[name]) for name in own)
    model.reset_projector()
    begins = copy.deepcopy(model.audio_projector.state_dict())
    model.audio_projector.load_state_dict(own)
    assert fresh.keys() == begins.keys()
    assert all(torch.equal(fresh[name], begins[name]) for name in fresh)


def test_cosines():
    vectors, others = noise(4, 6), noise(5, 6, seed=1)
    for row, column in ((0, 0), (3, 4)):
        by_hand = vectors[row] @ others[column] / vectors[row].norm() / others[column].norm()
        assert gap.cosines(vectors, others)[row, column] == pytest.approx(by_hand.item(), 1e-5)


def test_a_token_is_not_its_own_nearest_token():
    tokens = F.one_hot(torch.arange(4)).float()
    best = gap.best_cosines(tokens, {"cloud": 3 * tokens[:2]})
    assert best["tokens"].tolist() == [0, 0, 0, 0]
    assert best["cloud"].tolist() == pytest.approx([1, 1])
    assert len(best["random directions"]) == 4


def test_the_gap_of_clouds_whose_place_is_known():
    tokens = torch.cat([torch.ones(40, 1), 0.1 * noise(40, 7)], dim=1)  # all point along axis 0
    far = torch.cat([0.1 * noise(20, 7, seed=1), torch.ones(20, 1)], dim=1)  # along the last
    among = tokens[::2] * 2
    rows = {r["cloud"]: r for r in gap.gap_table(tokens, {"far": far, "among": among}).rows}
    neighbours = {name: float(row["tokens among the 10 nearest"]) for name, row in rows.items()}
    assert neighbours["tokens"] == 10 and neighbours["far"] == 0 and neighbours["among"] > 5
    assert float(rows["among"]["cosine to the nearest token"]) == 1
    assert float(rows["far"]["cosine to the nearest token"]) < 0.5
    pairs = [F.cosine_similarity(a, b, dim=0) for i, a in enumerate(far) for b in far[:i]]
    alike = float(rows["far"]["cosine among themselves"])
    assert alike == pytest.approx(float(torch.stack(pairs).mean()), abs=0.01)
    loud = far.square().mean(dim=1).sqrt().median().item()
    assert float(rows["far"]["median loudness (RMS)"]) == pytest.approx(loud, abs=0.001)


def test_one_pass_measures_the_slope_of_the_loss(model, encoder_output, labels):
    """The gradient against a small step along it."""
    projector = gap.fresh_projector(model)
    found = gap.one_pass(model, projector, encoder_output, labels, scale=2.0)
    embeddings = (2 * projector(encoder_output)).detach().requires_grad_()
    loss = gap.loss_of(model, embeddings, labels)
    loss.backward()
    assert found.loss == pytest.approx(loss.item(), 1e-5)
    assert found.loudness == pytest.approx(embeddings.square().mean().sqrt().item(), 1e-5)
    assert found.at_embeddings == pytest.approx(embeddings.grad.norm().item(), 1e-4)
    step = 1e-2 * embeddings.square().mean().sqrt() * embeddings.grad / embeddings.grad.norm()
    with torch.no_grad():
        ends = [gap.loss_of(model, embeddings + sign * step, labels) for sign in (1, -1)]
    slope = (ends[0] - ends[1]).item() / (2 * step.norm().item())
    assert found.at_embeddings == pytest.approx(slope, rel=0.05)
    assert all(p.grad is None for p in projector.parameters())


def test_one_pass_is_what_the_model_computes(model, encoder_output, labels):
    found = gap.one_pass(model, model.audio_projector, encoder_output, labels)
    with torch.no_grad():
        loss = model(encoder_output=encoder_output, labels=labels).loss
    assert found.loss == pytest.approx(loss.item(), 1e-5)


def test_one_sentence_is_learnt_by_the_projector_alone(model, encoder_output, labels):
    projector = gap.fresh_projector(model)
    before = projector.linear1.weight.clone()
    first = gap.one_pass(model, projector, encoder_output, labels).loss
    steps = list(gap.learn_by_heart(model, projector, encoder_output, labels, steps=8, every=4))
    assert [step for step, _, _ in steps] == [0, 4, 8]
    losses = [loss for _, loss, _ in steps]
    assert losses[0] == pytest.approx(first, 1e-5) and losses[2] < losses[1] < losses[0]
    assert not torch.equal(projector.linear1.weight, before)
    assert all(p.grad is None for p in model.decoder.parameters())


def test_a_token_is_first_in_a_line_up_where_it_lies():
    table = noise(30, 40)
    vectors = torch.stack([table[4] + 0.1 * table[9], table[7], noise(40, seed=3)])
    assert gap.lineup(vectors, table, [4, 7, 9]) == [(0, 1), (1, 1), (0, 2)]


def test_a_broken_projector_is_the_trained_one_but_for_one_mistake(model, encoder_output):
    trained, frames = model.audio_projector, encoder_output[0]
    with torch.no_grad():
        right = trained(encoder_output)[0]
        reversed_, loud, far = gap.broken(trained, frames, 5).values()
        stacks = frames.reshape(-1, 5 * frames.shape[1])
        assert torch.allclose(gap.finish(trained, stacks), right, atol=1e-4)
        back = trained(frames.reshape(-1, 5, frames.shape[1]).flip(1).reshape(1, *frames.shape))
    assert torch.allclose(reversed_, back[0], atol=1e-4)
    assert torch.allclose(
        F.normalize(loud * trained.output_norm.weight, dim=1), F.normalize(right, dim=1), atol=1e-4
    )
    assert far.shape == right.shape and not torch.allclose(far, right, atol=1e-2)


@pytest.mark.parametrize("rate", [1, 5, 7])
def test_the_cost_of_a_rate(model, clip, rate):
    cost = explorers.rate_cost(model, len(clip), 14, rate)
    config = type(model.config).from_pretrained("tiny", audio_downsample_rate=rate)
    projector = AudioProjector(config)
    assert cost["parameters"] == sum(p.numel() for p in projector.parameters())
    assert cost["A"] == math.ceil(len(clip) / (320 * rate))
    assert cost["positions"] == model.decoder.prompt_length + cost["A"] + 14
    matrices = sum(p.numel() for p in model.decoder.language_model.model.layers.parameters())
    norm = model.config.llm_dim  # the last one, outside the layers
    assert cost["flops"] == 2 * (matrices + norm) * cost["positions"]


def test_figures_say_what_they_show(model, clip, encoder_output, labels):
    fresh = gap.fresh_projector(model)
    with torch.no_grad():
        before, after = fresh(encoder_output)[0], model.audio_projector(encoder_output)[0]
    tokens = model.decoder.some_embeddings()
    passes = [gap.one_pass(model, fresh, encoder_output, labels, s) for s in (0.1, 1)]
    figures = {
        "30 audio embeddings of one clip": gap.clouds_view(tokens, before, after),
        "from 0.0 to 3.0 s": gap.nearest_along(model, clip, {"fresh": before}),
        "stack 1 frames 5 to 9": gap.stacking(encoder_output, 5),
        f"{passes[0].loss:.2f}": gap.loudness_view(model, {"a": passes, "b": passes}),
        "15 pieces of 200 ms, rate 10": explorers.rate_view(model, clip, 14, rate=10),
    }
    for words, figure in figures.items():
        assert words in figure.alt
        assert plots.png(figure) == plots.png(figure)


def test_the_nearest_tokens_are_named_and_a_long_clip_is_cut_into_pages(model):
    ids = torch.arange(300, 340)
    vectors = 7 * model.decoder.token_embeddings[ids].detach()
    clip = torch.zeros(40 * 1600)
    figure = gap.nearest_along(model, clip, {"tokens": vectors}, start=1.0)
    assert "30 audio embeddings from 1.0 to 4.0 s" in figure.alt
    names = [model.processor.tokenizer.decode(i).replace(" ", "\u2423") for i in ids[10:]]
    assert " ".join(name for name in names if len(name) < 7)[:20] in figure.alt
    assert "mean cosine 1.00" in figure.alt
    assert "32 audio embeddings" in gap.nearest_along(model, clip, {"tokens": vectors}).alt


def test_the_slider_draws_each_rate_and_says_what_it_costs(model, clip):
    explorer = explorers.explore_rate(model, clip, 14)
    slider, words, image = explorer.children
    assert slider.value == model.config.audio_downsample_rate
    first = image.value
    slider.value = 10
    assert image.value != first and "15 embeddings for 14 tokens" in words.value
    assert repr(explorer) == (
        "explore_rate: a slider, in a running notebook; the figure beside it stands still"
    )
