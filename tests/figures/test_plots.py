"""Every figure: sizes and labels come from the trace, alt texts hold numbers, bytes repeat."""

import io
import re
import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from fixtures_models import ENCODER_DIM, LLM_DIM, noise, talkative
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image
from traitlets.config import Config
from transformers.audio_utils import mel_filter_bank

from tiny_asr import trace_clip
from tiny_asr.course import explorers as widgets
from tiny_asr.figures import plots

SECONDS = 1.77  # padded to 1.8 s: A = 18, T = 90, F = 180, S = 28 800
FIGURES = {
    "log_mel": lambda trace, model: plots.log_mel(trace),
    "embeddings": lambda trace, model: plots.embeddings(trace["encoder_output"], "Frames", 0.02),
    "modality_gap": plots.modality_gap,
    "journey": lambda trace, model: plots.journey(trace),
    "decoder_input": plots.decoder_input,
    "instant": lambda trace, model: widgets.instant(trace, 0.5),
    "rate_view": lambda trace, model: widgets.rate_view(model, torch.zeros(28_320), 14, 5),
}
SEEN = {  # numbers that each alt text must tell
    "log_mel": ["180", "80", "1.80"],
    "embeddings": ["90", str(ENCODER_DIM), "20 ms"],
    "modality_gap": ["18", str(LLM_DIM), str(ENCODER_DIM)],
    "journey": ["1.77", "28 800", "180", "90", "18"],
    "decoder_input": ["18 audio"],
    "instant": ["0.50", "8000", "50", "25", "5"],
    "rate_view": ["1.77", "18 pieces of 100 ms", "rate 5"],
}


@pytest.fixture(scope="module")
def model():
    return talkative()


@pytest.fixture(scope="module")
def trace(model):
    return trace_clip(model, noise(SECONDS), 16_000)


@pytest.fixture(scope="module")
def figures(trace, model):
    return {name: draw(trace, model) for name, draw in FIGURES.items()}


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("name", FIGURES)
def test_the_alt_text_tells_the_numbers(figures, name):
    alt = figures[name].alt
    assert 60 < len(alt) < 1200
    missing = [number for number in SEEN[name] if not re.search(rf"\b{number}", alt)]
    assert missing == []


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_trace_gives_the_same_bytes(figures, trace, model, name):
    data = plots.png(figures[name])
    assert plots.png(figures[name]) == data, "the second output of one figure differs"
    with matplotlib.style.context("dark_background"):
        assert plots.png(FIGURES[name](trace, model)) == data, "a figure drawn again differs"


@pytest.mark.parametrize("name", FIGURES)
def test_a_saved_figure_is_small_wide_enough_and_carries_its_alt_text(figures, tmp_path, name):
    path = plots.save(figures[name], tmp_path / f"{name}.png")
    assert path.stat().st_size < 1_000_000
    image = opened(path.read_bytes())
    assert image.info == {"Description": figures[name].alt}  # no date, no version of a program
    assert 1200 <= image.width <= 1250


@pytest.mark.parametrize("name", FIGURES)
def test_no_letter_is_smaller_than_9_points(figures, name):
    sizes = {text.get_fontsize() for text in figures[name].findobj(Text) if text.get_text()}
    assert min(sizes) >= 9


@pytest.mark.parametrize("name", FIGURES)
def test_drawing_leaves_nothing_behind(trace, model, name):
    before = dict(matplotlib.rcParams)
    FIGURES[name](trace, model)
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


@pytest.fixture
def shell():
    """An IPython shell that writes no history."""
    yield InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    InteractiveShell.clear_instance()


def test_show_displays_a_png_with_alt_text(figures, shell):
    with capture_output() as captured:
        plots.show(figures["log_mel"])
    (output,) = captured.outputs
    assert sorted(output.data) == ["image/png", "text/plain"]
    assert output.data["text/plain"] == "<Picture size 830x320 with 2 Axes>"  # no address
    about = output.metadata["image/png"]
    assert about["alt"] == figures["log_mel"].alt
    assert about["width"] == 797  # CSS pixels


def test_a_figure_as_the_last_line_of_a_cell_is_shown_the_same(figures, shell):
    data, metadata = shell.display_formatter.format(figures["log_mel"])
    assert data["image/png"].startswith("iVBORw0KGgo")
    assert metadata["image/png"]["alt"] == figures["log_mel"].alt


