"""The interactive parts of the notebooks, each beside a figure that stands still.

A slider invites a question that a picture cannot be asked: where is this instant in all the stages?
What if one audio embedding held more frames? But notebooks are also read where nothing runs: on
GitHub, on paper, with a screen reader. So each explorer only redraws a figure of this module,
`instant` or `downsampling`, which can be shown on its own; its image has an alt text, and where
nothing runs a sentence stands in its place.
"""

import base64
import io
from collections.abc import Callable
from functools import partial
from html import escape

import soundfile
from IPython.display import Audio
from ipywidgets import HTML, FloatSlider, IntSlider, Layout, VBox
from torch import Tensor

from tiny_asr.audio import load_audio
from tiny_asr.figures.plots import draw_panels
from tiny_asr.figures.style import AUDIO, CSS_DPI, MARK, PROMPT, WIDTH, Picture, drawn, png
from tiny_asr.figures.trace import Trace
from tiny_asr.shapes import SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME

RATES = range(1, 11)


def listen(waveform: Tensor, sampling_rate: int = SAMPLE_RATE) -> Audio:
    """A player for a clip (S,), stored in the notebook as MP3: a tenth of the bytes of WAV."""
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform.numpy(force=True), sampling_rate, format="MP3")
    return Audio(data=encoded.getvalue(), rate=sampling_rate)


def picture_html(figure: Picture) -> str:
    """A figure as HTML, its PNG in it, with its alt text."""
    data = base64.b64encode(png(figure, dpi=CSS_DPI)).decode()
    source = f'src="data:image/png;base64,{data}" style="max-width: 100%"'
    return f'<img alt="{escape(figure.alt)}" {source}>'


class Explorer(VBox):
    """A slider over a figure that is drawn again for each of its values.

    Args:
        name: of the function that made it.
        slider: a slider of `ipywidgets`.
        draw: the slider's value -> a figure.
        explain: the slider's value -> what it means, in words.
    """

    def __init__(self, name: str, slider, draw: Callable, explain: Callable):
        slider.layout = Layout(width="100%")
        slider.style.description_width = "initial"
        image, words = HTML(), HTML()

        def update(value) -> None:
            image.value = picture_html(draw(value))
            words.value = escape(explain(value))

        update(slider.value)
        slider.observe(lambda change: update(change.new), names="value")
        super().__init__([slider, words, image])
        self.name = name

    def __repr__(self) -> str:
        # What GitHub shows, and what nbval compares: no ids, no bytes of a picture.
        return f"{self.name}: a slider, in a running notebook; the figure beside it stands still"


# Where is this instant? --------------------------------------------------------------------------


