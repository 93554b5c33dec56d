"""The benchmark's numbers are there and fit together; how large they are depends on the machine."""

import json
import re

import pytest
import soundfile
from fixtures_models import decoder_dir, encoder_dir, once

from tiny_asr.bench.benchmark import measure, measure_gpus, write_mix
from tiny_asr.bench.stages import describe
from tiny_asr.cli.training import _speeds
from tiny_asr.data.dataset import load_data

POSITIVE = (
    "train_uncached_per_second",
    "train_cached_per_second",
    "decode_mel_encoder_per_second",
    "cache_read_per_second",
    "read_speedup",
    "gain_measured",
    "gain_predicted",
    "rtfx_batch_1",
    "rtfx_batch_16",
    "rtfx_batch_1_int8",
    "mean_seconds",
    "torch_threads",
)


@once
def small_measurement() -> dict:
    """One round with random models on a few clips of the bundled sentence."""
    parts = {"encoder": str(encoder_dir()), "decoder": str(decoder_dir())}
    return measure(
        **parts, device="cpu", utterances=5, rounds=1, batch_seconds=12.0, say=lambda line: None
    )


def test_every_number_is_there_and_goes_into_json():
    result = json.loads(json.dumps(small_measurement()))
    assert [name for name in POSITIVE if not result[name] > 0] == []
    assert result["utterances"] == 5 and result["rounds"] == 1
    assert result["device"] == "cpu" and result["dtype"] == "float32"
    assert result["untrained"] == ["projector"]
    assert result["parameters"].keys() == {"encoder", "decoder", "audio_projector"}
    for name in ("share_outside_models_uncached", "share_outside_models_cached"):
        assert result[name] < 1


def test_it_is_printed_as_a_table():
    out = _speeds(small_measurement())
    for label in ("machine", "training", "cache", "gain", "transcription", "outside models"):
        assert re.search(rf"^{label} ", out, re.MULTILINE), label
    assert "Amdahl" in out


def test_the_numbers_fit_together():
    r = small_measurement()
    assert r["read_speedup"] == pytest.approx(
        r["cache_read_per_second"] / r["decode_mel_encoder_per_second"]
    )
    assert r["gain_measured"] == pytest.approx(
        r["train_cached_per_second"] / r["train_uncached_per_second"]
    )
    cached, read = 1 / r["train_cached_per_second"], 1 / r["cache_read_per_second"]
    front = 1 / r["decode_mel_encoder_per_second"]
    assert r["gain_predicted"] == pytest.approx((front + cached - read) / cached)  # Amdahl


def test_each_stage_is_compared_with_its_floor():
    r = small_measurement()
    names = [(row["stage"], row["batch"]) for row in r["stages"]]
    alone = ("encoder", "prompt", "writing", "transcription")
    assert names[2:] == [(stage, batch) for batch in (1, 16) for stage in alone]
    assert [stage for stage, _ in names[:2]] == ["training, uncached", "training, cached"]
    for row in r["stages"]:
        assert row["of_floor"] == pytest.approx(row["per_second"] / row["floor_per_second"])
        assert 0 < row["of_floor"] < 1, row
        assert row["peak_gib"] is None  # of a GPU
    uncached, cached = (row["floor_per_second"] for row in r["stages"][:2])
    assert uncached < cached
    assert r["stages"][0]["per_second"] == r["train_uncached_per_second"]
    assert r["matmul_tflops"] > 0 and r["copy_tb_per_second"] > 0 and r["kept_gib_predicted"] > 0
    said = describe(r["stages"][0] | {"per_second": 1234.5, "of_floor": 0.567})
    assert (
        said
        == f"training, uncached, batch {names[0][1]} ".ljust(29)
        + "   1234.5 clips/s, 57% of the floor"
    )


def test_with_8_bits_training_alone_is_measured(monkeypatch):
    models = []
    monkeypatch.setattr("tiny_asr.training.trainer.check_device", lambda device: None)
    monkeypatch.setattr("tiny_asr.training.trainer.use_fp8", lambda model: models.append(model))
    parts = {"encoder": str(encoder_dir()), "decoder": str(decoder_dir())}
    few = {"utterances": 3, "rounds": 1, "batch_seconds": 12.0, "say": lambda line: None}
    r = measure(**parts, **few, device="cpu", fp8=True)
    assert len(models) == 1 and r["fp8"] and r["train_cached_per_second"] > 0
    assert len(r["stages"]) == 2 and "rtfx_batch_1" not in r and "training" in _speeds(r)


@pytest.mark.slow
def test_two_processes_are_compared_with_one():
    parts = {"encoder": str(encoder_dir()), "decoder": str(decoder_dir())}
    r = measure_gpus(
        2, "tiny", lambda line: None, utterances=4, **parts, device="cpu", dtype="auto",
        batch_seconds=12.0, compile=False, workers=1, cached=True,
    )  # fmt: skip
    assert r["cached"] and not r["compiled"]
    assert r["gain"] == pytest.approx(r["per_second_2"] / r["per_second_1"])
    assert r["efficiency"] == r["gain"] / 2 and r["processes"] == 2


def test_the_mix_is_the_same_each_time_and_as_long_as_it_says(tmp_path):
    for name in ("one", "other"):
        write_mix(tmp_path / name, 40)
    one, other = (
        [clip.fingerprint() for clip in load_data(tmp_path / n)] for n in ("one", "other")
    )
    assert one == other and len(set(one)) == 40
    clips = load_data(tmp_path / "one")
    assert all(2 <= round(clip.seconds, 3) <= 10 for clip in clips)
    assert 3.5 < sum(clip.seconds for clip in clips) / 40 < 5.5
    assert all(clip.text for clip in clips)
    write_mix(tmp_path / "long", 40, "long")
    long = load_data(tmp_path / "long")
    assert all(2 <= round(clip.seconds, 3) <= 20 for clip in long)
    assert 11 < sum(clip.seconds for clip in long) / 40 < 14
    sound, rate = soundfile.read(tmp_path / "one" / "clip-0000.flac")
    assert rate == 16_000 and abs(sound).max() > 0.01


def test_a_wrong_number_is_refused():
    with pytest.raises(ValueError, match="utterances=0, rounds=3 came; expected at least 1"):
        measure(utterances=0)
    with pytest.raises(ValueError, match="mix 'middle' came; expected short or long"):
        measure(mix="middle")
