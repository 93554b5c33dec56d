"""The benchmark's numbers are there and fit together; how large they are depends on the machine."""

import json

import pytest
import soundfile
from fixtures_models import decoder_dir, encoder_dir, once

from tiny_asr.benchmark import measure, write_mix
from tiny_asr.data import load_data

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
    sound, rate = soundfile.read(tmp_path / "one" / "clip-0000.flac")
    assert rate == 16_000 and abs(sound).max() > 0.01


def test_a_wrong_number_is_refused():
    with pytest.raises(ValueError, match="utterances=0, rounds=3 came; expected at least 1"):
        measure(utterances=0)
