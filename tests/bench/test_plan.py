"""The plan of a training agrees with what was measured, and with what the package predicts."""

import json

import pytest
import torch
from conftest import REPOSITORY
from fixtures_models import encoder_dir
from small_runs import clips

from tiny_asr import ASRConfig, ASRModel
from tiny_asr.adapters.lora import adapter_parameters, add_adapter
from tiny_asr.bench import plan as plans
from tiny_asr.bench.plan import GPU, SHARES, memory_of, plan, read_gpus
from tiny_asr.fast.activations import SPARE, kept_bytes_per_second
from tiny_asr.training.settings import TrainingSettings

FULL = ASRConfig.from_pretrained("full")
H200 = next(gpu for gpu in read_gpus() if gpu.name == "H200 SXM")


def measured(name: str) -> dict:
    return json.loads((REPOSITORY / "docs" / "speed" / f"{name}.json").read_text())


def settings(**changes) -> TrainingSettings:
    return TrainingSettings(**{"data": "some/speech", "out": "runs/x", "model": "full"} | changes)


@pytest.mark.parametrize(("name", "compiled"), [("h200-not-compiled", False), ("h200-now", True)])
def test_shapes_alone_predict_the_activations_that_a_gpu_kept(name, compiled):
    result, memory = measured(name), memory_of(FULL, compiled)
    kept = memory.once * result["batch_seconds"] / 2**30
    assert kept == pytest.approx(result["kept_gib_predicted"], rel=0.01)
    peak = result["stages"][0]["peak_gib"]
    assert peak == pytest.approx(memory.weights / 2**30 + kept, rel=0.1)
    assert memory.twice < 0.3 * memory.once


def test_shapes_alone_predict_what_a_loaded_model_keeps():
    model = ASRModel.from_pretrained("tiny", dtype=torch.bfloat16)
    assert memory_of(model.config).once == pytest.approx(kept_bytes_per_second(model), rel=0.15)


@pytest.mark.parametrize(("name", "compiled"), [("h200-not-compiled", False), ("h200-now", True)])
def test_the_shares_of_the_peak_are_the_measured_ones(name, compiled):
    result = measured(name)
    for stage, cached in zip(result["stages"][:2], (False, True), strict=True):
        share = stage["of_floor"] * result["matmul_tflops"] / H200.tflops
        assert SHARES[compiled, cached] == pytest.approx(share, abs=0.002)
    seconds, speed = result["mean_seconds"], result["train_uncached_per_second"]
    plans.CLIP_SECONDS, before = seconds, plans.CLIP_SECONDS
    try:
        (row,) = plan(settings(compile=compiled), [H200])["gpus"]
    finally:
        plans.CLIP_SECONDS = before
    assert 40_000 / row["hours"] / 3600 == pytest.approx(speed, rel=0.06)


def test_a_gpu_takes_what_training_would_find_to_fit():
    memory, small = memory_of(FULL), GPU("small", 16, 65, 0.4)
    for fits, seconds in (("yes", 90), ("twice", 200), ("twice", 600), ("no", 700)):
        (row,) = plan(settings(batch_seconds=seconds), [small])["gpus"]
        assert row["fits"] == fits
        free = SPARE * (16e9 - memory.weights)
        assert (memory.once * seconds + memory.ready < free) is (fits == "yes")
    assert row["hours"] is None and row["dollars"] is None
    quick, slow = (plan(settings(batch_seconds=n), [small])["gpus"][0] for n in (90, 200))
    assert 1.2 < slow["hours"] / quick["hours"] < 1.6  # the decoder's layers are computed again


def test_a_cpu_is_as_fast_as_tiny_was_there_and_computes_in_32_bits(tmp_path):
    cpu = read_gpus()[-1]
    assert cpu.is_cpu and not H200.is_cpu
    plans.CLIP_SECONDS, before = 4.5, plans.CLIP_SECONDS
    try:
        (row,) = plan(settings(model="tiny"), [cpu])["gpus"]
        (cached,) = plan(settings(model="tiny", cache="c", limit=10), [cpu])["gpus"]
    finally:
        plans.CLIP_SECONDS = before
    assert 40_000 / row["hours"] / 3600 == pytest.approx(14.1, rel=0.03)  # docs/speed.md
    assert 40_000 / cached["hours"] / 3600 == pytest.approx(25.4, rel=0.2)
    (full,) = plan(settings(), [cpu])["gpus"]
    assert (full["fits"], full["hours"], full["largest_batch_seconds_twice"]) == ("no", None, 0)
    assert full["needs_gb"] > 2 * 7.7


@pytest.mark.parametrize("rank", [None, 8])
def test_shapes_alone_predict_what_a_cpu_and_an_adapter_keep(rank):
    model = ASRModel.from_pretrained("tiny")
    if rank is not None:
        add_adapter(model.decoder.language_model, rank)
    memory = memory_of(model.config, adapter_rank=rank, cpu=True)
    assert memory.once == pytest.approx(kept_bytes_per_second(model), rel=0.15)
    trained = [*model.audio_projector.parameters()]
    adapter = adapter_parameters(model.decoder.language_model)
    assert memory.adapter == sum(matrix.numel() for matrix in adapter)
    frozen = sum(w.numel() for w in model.parameters()) - sum(w.numel() for w in trained + adapter)
    assert memory.weights == 16 * sum(w.numel() for w in trained + adapter) + 4 * frozen


def test_a_plan_counts_the_adapter_that_is_asked_for_or_in_the_checkpoint(tmp_path):
    without, made = (plan(settings(model="tiny", adapter_rank=r), [H200]) for r in (None, 8))
    assert without["adapter_parameters"] == 0 < made["adapter_parameters"]
    needs = [each["gpus"][0]["needs_gb"] for each in (without, made)]
    assert needs[1] - needs[0] > 16 * made["adapter_parameters"] / 1e9
    assert made["petaflop"] > without["petaflop"]
    model = ASRModel.from_pretrained("tiny")
    add_adapter(model.decoder.language_model, 8)
    model.save_pretrained(tmp_path)
    again = plan(settings(model=str(tmp_path)), [H200])
    assert again["adapter_parameters"] == made["adapter_parameters"] and again["adapter_rank"] == 8


def test_small_models_do_not_train_faster_than_medium_did():
    (row,) = plan(settings(model="medium", max_utterances=361_694), [H200])["gpus"]
    assert row["hours"] * 3600 == pytest.approx(699 * 361_694 * 12.7 / (731 * 3600), rel=0.01)


def test_what_is_here_is_read_and_what_is_not_would_be_fetched():
    made = plan(settings(data=str(clips()), cache="cache", cache_versions=2), [H200])
    assert made["clips"] == 12 and made["clip_seconds"] == pytest.approx(1.27, abs=0.05)
    hours = made["clips"] * made["clip_seconds"] / 3600
    assert made["cache_gb"] == pytest.approx(hours * made["cache_gb_per_hour"])
    assert made["cache_gb_per_hour"] == pytest.approx(2 * 3600 * 50 * 1280 * 2 / 1e9)
    made |= plan(settings(data="librispeech:test-clean", eval_data=str(clips())), [H200])
    assert made["stream"] == ["librispeech:test-clean"] and made["clips"] is None
    fetched = made["download_gb"]
    assert fetched["HuggingFaceTB/SmolLM3-3B"] == pytest.approx(6.15, abs=0.01)
    assert fetched["openai/whisper-large-v3-turbo"] == pytest.approx(1.62, abs=0.01)
    assert plan(settings(limit=100), [H200])["clips"] == 100
    assert plan(settings(model="tiny", encoder=str(encoder_dir())), [H200])["download_gb"] == {}
