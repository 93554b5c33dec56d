"""The check of 8 bits runs on the pair tiny, from a table and from a pack, and can score later."""

import json
import sys
from pathlib import Path

import pytest
import torch

from recipes import fp8_check
from recipes.ears.pack import write

DATA = Path(__file__).resolve().parents[2] / "data" / "speech" / "dev.parquet"


def run(monkeypatch, *options) -> None:
    monkeypatch.setattr(sys, "argv", ["fp8_check", *map(str, options)])
    fp8_check.main()


def test_what_8_bits_cost_the_pair_tiny(monkeypatch, tmp_path, capsys):
    clips = fp8_check.clips_of(DATA, 5)
    sounds = ((sound * 32767).round().short().numpy().tobytes() for _, sound in clips)
    write(tmp_path / "pack", zip([text for text, _ in clips], sounds, strict=True), "pcm16")
    out = tmp_path / "fp8.json"
    few = ("tiny", "--device", "cpu", "--clips", 2, "--batch", 2, "--train", 2, "--out", out)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "tiny_asr.evaluation.score", None)
        run(monkeypatch, *few, "--data", tmp_path / "pack.json")
    assert "use --score elsewhere" in capsys.readouterr().out
    run(monkeypatch, "--score", "--out", out)
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    exact, plain, fp8 = (found["tested"][name] for name in ("float32", "plain", "fp8"))
    assert exact["off"] == plain["off"] == 0 < fp8["off"] < 0.7 and fp8["cosine"] > 0.7
    assert fp8["loss"] == pytest.approx(exact["loss"], abs=0.1)
    for name in ("plain", "fp8"):
        assert len(found["trained"][name]["texts"]) == 2 and "wer" in found["trained"][name]
        assert f"trained {name}" in said
    assert "low" in found["wer_difference"]


def test_batches_are_of_like_length_and_leave_nothing_out():
    clips = [(str(length), torch.zeros(length)) for length in (5, 1, 4, 2, 3)]
    batches = fp8_check.batched(clips, 2)
    assert sorted(tuple(text for text, _ in batch) for batch in batches) == [
        ("1", "2"), ("3", "4"), ("5",),
    ]  # fmt: skip
