"""The comparison of projectors: one line each, the same budget, and it goes on where it stopped."""

import csv

from fixtures_models import encoder_dir, talkative_decoder_dir
from small_runs import clips

from recipes.compare_projectors import main


def table(folder) -> list[dict]:
    with open(folder / "projectors.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_projector_gets_a_line(tmp_path, capsys):
    options = ["--encoder", encoder_dir(), "--decoder", talkative_decoder_dir(), "--data", clips()]
    options += ["--eval-data", clips(), "--utterances", 12, "--batch-seconds", 6, "--limit", 6]
    options += ["--eval-limit", 3, "--hidden-dim", 64, "--device", "cpu", "--out", tmp_path]
    options = list(map(str, options))
    main([*options, "--projectors", "linear"])
    first = table(tmp_path)
    assert [row["projector"] for row in first] == ["linear"]
    capsys.readouterr()
    main([*options, "--projectors", "linear", "cross_attention", "convolution"])
    rows = table(tmp_path)
    assert [row["projector"] for row in rows] == ["linear", "cross_attention", "convolution"]
    assert rows[0] == first[0]  # not done again
    assert len({row["utterances"] for row in rows}) == 1 and len({r["loss"] for r in rows}) == 3
    assert len({row["parameters"] for row in rows}) == 3
    said = capsys.readouterr().out
    assert "`cross_attention`" in said and (tmp_path / "projectors.md").read_text() in said
    assert len(list((tmp_path / "cache").iterdir())) == 1  # all three from the same frames
