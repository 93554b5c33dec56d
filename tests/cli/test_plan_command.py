"""`tiny-asr train --plan` as a user meets it."""

import json
import re

import pytest
from test_commands import tiny_asr  # noqa: F401 (a fixture)

from tiny_asr import ASRModel
from tiny_asr.bench.plan import read_gpus


@pytest.mark.parametrize("model", ["tiny", "small", "medium", "full"])
def test_the_table_fits_a_terminal_and_nothing_is_loaded(tiny_asr, monkeypatch, model):  # noqa: F811
    monkeypatch.setattr(ASRModel, "__init__", lambda *_, **__: pytest.fail("loaded"))
    status, out, err = tiny_asr("train", "--plan", "--model", model, "--cache", "nowhere")
    assert (status, err) == (0, "")
    assert [line for line in out.splitlines() if len(line) > 80] == []
    for gpu in read_gpus():
        assert f"\n{gpu.name} " in out
    assert "Estimated, not measured" in out and "Prices are assumed" in out
    assert "adapter" not in out


def test_the_adapter_is_planned_for(tiny_asr):  # noqa: F811
    _, out, _ = tiny_asr("train", "--plan", "--model", "tiny", "--adapter-rank", "8")
    assert re.search(r"^adapter +rank 8, 344,064 parameters of 16 bytes, ", out, re.MULTILINE)
    assert [line for line in out.splitlines() if len(line) > 80] == []


def test_your_own_prices_and_json(tiny_asr, tmp_path):  # noqa: F811
    table = tmp_path / "gpus.csv"
    table.write_text("# ours\ngpu,memory_gb,tflops,dollars_per_hour\nMine,48,100,0.1\n")
    how = ("train", "--plan", "--model", "full", "--gpus", table)
    status, out, _ = tiny_asr(*how, "--json", "--max-utterances", "1000")
    (row,) = json.loads(out)["gpus"]
    assert status == 0 and row["gpu"] == "Mine"
    assert row["dollars"] == pytest.approx(0.1 * row["hours"])
    table.write_text("gpu,price\nMine,1\n")
    status, out, err = tiny_asr(*how)
    assert (status, out) == (2, "") and "expected CSV with the columns gpu, memory_gb" in err


@pytest.mark.parametrize("pair", ["medium", "full"])
def test_the_bundled_recipes_can_be_planned_by_the_pairs_name(tiny_asr, pair):  # noqa: F811
    status, out, _ = tiny_asr("train", "--config", pair, "--plan", "--max-utterances", "1000")
    assert status == 0 and f"plan       {pair}: 1,000 utterances" in out
    assert re.search(r"\nRTX 3090 +24 .* yes ", out)
    status, out, err = tiny_asr("train", "--config", "ful", "--plan")
    assert (status, out) == (2, "") and "cannot read the settings ful" in err
