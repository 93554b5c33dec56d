"""The run log: a CSV that survives kills, a line that fits a terminal, a warning at the right time.

That the warning comes once in a run is tested in test_training.py.
"""

import math
from itertools import product

import pytest

from tiny_asr.training.checkpoint import TrainingState
from tiny_asr.training.log import (
    LOG_FIELDS,
    Interval,
    append_log,
    hardly_falling,
    progress_line,
    read_log,
)


def row(step: int, **changes) -> dict:
    values = dict.fromkeys(LOG_FIELDS, 0.5) | {"step": step, "utterances": 10 * step, "wer": None}
    return values | changes


def test_what_was_appended_is_read_and_a_step_done_again_replaces_its_line(tmp_path):
    log = tmp_path / "log.csv"
    for one in (row(1, loss=3.0), row(2, loss=2.0), row(2, loss=1.5, wer=0.25), row(3)):
        append_log(log, one)
    assert log.read_text().splitlines()[0] == ",".join(LOG_FIELDS)
    assert len(log.read_text().splitlines()) == 5  # it only grows
    rows = read_log(log)
    assert [r["step"] for r in rows] == [1, 2, 3]
    assert [r["loss"] for r in rows] == [3.0, 1.5, 0.5]
    assert [r["wer"] for r in rows] == [None, 0.25, None]


@pytest.mark.parametrize("torn", ["2,2", "2,20,0.5,0.5,0.5,0.5,0.5,0.5,0.", "step,utter"])
def test_a_torn_line_is_closed_and_passed_over(tmp_path, torn):
    log = tmp_path / "log.csv"
    append_log(log, row(1))
    with log.open("a") as file:
        file.write(torn)
    append_log(log, row(2, loss=0.25))
    assert [(r["step"], r["loss"]) for r in read_log(log)] == [(1, 0.5), (2, 0.25)]


def test_a_loss_that_is_not_finite_stays_readable(tmp_path):
    append_log(tmp_path / "log.csv", row(1, loss=math.nan))
    assert math.isnan(read_log(tmp_path / "log.csv")[0]["loss"])


def test_an_interval_leaves_skipped_steps_out_of_its_loss():
    state = TrainingState(step=4, utterances=40)
    interval = Interval(state)
    interval.add(2.0, 1.0, 1e-3, finite=True)
    interval.add(math.nan, math.inf, 1e-3, finite=False)
    interval.add(1.0, 0.5, 2e-3, finite=True)
    state.step, state.utterances = 7, 70
    values = interval.row()
    assert tuple(values) == LOG_FIELDS
    assert (values["step"], values["utterances"]) == (7, 70)
    assert values["loss"] == 1.5
    assert (values["grad_norm"], values["learning_rate"]) == (0.5, 2e-3)
    assert values["utterances_per_second"] * values["seconds"] == pytest.approx(30)
    assert math.isnan(Interval(state).row()["loss"])


def test_the_progress_line_fits_a_terminal():
    counts, rates = (1, 99_999, 9_999_999, 123_456_789), (0.0, 1e-4, 9.99, 12_345.6)
    wers, losses = (None, 0.1234, 0.99999, 123.4), (0.0, 12_345.678, math.nan)
    for count, rate, wer, loss in product(counts, rates, wers, losses):
        values = row(count, utterances=count, utterances_per_second=rate, wer=wer, loss=loss)
        line = progress_line(values, 2 * count)
        assert len(line) <= 80, line
        assert "\n" not in line
        assert ("WER" in line) == (wer is not None)


def test_the_progress_line_says_how_long_it_takes():
    values = row(120, utterances=6000, utterances_per_second=20.0, loss=1.23456, wer=0.314)
    line = progress_line(values, 12_000)
    for part in ("step   120", "6000/12000", "loss 1.235", "WER 31.4%", "20/s", "5 min left"):
        assert part in line
    assert progress_line(values, 6000).endswith("done")
    assert "1 min left" in progress_line(values, 6020)
    assert "28 h left" in progress_line(values, 2_000_000)


def test_the_warning_comes_after_six_intervals_that_hardly_fell():
    assert not hardly_falling([5.0] * 5)
    assert hardly_falling([5.0, 4.9, 4.8, 4.7, 4.6, 4.6])
    assert not hardly_falling([5.0, 4.9, 4.8, 4.7, 4.6, 4.4])
    assert not hardly_falling([5.0] * 7)  # it was said before
