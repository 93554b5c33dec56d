"""The explorers: right answers, one stable line of text, an image with words for each value."""

import re
from html import unescape

import pytest
from fixtures_models import noise, talkative

from tiny_asr import trace_clip
from tiny_asr.course import explorers as widgets


@pytest.fixture(scope="module")
def model():
    return talkative()


@pytest.fixture(scope="module")
def trace(model):
    return trace_clip(model, noise(1.77), 16_000)  # 28 320 samples, padded to 28 800


def alt_of(explorer) -> str:
    """The alt text of the image that an explorer shows now."""
    return unescape(re.search('alt="(.*?)"', explorer.children[2].value)[1])


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [
        (0, (0, 0, 0, 0)),
        (0.0999, (1598, 9, 4, 0)),
        (0.1, (1600, 10, 5, 1)),
        (0.57 - 1e-12, (9120, 57, 28, 5)),  # a slider adds its steps up, and is off by a hair
        (1.7999, (28_798, 179, 89, 17)),
    ],
)
def test_locate_finds_the_step_of_each_stage(trace, seconds, steps):
    found = widgets.locate(trace, seconds)
    assert list(found) == ["waveform", "log_mel", "encoder_output", "audio_embeddings"]
    assert tuple(index for index, _, _ in found.values()) == steps
    assert [stop - start for _, start, stop in found.values()] == [1, 160, 320, 1600]
    assert all(start <= steps[0] < stop for _, start, stop in found.values())


@pytest.mark.parametrize("seconds", [-0.1, 1.8, 30])
def test_an_instant_outside_the_clip_is_refused(trace, seconds):
    with pytest.raises(ValueError, match=rf"{seconds} s came; expected .* 0 to 1.80 s"):
        widgets.locate(trace, seconds)


def test_instant_marks_the_same_time_in_all_stages(trace):
    figure = widgets.instant(trace, 0.57)
    whole, near = figure.axes[::2], figure.axes[1::2]
    assert all(axes.get_xlim() == pytest.approx((0, 1.8)) for axes in whole)
    assert all(axes.get_xlim() == pytest.approx((0.4, 0.7)) for axes in near)
    assert [axes.get_title("left") for axes in near] == [
        "step 9 120",
        "step 57",
        "step 28",
        "step 5",
    ]
    assert [axes.get_title("left") for axes in whole][1:] == [
        "log_mel: 180 steps",
        "encoder_output: 90 steps",
        "audio_embeddings: 18 steps",
    ]


def test_explore_time_follows_its_slider_over_the_whole_clip(trace):
    explorer = widgets.explore_time(trace)
    slider, words, _ = explorer.children
    for seconds in (slider.min, 0.57, slider.max):
        slider.value = seconds
        assert words.value == widgets.tell(trace, seconds)
        assert words.value in alt_of(explorer)
    assert slider.max > 1.7
    slider.value = 0.57
    assert "encoder_output step 28 (samples 8960 to 9279)" in words.value


@pytest.mark.parametrize("rate", [1, 3, 5, 10])
def test_the_length_at_a_rate_is_what_the_model_would_do(model, rate):
    assert widgets.rate_cost(model, 28_320, 14, rate)["A"] == {1: 89, 3: 30, 5: 18, 10: 9}[rate]


def test_the_length_at_the_own_rate_agrees_with_the_trace(model, trace):
    found = widgets.rate_cost(model, 28_320, 14, model.config.audio_downsample_rate)
    assert found["A"] == trace.sizes["A"]


def test_a_view_of_the_rates_picks_out_one(model):
    cut, read, size = widgets.rate_view(model, noise(1.77), 14, rate=3).axes
    frames = [[p for p in axes.patches if not p.get_fill()] for axes in (read, size)]
    assert [[p.get_x() + p.get_width() / 2 for p in each] for each in frames] == [[3], [3]]
    widths = [p.get_height() for p in size.patches if p.get_fill()]
    assert widths == sorted(widths) and widths[0] < widths[-1]
    assert "rate 3: 30 audio embeddings of 60 ms" in cut.get_title("left")


def test_an_explorer_is_one_stable_line_of_text_where_nothing_runs(model, trace):
    for make in (
        lambda: widgets.explore_time(trace),
        lambda: widgets.explore_rate(model, noise(1.77), 14),
    ):
        lines = [make()._repr_mimebundle_()[0]["text/plain"] for _ in range(2)]
        assert lines[0] == lines[1]
        assert lines[0].startswith("explore_") and "slider" in lines[0]
        assert not lines[0].endswith("…"), "too long: ipywidgets cut it"
