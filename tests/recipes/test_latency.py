"""The measurement of how long words take to appear."""

import json

import soundfile

from recipes.latency import appeared, main, minute
from tiny_asr import sample_clip


def test_a_word_is_shown_once_and_stands_later_for_good():
    steps = [(1.0, "a"), (2.0, "a c"), (3.0, "a b"), (4.0, "a b c")]
    assert appeared(["a", "b", "c"], steps) == ([1.0, 3.0, 2.0], [1.0, 3.0, 4.0])


def test_the_minute_has_pauses_and_is_always_the_same(tmp_path):
    assert 20 < len(minute(20)) / 16_000 < 30
    assert minute(5).equal(minute(5))


def test_the_sample_is_measured(capsys):
    main([str(sample_clip())])
    report = json.loads(capsys.readouterr().out)
    assert report["words"] == 11 and report["same_text"]
    assert -0.5 < report["shown"][0] <= report["for_good"][1] and report["end"] > 0
    assert report["seconds"] == round(soundfile.info(sample_clip()).duration, 2)