def locate(trace: Trace, seconds: float) -> dict[str, tuple[int, int, int]]:
    """In which step of each stage an instant lies.

    Returns:
        stage -> index of the step, its first sample, its last sample + 1.
    """
    samples = trace.sizes["S"]
    sample = round(seconds * SAMPLE_RATE)
    if not 0 <= sample < samples:
        raise ValueError(
            f"{seconds} s came; expected an instant in the clip: 0 to {samples / SAMPLE_RATE:.2f} s"
        )
    axes = {"waveform": "S", "log_mel": "F", "encoder_output": "T", "audio_embeddings": "A"}
    lengths = {name: samples // trace.sizes[axis] for name, axis in axes.items()}
    return {
        n: (sample // size, sample // size * size, (sample // size + 1) * size)
        for n, size in lengths.items()
    }


@drawn
def instant(trace: Trace, seconds: float) -> Picture:
    """One instant of the clip in four stages; on the right its surroundings, enlarged.

    Args:
        seconds: from 0 to the clip's end.
    """
    steps = locate(trace, seconds)
    figure = Picture(figsize=(WIDTH, 6.4), layout="constrained")
    grid = figure.subplots(4, 2, width_ratios=[1.6, 1])
    for column in grid.T:
        draw_panels(column, trace, legend=False)
    _, first, last = steps["audio_embeddings"]
    margin = last - first
    for (name, (index, start, stop)), (whole, near) in zip(steps.items(), grid, strict=True):
        whole.axvline(seconds, color=MARK)
        whole.set_title(f"{name}: {trace.sizes['S'] // (stop - start):,} steps".replace(",", " "))
        edges = start / SAMPLE_RATE, stop / SAMPLE_RATE
        near.axvspan(*edges, fill=False, edgecolor=MARK, linewidth=1.5)
        near.set(xlim=((first - margin) / SAMPLE_RATE, (last + margin) / SAMPLE_RATE), ylabel="")
        near.set_title(f"step {index:,}".replace(",", " "))
    figure.alt = (
        f"Four stages of the clip over time, with one instant marked. {tell(trace, seconds)}"
    )
    return figure


def tell(trace: Trace, seconds: float) -> str:
    """`locate`, in words."""
    where = [
        f"{name} step {index} (samples {start} to {stop - 1})"
        for name, (index, start, stop) in list(locate(trace, seconds).items())[1:]
    ]
    return f"{seconds:.2f} s is sample {round(seconds * SAMPLE_RATE)}, in {', '.join(where)}."


def explore_time(trace: Trace) -> Explorer:
    """A slider over the clip's time: which sample, frames and embedding does an instant lie in?"""
    end = trace.sizes["S"] / SAMPLE_RATE
    slider = FloatSlider(
        value=round(end / 2, 2),
        min=0,
        max=end - 0.01,
        step=0.01,
        description="time in s",
        continuous_update=False,
    )
    return Explorer("explore_time", slider, partial(instant, trace), partial(tell, trace))


# What if an audio embedding held more frames? ----------------------------------------------------


def downsample(config, samples: int, rate: int) -> dict[str, float]:
    """What an audio_downsample_rate would do to a clip: pure arithmetic, nothing is trained anew.

    Args:
        config: an `ASRConfig`, for encoder_dim.
        samples: the clip's length at 16 kHz.
        rate: encoder frames in one audio embedding.
    Returns:
        `A`, `positions a second`, `stacked width` (rate * encoder_dim).
    """
    length = rate * SAMPLES_PER_ENCODER_FRAME
    return {
        "A": -(-samples // length),
        "positions a second": SAMPLE_RATE / length,
        "stacked width": rate * config.encoder_dim,
    }


@drawn
def downsampling(config, samples: int, rate: int | None = None) -> Picture:
    """What each audio_downsample_rate from 1 to 10 does to a clip; one is picked out.

    Args:
        rate: the one to pick out; the config's own if None.
    """
    rate = rate or config.audio_downsample_rate
    rows = [downsample(config, samples, each) for each in RATES]
    figure = Picture(figsize=(WIDTH, 3), layout="constrained")
    colors = [AUDIO if each == rate else PROMPT for each in RATES]
    titles = {"A": "A: audio embeddings to read", "stacked width": "numbers in a stack of frames"}
    for axes, (key, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        bars = axes.bar(RATES, [row[key] for row in rows], color=colors, edgecolor="black")
        axes.bar_label(bars, fontsize=9)
        axes.set(xticks=RATES, xlabel="audio_downsample_rate", yticks=[])
        axes.spines["left"].set_visible(False)
        axes.set_title(title)
    figure.alt = (
        f"Two bar charts over audio_downsample_rate 1 to 10, for {samples / SAMPLE_RATE:.2f} s of "
        f"sound. The audio embeddings fall: {', '.join(str(row['A']) for row in rows)}. The width "
        f"of a stack grows: {', '.join(str(row['stacked width']) for row in rows)}."
    )
    return figure


def explore_downsample(model, audio, sampling_rate: int | None = None) -> Explorer:
    """A slider over audio_downsample_rate: fewer positions for the decoder, wider stacks.

    Args:
        audio: anything `load_audio` takes.
        sampling_rate: Hz, for an array without one.
    """
    samples, config = len(load_audio(audio, sampling_rate)), model.config

    def explain(rate: int) -> str:
        found = downsample(config, samples, rate)
        return (
            f"{rate} frames of 20 ms in each audio embedding: A = {found['A']} for this clip, "
            f"{found['positions a second']:.1f} positions a second, each from "
            f"{rate} x {config.encoder_dim} = {found['stacked width']} numbers. This model was "
            f"made for {config.audio_downsample_rate}."
        )

    slider = IntSlider(
        value=config.audio_downsample_rate,
        min=RATES[0],
        max=RATES[-1],
        description="audio_downsample_rate",
    )
    return Explorer("explore_downsample", slider, partial(downsampling, config, samples), explain)