def test_show_closes_a_figure_of_pyplot(shell):
    figure, axes = pyplot.subplots()
    axes.plot([1, 2])
    with capture_output() as captured:
        plots.show(figure, alt="A line from 1 to 2.")
    assert captured.outputs[0].metadata["image/png"]["alt"] == "A line from 1 to 2."
    assert pyplot.get_fignums() == []


def test_a_figure_without_alt_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="without alt text"):
        plots.show(Figure())
    with pytest.raises(ValueError, match="pass alt="):
        plots.save(Figure(), tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


# Sound -------------------------------------------------------------------------------------------


def test_log_mel_is_the_trace_s_over_the_clip_s_time(trace, figures):
    axes = figures["log_mel"].axes[0]
    assert axes.get_xlim() == (0, 1.8)
    assert axes.get_ylim() == (0, 80)
    assert np.array_equal(axes.images[0].get_array(), trace["log_mel"][0])
    assert axes.get_title("left").startswith("log_mel (B, M, F) = 1 x 80 x 180")


def test_the_hertz_beside_the_mel_bins_are_those_of_the_filters(figures):
    (scale,) = figures["log_mel"].axes[0].child_axes
    filters = mel_filter_bank(2001, 80, 0.0, 8000.0, 16_000, "slaney", "slaney")
    peaks = np.linspace(0, 8000, 2001)[filters.argmax(axis=0)]
    for place, label in zip(scale.get_yticks(), scale.get_yticklabels(), strict=True):
        hertz = np.interp(place - 0.5, np.arange(80), peaks)  # a bin's middle is half a bin up
        assert hertz == pytest.approx(float(label.get_text().removesuffix(" Hz")), rel=0.01)


# Embeddings --------------------------------------------------------------------------------------


def test_embeddings_are_drawn_over_time(trace, figures):
    axes = figures["embeddings"].axes[0]
    assert axes.get_xlim() == pytest.approx((0, 1.8))
    assert axes.get_ylim() == (0, ENCODER_DIM)
    assert np.array_equal(axes.images[0].get_array(), trace["encoder_output"][0].T)
    assert axes.get_title("left") == f"Frames: 90 steps of 20 ms, {ENCODER_DIM} dimensions"
    assert "percentile" in figures["embeddings"].axes[1].get_ylabel()


def test_one_loud_dimension_does_not_wash_out_the_others():
    quiet = torch.randn(100, 200, generator=torch.Generator().manual_seed(0))
    loud = quiet.clone()
    loud[:, 7] = 1000
    limits = [plots.embeddings(x, "x", 0.1).axes[0].images[0].get_clim() for x in (quiet, loud)]
    assert np.allclose(*limits, atol=0.5)


def test_embeddings_of_a_batch_of_one_and_without_it_are_the_same():
    tensor = torch.arange(12.0).reshape(1, 3, 4).requires_grad_()
    with_batch, without = (plots.embeddings(x, "x", 0.1) for x in (tensor, tensor[0]))
    assert plots.png(with_batch) == plots.png(without)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (0, 4), (1, 3, 0), (1, 1, 3, 4)])
def test_embeddings_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"{shape} came; expected (T, D) or (1, T, D)")):
        plots.embeddings(torch.zeros(shape), "x", 0.1)


def test_modality_gap_draws_both_clouds_on_their_principal_axes(trace, model, figures):
    left, right = figures["modality_gap"].axes
    tokens, audio = (cloud.get_offsets().data for cloud in left.collections)
    table = model.decoder.token_embeddings.detach()
    assert (len(tokens), len(audio)) == (len(table), 18)
    points = torch.cat([table, trace["audio_embeddings"][0]]).double()
    variances = torch.linalg.eigvalsh(points.T.cov()).flip(0)
    drawn = np.concatenate([tokens, audio])
    assert np.allclose(drawn.mean(axis=0), 0, atol=1e-4)
    assert np.allclose(drawn.var(axis=0, ddof=1), variances[:2], rtol=1e-3)
    assert f"{variances[0] / variances.sum():.0%}" in left.get_xlabel()
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels[0] == f"90 encoder frames\n({ENCODER_DIM} dimensions)"
    assert labels[1] == f"18 audio embeddings\n({LLM_DIM} dimensions)"
    assert trace.warning in texts(figures["modality_gap"])


