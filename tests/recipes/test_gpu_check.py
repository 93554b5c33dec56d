"""The script that checks a GPU keeps what it has measured, and the profile fits a terminal."""

import json
import sys

import pytest

from recipes import gpu_check, gpu_profile

ROW = {"ms": 1234.5678, "floor": 0.123456, "idle": 1.5, "kernels": 1303.0}


def test_kernels_are_told_apart_by_their_names():
    names = {
        "nvjet_tst_128x8_64x12_2x1_v_bz_TNT": "products",
        "void flash_fwd_kernel<...>": "attention",
        "_attend": "attention",
        "triton_red_fused_mm_silu_3": gpu_profile.OTHER,
        "Memcpy DtoD (Device -> Device)": "copies",
        "aten::addmm": "products",
    }
    assert {name: gpu_profile.kind_of(name) for name in names} == names


def test_the_table_fits_a_terminal():
    row = ROW | dict.fromkeys((*gpu_profile.KINDS, gpu_profile.OTHER), 1234.5678)
    lines = gpu_profile.table({"write 128 library": row}).splitlines()
    assert len(lines) == 2 and max(map(len, lines)) < 80


def test_a_profile_of_the_pair_tiny(monkeypatch, tmp_path, capsys):
    out = tmp_path / "profile.json"
    options = ["tiny", "--device", "cpu", "--batch", "1", "--clips", "1", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["gpu_profile", *options, "--out", str(out)])
    gpu_profile.main()
    found = json.loads(out.read_text())
    assert set(found) == {"write 1 lean", "train 1"}
    for row in found.values():
        assert row["products"] > 0 and row["ms"] > row["floor"] > 0
    assert "one step, ms" in capsys.readouterr().out


def test_each_part_is_kept_with_the_commit(monkeypatch, tmp_path):
    parts = {
        "tests": (["-c", "print('1 passed')"], None),
        "profile": (["-c", "import time; print('begun', flush=True); time.sleep(60)"], None),
        "benchmark": (["-c", "print('{\"speed\": 3}')"], None),
    }
    out = tmp_path / "new" / "gpu.json"
    monkeypatch.setattr(gpu_check, "commands", lambda folder: parts)
    options = ["abc123", "--out", str(out), "--parts", *parts, "--seconds", "3"]
    monkeypatch.setattr(sys, "argv", ["gpu_check", *options])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    assert ended.value.code
    found = json.loads(out.read_text())
    assert found["commit"] == "abc123" and found["torch"]
    assert found["tests"]["status"] == 0 and "1 passed" in found["tests"]["printed"]
    assert found["profile"]["status"] == "took too long" and "begun" in found["profile"]["printed"]


def test_the_tests_that_need_a_gpu_are_there():
    for test in gpu_check.TESTS:
        file, _, name = test.partition("[")[0].partition("::")
        assert f"def {name}(" in (gpu_check.CHECKOUT / file).read_text()
