"""Every projector that can be chosen: its length, its batches, its gradients, its files."""

import re
import sys

import pytest
import torch
from conftest import REPOSITORY
from fixtures_models import (
    ENCODER_DIM,
    LLM_DIM,
    decoder_dir,
    encoder_dir,
    pair,
    parameters,
    some_noises,
    talkative_decoder_dir,
)
from torch import Tensor
from torch.nn import functional as F

from tiny_asr import ASRConfig, ASRModel, AudioProjector
from tiny_asr.bench.flops import sizes
from tiny_asr.projectors import registry
from tiny_asr.projectors.base import Projector
from tiny_asr.projectors.registry import PROJECTORS, projector_class
from tiny_asr.shapes import record

NAMES = tuple(PROJECTORS)


def config_with(name: str, **fields) -> ASRConfig:
    fields = {"projector_hidden_dim": 64} | fields
    return ASRConfig(encoder_dir(), decoder_dir(), projector_type=name, **fields)


def fresh(name: str, **fields) -> Projector:
    table = pair().decoder.some_embeddings()
    return projector_class(name).fresh(config_with(name, **fields), 0, table)


def frames(*shape: int) -> Tensor:
    return torch.randn(*shape, ENCODER_DIM, generator=torch.Generator().manual_seed(0))


def rms(tensor: Tensor) -> Tensor:
    return tensor.float().pow(2).mean(dim=-1).sqrt()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate", [1, 4, 5])
def test_the_length_is_that_of_the_frames_by_the_rate(name, rate):
    projector = fresh(name, audio_downsample_rate=rate)
    for count in (1, 2, 3, 7, 30):
        output = projector(frames(2, count * rate))
        assert output.shape == (2, count, LLM_DIM)
        assert output.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beyond", ["noise", "huge"])