# From sound to text ------------------------------------------------------------------------------


def test_journey_has_one_time_axis_and_titles_with_the_real_sizes(trace, figures):
    panels = [axes for axes in figures["journey"].axes if axes.get_title("left")]
    assert [axes.get_title("left").split(":")[0] for axes in panels] == [
        "waveform (B, S) = 1 x 28 800",
        "log_mel (B, M, F) = 1 x 80 x 180",
        f"encoder_output (B, T, encoder_dim) = 1 x 90 x {ENCODER_DIM}",
        f"audio_embeddings (B, A, llm_dim) = 1 x 18 x {LLM_DIM}",
        f"decoder_input (B, P+A, llm_dim) = 1 x {trace.sizes['P'] + 18} x {LLM_DIM}",
    ]
    boxes = [axes.get_position() for axes in panels[:4]]
    assert all(axes.get_xlim() == pytest.approx((0, 1.8)) for axes in panels[:4])
    assert np.ptp([(box.x0, box.x1) for box in boxes], axis=0) == pytest.approx(0)
    assert [box.y0 for box in boxes] == sorted((box.y0 for box in boxes), reverse=True)


def test_journey_strip_is_as_long_as_the_sequence(trace, model, figures):
    (strip,) = (
        a for a in figures["journey"].axes if a.get_title("left").startswith("decoder_input")
    )
    lengths = [round(bar.get_width()) for bar in strip.patches]
    before, after = model.decoder.prompt_before.shape[1], model.decoder.prompt_after.shape[1]
    assert lengths == [before, 18, after, len(trace.tokens)]
    assert f"{before} prompt tokens" in texts(figures["journey"])


def test_journey_says_untrained_only_where_it_is(trace, figures):
    assert trace.warning in texts(figures["journey"])
    assert trace.warning in figures["journey"].alt
    trained = plots.journey(replace(trace, untrained=(), text="a cat sat"))
    assert "text: a cat sat" in texts(trained)
    assert not any("untrained" in text for text in [*texts(trained), trained.alt])


def test_journey_cuts_a_long_text_and_says_so(trace):
    long = replace(trace, text="the cat sat on the mat " * 60)
    figure = plots.journey(long)
    (text,) = (text for text in figure.findobj(Text) if text.get_text().startswith("text:"))
    assert f"({len(long.text)} characters)" in text.get_text()
    figure.draw_without_rendering()
    box = text.get_window_extent()
    assert box.y0 > 0, "the text runs off the page"
    assert box.x1 < figure.bbox.width


@pytest.mark.parametrize("draw", [lambda t, m: plots.journey(t), plots.decoder_input])
def test_text_that_no_font_has_and_dollars_are_drawn_without_a_warning(trace, model, draw):
    odd = ["$x$", "\u4e2d", "\ufffd", "\n", " " * 200, "\x07"]
    ids = replace(trace.stages["token_ids"], tensor=torch.zeros(1, 18).long())
    stages = trace.stages | {"token_ids": ids}
    odd = replace(trace, stages=stages, tokens=odd * 3, text="".join(odd))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(odd, model)
    assert any("$x$" in text for text in texts(figure))
    for axes in figure.axes:
        bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        edges = [bar.get_x() + bar.get_width() for bar in bars]
        assert all(edge <= axes.get_xlim()[1] + 1e-6 for edge in edges), "a cell off the page"


def test_decoder_input_numbers_every_position_and_counts_what_it_leaves_out(trace, model, figures):
    shown = texts(figures["decoder_input"])
    last = trace.sizes["P"] + 18 + len(trace.tokens) - 1
    numbers = [int(text) for text in shown if text.isdecimal()]
    assert str(last) in shown
    left_out = [int(text.split()[1]) for text in shown if re.fullmatch(r"\.\.\. \d+ more .*", text)]
    assert left_out  # 18 audio embeddings are more than are shown
    assert len({n for n in numbers if n <= last}) + sum(left_out) == last + 1
    first = model.processor.tokenizer.decode(model.decoder.prompt_before[0, 0])
    assert first in shown
    assert "audio[0]" in shown and "audio[17]" in shown
