"""Frozen matrices in 8 bits: how far off they are, what is refused, and a run that trains on them.

Without a GPU the products are imitated: the same rounded numbers, multiplied in float32.
"""

import copy
import sys

import pytest
import torch
from fixtures_models import pair, talkative
from small_runs import clips, small_run, train
from torch import nn

from tiny_asr import ASRModel, puzzle_clip, sample_clip
from tiny_asr.fast.activations import kept_bytes_per_second
from tiny_asr.fast.fp8 import CAPABILITY, Fp8Linear, replace, use_fp8
from tiny_asr.fast.gpu_step import fits_gpu
from tiny_asr.kv_cache import KVCache, kinds_of_attention
from tiny_asr.training.settings import TrainingSettings

on_a_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < CAPABILITY,
    reason="there is no GPU here that multiplies 8-bit numbers",
)
SIZES = (64, 96)  # in, out


@pytest.fixture(autouse=True)
def any_distutils(monkeypatch):
    """See test_fast_paths.py."""
    if sys.version_info < (3, 12):
        monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")


def frozen(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(*SIZES, bias=bias).requires_grad_(False)


def off(came: torch.Tensor, expected: torch.Tensor) -> float:
    """The error as a share."""
    return ((came - expected).norm() / expected.norm()).item()


def there_and_back(layer: nn.Module, x: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
    """A layer's output, and the gradient of its input where that of the output is g."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y.detach(), *torch.autograd.grad(y, x, g.to(y.dtype))]


def in_8_bits(model: ASRModel) -> str:
    """What `use_fp8` does where there is a GPU for it."""
    counts = replace(model.encoder.whisper.layers, False), replace(model.decoder.layers, True)
    return "fp8: {} and {}".format(*counts)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (1,), (2, 5)])
def test_output_and_gradient_are_near_those_of_float32(bias, shape):
    linear = frozen(bias)
    linear.weight[3] = 0  # a row without a largest number
    x, g = torch.randn(*shape, SIZES[0]), torch.randn(*shape, SIZES[1])
    for scale in (1.0, 1e-12):  # gradients are small, and each row has a scale of its own
        exact = there_and_back(linear, x, g * scale)
        came = there_and_back(Fp8Linear(linear, gradient=True), x, g * scale)
        for ours, theirs in zip(came, exact, strict=True):
            assert ours.shape == theirs.shape and 0 < off(ours, theirs) < 0.05


def test_one_large_number_spoils_its_own_row_alone():
    linear, x = frozen(), torch.randn(6, SIZES[0])
    layer = Fp8Linear(linear, gradient=False)
    before = layer(x)
    x[2, 5] = 1e4
    after = layer(x)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(before[others], after[others]) and off(after[2], linear(x)[2]) < 0.05


def test_what_is_not_finite_stays_so():
    x = torch.zeros(3, SIZES[0])
    x[0, 0], x[1, 0] = float("nan"), float("inf")
    y = Fp8Linear(frozen(), gradient=False)(x)
    assert [row.isfinite().all().item() for row in y] == [False, False, True]


def test_the_dtype_stays_and_two_copies_are_as_large_as_one_of_16_bits():
    linear = frozen().bfloat16()
    layer = Fp8Linear(linear, gradient=True)
    assert layer(torch.randn(3, SIZES[0]).bfloat16()).dtype is torch.bfloat16
    assert layer.weight.nbytes + layer.back.nbytes == linear.weight.nbytes
    assert Fp8Linear(linear, gradient=False).back is None
    assert not any(p.requires_grad for p in layer.parameters())


def test_a_trained_pair_keeps_its_loss_its_gradient_and_its_text():
    model, plain = (ASRModel.from_pretrained("tiny") for _ in range(2))
    in_8_bits(model)
    assert not any(type(m) is nn.Linear for m in model.decoder.layers.modules())
    assert any(type(m) is nn.Linear for m in model.audio_projector.modules())
    assert type(model.decoder.language_model.lm_head) is nn.Linear
    found = []
    for each in (model, plain):
        batch = each.processor(sample_clip(), "she listens to the sea and its waves")
        loss = each(**batch).loss
        weights = [p for p in each.audio_projector.parameters() if p.requires_grad]
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])
        found.append((loss.item(), gradient))
    (loss, gradient), (exact_loss, exact) = found
    assert loss == pytest.approx(exact_loss, rel=0.05, abs=0.05)
    assert torch.cosine_similarity(gradient, exact, dim=0) > 0.9
    assert model.transcribe(sample_clip()) == plain.transcribe(sample_clip())
    assert model.transcribe(puzzle_clip())
    kept = kept_bytes_per_second(plain)  # weights in 8 bits are no activations either
    assert kept_bytes_per_second(model) == pytest.approx(kept, rel=0.1)


def test_a_gpu_would_write_by_the_librarys_step(monkeypatch):
    """The lean one reads matrices; a CPU's leaves the products to the layers."""
    model = copy.deepcopy(talkative())
    llm = model.decoder.language_model
    kinds = kinds_of_attention(llm.config)
    assert fits_gpu(llm, kinds)
    in_8_bits(model)
    assert not fits_gpu(llm, kinds)
    prompt, lengths = model.decoder.embed(torch.arange(12).view(2, 6)), torch.tensor([6, 6])

    def logits() -> torch.Tensor:
        cache = KVCache(llm, 2, 16)
        first = cache.read_prompt(prompt, lengths)
        return torch.stack([first, cache.read(prompt[:, :1]), cache.read(prompt[:, 1:2])])

    lean = logits()
    monkeypatch.setattr("tiny_asr.kv_cache.fits", lambda *_: False)
    torch.testing.assert_close(logits(), lean, rtol=0.1, atol=0.1 * lean.std().item())


def test_compiled_layers_have_no_gap_and_the_same_gradient():
    class MLP(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = Fp8Linear(frozen(), gradient=True)
            self.down = Fp8Linear(nn.Linear(*SIZES[::-1]).requires_grad_(False), gradient=True)

        def forward(self, x):
            return x + self.down(nn.functional.silu(self.up(x)))

    mlp = MLP()
    compiled = torch.compile(mlp, dynamic=True, fullgraph=True, backend="aot_eager")
    for count in (5, 9):
        x, g = torch.randn(2, 2, count, SIZES[0])
        for ours, theirs in zip(
            there_and_back(compiled, x, g), there_and_back(mlp, x, g), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


# What is refused ---------------------------------------------------------------------------------


def test_other_devices_are_refused(tmp_path):
    for run in (lambda: use_fp8(pair()), lambda: train(small_run(tmp_path / "run", fp8=True))):
        with pytest.raises(ValueError, match=r"fp8 came on cpu; expected a GPU .*: leave out fp8"):
            run()
    assert not (tmp_path / "run").exists()


def test_trained_weights_are_refused_and_odd_sizes_left_alone():
    layers = nn.ModuleList([nn.Sequential(nn.Linear(32, 48), nn.Linear(48, 40))])
    with pytest.raises(ValueError, match=r"trained, such as 0\.0\.weight; expected frozen ones"):
        replace(layers, gradient=True)
    assert replace(layers.requires_grad_(False), gradient=True) == 1
    assert type(layers[0][1]) is nn.Linear


def test_an_adapter_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.setattr("tiny_asr.training.trainer.check_device", lambda device: None)
    monkeypatch.setattr("tiny_asr.training.trainer.use_fp8", in_8_bits)
    with pytest.raises(ValueError, match="leave out fp8, or the adapter"):
        train(small_run(tmp_path / "run", fp8=True, adapter_rank=2))


# A run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [False, True])
def test_a_run_trains_is_evaluated_and_saves_no_8_bits(tmp_path, monkeypatch, cached):
    monkeypatch.setattr("tiny_asr.training.trainer.check_device", lambda device: None)
    monkeypatch.setattr("tiny_asr.training.trainer.use_fp8", in_8_bits)
    cache = tmp_path / "cache" if cached else None
    run = small_run(tmp_path / "run", fp8=True, eval_data=clips(4, 1), eval_limit=4, cache=cache)
    trainer, said = train(run)
    assert "fp8: " in said and "WER" in said and trainer.state.skipped == 0
    assert TrainingSettings.load(tmp_path / "run" / "run.yaml").fp8
    saved = ASRModel.from_pretrained(tmp_path / "run")
    assert not any(isinstance(m, Fp8Linear) for m in saved.modules())


# On a GPU ----------------------------------------------------------------------------------------


@on_a_gpu
@pytest.mark.parametrize("rows", [1, 7, 33, 256])  # no multiples of 16, too
@pytest.mark.parametrize("bias", [True, False])
def test_a_gpus_products_are_the_imitated_ones(rows, bias):
    linear = frozen(bias).bfloat16()
    x, g = torch.randn(rows, SIZES[0]).bfloat16(), torch.randn(rows, SIZES[1]).bfloat16()
    here = Fp8Linear(linear, gradient=True)
    there = copy.deepcopy(here).cuda()
    expected = there_and_back(here, x, g)
    compiled = torch.compile(there, dynamic=True, fullgraph=True)
    for layer in (there, compiled):
        for ours, theirs in zip(there_and_back(layer, x.cuda(), g.cuda()), expected, strict=True):
            assert off(ours.cpu().float(), theirs.float()) < 0.01


@on_a_gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_trains_and_evaluates_in_8_bits(tmp_path, compiled):
    run = small_run(
        tmp_path / "run", fp8=True, compile=compiled, device="cuda", eval_data=clips(4, 1)
    )
    trainer, said = train(run)
    assert "fp8: " in said and trainer.state.skipped == 0