def test_a_batch_gives_the_same_as_its_clips_alone(name, beyond):
    projector, lengths = fresh(name), torch.tensor([5, 35, 20, 60, 10])
    batch = frames(5, 60)
    own = torch.arange(60) < lengths[:, None]
    scale = {"noise": 1.0, "huge": 1e3}[beyond]
    batch = torch.where(own[..., None], batch, scale * batch)
    together = projector(batch, lengths)
    for row, length, output in zip(batch, lengths.tolist(), together, strict=True):
        alone = projector(row[None, :length])[0]
        torch.testing.assert_close(output[: length // 5], alone, atol=1e-5, rtol=1e-5)


def test_without_the_mask_the_two_that_look_around_would_not():
    """So the test above can fail."""
    batch, lengths = frames(1, 60), torch.tensor([20])
    for name in ("convolution", "cross_attention"):
        projector = fresh(name)
        masked, unmasked = projector(batch, lengths)[0, :4], projector(batch)[0, :4]
        assert (masked - unmasked).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_of_a_clip_is_heard_and_none_of_the_padding(name):
    projector, lengths = fresh(name), torch.tensor([20])
    x = frames(1, 30).requires_grad_()
    projector(x, lengths)[:, :4].square().sum().backward()
    reached = x.grad[0].abs().amax(dim=1) > 0
    assert reached.tolist() == [True] * 20 + [False] * 10


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_each_weight_and_nothing_else(name):
    model = ASRModel(config_with(name)).train()
    batch = model.processor(some_noises()[:2], ["the cat", "sat there"], 16_000)
    model(**batch).loss.backward()
    trained = {f"audio_projector.{key}" for key, _ in model.audio_projector.named_parameters()}
    assert {key for key, weight in model.named_parameters() if weight.grad is not None} == trained
    for key, weight in model.audio_projector.named_parameters():
        assert weight.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_one_is_as_loud_as_the_tokens_and_depends_on_the_seed_alone(name):
    one, same = fresh(name), fresh(name)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    loudness, table = rms(one(frames(3, 50))), pair().decoder.some_embeddings()
    expected = table.pow(2).mean().sqrt().expand_as(loudness)
    torch.testing.assert_close(loudness, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_strictly(name, tmp_path):
    config = ASRConfig(encoder_dir(), talkative_decoder_dir(), projector_type=name)
    model = ASRModel(config)
    model.save_pretrained(tmp_path)
    again = ASRModel.from_pretrained(tmp_path)
    assert again.config.projector_type == name and again.untrained == ()
    assert type(again.audio_projector) is projector_class(name)
    for key, weight in model.audio_projector.state_dict().items():
        assert torch.equal(weight, again.audio_projector.state_dict()[key])
    assert again.transcribe(some_noises(), 16_000) == model.transcribe(some_noises(), 16_000)
    other = "mlp" if name != "mlp" else "swiglu"
    again.config.projector_type = other
    again.config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not fit this model"):
        ASRModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_batch_writes_what_its_clips_do_alone(name):
    model = ASRModel(ASRConfig(encoder_dir(), talkative_decoder_dir(), projector_type=name))
    with torch.no_grad():
        for weight in model.audio_projector.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    clips = some_noises()
    together = model.transcribe(clips, 16_000)
    assert together == [model.transcribe(clip, 16_000) for clip in clips]
    assert len(set(together)) > 1


@pytest.mark.parametrize("name", NAMES)
def test_it_is_traced_and_counted(name):
    model = ASRModel(config_with(name))
    with record(model) as recorder:
        model.generate([some_noises()[1]])
    assert recorder.stages["audio_embeddings"].tensor.shape == (1, 11, LLM_DIM)
    assert sizes(model.config)["projector"] == parameters(model.audio_projector)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_leaves_the_scale_alone(name):
    projector, x = fresh(name), frames(1, 50)
    with torch.autocast("cpu", torch.bfloat16):
        output = projector(x)
    assert output.dtype == torch.float32
    torch.testing.assert_close(rms(output), rms(projector(x)), rtol=0.01, atol=0)


def test_swiglu_by_hand():
    projector, x = fresh("swiglu"), frames(1, 10)
    with torch.no_grad():
        projector.input_norm.weight.copy_(torch.linspace(0.5, 2, 5 * ENCODER_DIM))
    stacks = torch.stack([torch.cat(list(x[0, :5])), torch.cat(list(x[0, 5:]))])
    stacks = stacks / (stacks.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    stacks = stacks * projector.input_norm.weight
    gate, up = stacks @ projector.gate.weight.T, stacks @ projector.up.weight.T
    outer = (gate * torch.sigmoid(gate) * up) @ projector.down.weight.T
    expected = outer / (outer.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    expected = expected * projector.output_norm.weight
    torch.testing.assert_close(projector(x)[0], expected, atol=1e-6, rtol=1e-4)


def test_convolution_by_hand():
    projector, x = fresh("convolution"), frames(1, 10)
    padded = F.pad(x[0], (0, 0, 2, 2))  # the neighbours beyond both ends
    kernel = projector.convolution.weight  # (hidden, encoder_dim, 9)
    rows = [
        (padded[start : start + 9].T * kernel).sum(dim=(1, 2)) + projector.convolution.bias
        for start in (0, 5)
    ]
    outer = projector.linear(F.gelu(torch.stack(rows)))
    expected = projector.output_norm(outer)
    torch.testing.assert_close(projector(x)[0], expected, atol=1e-5, rtol=1e-4)


def test_cross_attention_by_hand():
    """The second of two windows, which the clip fills up to its tenth frame."""
    projector, x = fresh("cross_attention"), frames(1, 25)
    own = x[0, 15:25]
    seen = own / (own.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() + projector.positions[:10]
    heads, width = projector.heads, 64 // projector.heads
    found = torch.zeros(2, 64)
    for head in range(heads):
        place = slice(head * width, (head + 1) * width)
        keys = seen @ projector.keys.weight[place].T
        values = seen @ projector.values.weight[place].T
        scores = projector.queries[:2, place] @ keys.T / width**0.5
        found[:, place] = scores.softmax(dim=-1) @ values
    outer = projector.linear2(F.gelu(projector.linear1(found)))
    expected = projector.output_norm(outer)
    torch.testing.assert_close(projector(x)[0, 3:], expected, atol=1e-5, rtol=1e-4)


def test_a_checkpoint_of_before_is_the_mlp(tmp_path):
    """Its config says nothing of the kind of projector or of padding."""
    pair().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    fields = config.read_text()
    for line in ('"projector_type": "mlp"', '"encoder_padding": "none"'):
        assert line in fields
        fields = fields.replace(f"  {line},\n", "")
    assert "projector_type" not in fields and "encoder_padding" not in fields
    config.write_text(fields)
    model = ASRModel.from_pretrained(tmp_path)
    assert (model.config.projector_type, model.config.encoder_padding) == ("mlp", "none")
    assert type(model.audio_projector) is AudioProjector
    names = list(model.audio_projector.state_dict())
    assert names == [
        "linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias", "output_norm.weight",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projector_type": "perceptron"}, "'perceptron' came; expected one of mlp, linear"),
        ({"projector_type": "os:system"}, "'os:system' came; expected one of mlp"),
        ({"encoder_padding": "all"}, "'all' came; expected one of .'none', 'window'"),
    ],
)
def test_unknown_names_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ASRConfig(encoder_dir(), decoder_dir(), **fields)


def test_another_projector_starts_fresh(tmp_path):
    model = ASRModel(config_with("mlp"))
    model.save_pretrained(tmp_path)
    config = ASRConfig.from_pretrained(tmp_path)
    assert config.with_parts(projector="mlp").projector_weights is not None
    other = config.with_parts(projector="convolution")
    assert other.projector_weights is None and config.projector_weights is not None
    assert ASRModel(other).untrained == ("projector",)


def test_training_another_kind(tmp_path, capsys, monkeypatch):
    """`train --projector` on a model that has an mlp, going on with it, and `info`."""
    from small_runs import small_run

    from tiny_asr.cli import main as cli
    from tiny_asr.training.trainer import Trainer

    start = ASRModel(ASRConfig(encoder_dir(), talkative_decoder_dir()))
    start.save_pretrained(tmp_path / "mlp")
    names = {"model": str(tmp_path / "mlp"), "encoder": None, "decoder": None}
    how = names | {"projector": "cross_attention", "cache": str(tmp_path / "cache")}
    settings = small_run(tmp_path / "run", **how)
    first = Trainer(settings, say=lambda line: None)
    begins = [weight.clone() for weight in first.model.audio_projector.parameters()]
    first.train()
    assert all(
        not torch.equal(old, new)
        for old, new in zip(begins, first.model.audio_projector.parameters(), strict=True)
    )
    again = Trainer(settings, say=lambda line: None)
    again.settings.max_utterances += 12
    again.train(resume=True)
    assert again.state.utterances > first.state.utterances
    config = ASRConfig.from_pretrained(tmp_path / "run")
    assert config.projector_type == "cross_attention" and config.projector_weights is not None

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tiny-asr", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out + err

    code, said = run("info", "--model", tmp_path / "run")
    assert code == 0 and "projector trained" in " ".join(said.split())
    assert "cross_attention" in said
    options = ["--data", settings.data, "--out", tmp_path / "b", "--model", tmp_path / "mlp"]
    code, said = run("train", *options, "--projector", "perceptron")
    assert code == 2 and "expected one of mlp, linear, swiglu" in said


# What docs/projectors.md shows: one more, by a contributor ---------------------------------------

PAGE = (REPOSITORY / "docs" / "projectors.md").read_text(encoding="utf-8")


@pytest.fixture
def mean(monkeypatch, tmp_path) -> str:
    """The page's own projector, in a file of its own, added as the page says."""
    code, adding = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert code.startswith("# my_projectors.py\n") and code.count("\n") <= 30
    (tmp_path / "my_projectors.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "PROJECTORS", dict(PROJECTORS))
    exec(adding, {})
    yield "mean"
    sys.modules.pop("my_projectors", None)


def test_a_contributor_adds_another(mean, tmp_path):
    test_the_length_is_that_of_the_frames_by_the_rate(mean, 4)
    test_a_batch_gives_the_same_as_its_clips_alone(mean, "huge")
    test_gradients_reach_each_weight_and_nothing_else(mean)
    test_saved_and_loaded_strictly(mean, tmp_path / "saved")
    test_it_is_traced_and_counted(mean)


def test_the_page_lists_all_of_them():
    assert set(re.findall(r"^\| `(\w+)`.*\|$", PAGE, flags=re.MULTILINE)) == PROJECTORS.keys()
