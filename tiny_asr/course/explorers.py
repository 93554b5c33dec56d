"""The interactive parts of the notebooks: sliders over figures.

Notebooks are also read where nothing runs: there the figure stands in its place, as it is at first,
with its alt text.
"""

from collections.abc import Callable
from functools import partial
from html import escape

import numpy as np
from ipywidgets import HTML, FloatSlider, IntSlider, Layout, VBox
from ipywidgets import Audio as Player

from tiny_asr.audio import load_audio
from tiny_asr.course.drawing import page, waves
from tiny_asr.figures.plots import draw_panels
from tiny_asr.figures.style import (
    AUDIO,
    ENCODER,
    MARK,
    PROMPT,
    TEXT,
    WIDTH,
    Picture,
    drawn,
    many,
    name_words,
    picture_html,
)
from tiny_asr.figures.trace import Trace
from tiny_asr.shapes import SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME

RATES = range(1, 11)


class Explorer(VBox):
    """Sliders over a figure that is drawn again for each of their values.

    Args:
        name: of the function that made it.
        sliders: of `ipywidgets`.
        draw: the sliders' values -> a figure.
        explain: the sliders' values -> what they mean, in words.
        sound: the sliders' values -> a clip as MP3, to be played below the figure.
    """

    def __init__(self, name: str, *sliders, draw: Callable, explain: Callable, sound=None):
        words, image = HTML(), HTML()
        self.still = draw(*(slider.value for slider in sliders))
        player = Player(format="mp3", autoplay=False, loop=False) if sound else None

        def update(_=None) -> None:
            chosen = [slider.value for slider in sliders]
            image.value = picture_html(draw(*chosen))
            words.value = escape(explain(*chosen))
            if player:
                player.value = sound(*chosen)

        update()
        for slider in sliders:
            slider.layout = Layout(width="100%")
            slider.style.description_width = "initial" if len(sliders) == 1 else "8em"
            slider.observe(update, names="value")
        super().__init__([*sliders, words, image, *([player] if player else [])])
        self.name, self.sliders = name, sliders

    def __repr__(self) -> str:
        # What GitHub shows, and what nbval compares: no ids, no bytes of a picture.
        count = "a slider" if len(self.sliders) == 1 else f"{len(self.sliders)} sliders"
        return f"{self.name}: {count}, in a running notebook; the figure beside it stands still"

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        picture, about = self.still._repr_mimebundle_()
        return picture | super()._repr_mimebundle_(**kwargs), about


# Where is this instant? --------------------------------------------------------------------------


def locate(trace: Trace, seconds: float) -> dict[str, tuple[int, int, int]]:
    """In which step of each stage an instant lies: its index, first sample, last sample + 1."""
    samples = trace.sizes["S"]
    sample = round(seconds * SAMPLE_RATE)
    if not 0 <= sample < samples:
        raise ValueError(
            f"{seconds} s came; expected an instant in the clip: 0 to {samples / SAMPLE_RATE:.2f} s"
        )
    axes = {"waveform": "S", "log_mel": "F", "encoder_output": "T", "audio_embeddings": "A"}
    lengths = {name: samples // trace.sizes[axis] for name, axis in axes.items()}
    places = {name: sample // size for name, size in lengths.items()}
    return {n: (i, i * lengths[n], (i + 1) * lengths[n]) for n, i in places.items()}


@drawn
def instant(trace: Trace, seconds: float, words=()) -> Picture:
    """One instant of the clip in four stages; on the right its surroundings, enlarged. `words`:
    (word, begin, end) in s, to be named above."""
    steps = locate(trace, seconds)
    figure, grid = page(6.4, 4, 2, width_ratios=[1.6, 1])
    for column in grid.T:
        draw_panels(column, trace, legend=False)
    name_words(grid[0, 0], words, size=6.5)
    _, first, last = steps["audio_embeddings"]
    margin = last - first
    for (name, (index, start, stop)), (whole, near) in zip(steps.items(), grid, strict=True):
        whole.axvline(seconds, color=MARK)
        whole.set_title(f"{name}: {many(trace.sizes['S'] // (stop - start))} steps")
        edges = start / SAMPLE_RATE, stop / SAMPLE_RATE
        near.axvspan(*edges, fill=False, edgecolor=MARK, linewidth=1.5)
        near.set(xlim=((first - margin) / SAMPLE_RATE, (last + margin) / SAMPLE_RATE), ylabel="")
        near.set_title(f"step {many(index)}")
    words = tell(trace, seconds)
    figure.alt = f"Four stages of the clip over time, with one instant marked. {words}"
    return figure


def tell(trace: Trace, seconds: float) -> str:
    """`locate`, in words."""
    where = [
        f"{name} step {index} (samples {start} to {stop - 1})"
        for name, (index, start, stop) in list(locate(trace, seconds).items())[1:]
    ]
    return f"{seconds:.2f} s is sample {round(seconds * SAMPLE_RATE)}, in {', '.join(where)}."


def explore_time(trace: Trace, words=()) -> Explorer:
    """A slider over the clip's time: which sample, frames and embedding does an instant lie in?"""
    end = trace.sizes["S"] / SAMPLE_RATE
    options = {"description": "time in s", "continuous_update": False}
    slider = FloatSlider(value=round(end / 2, 2), min=0, max=end - 0.01, step=0.01, **options)
    draw, explain = partial(instant, trace, words=words), partial(tell, trace)
    return Explorer("explore_time", slider, draw=draw, explain=explain)


# How many frames in one embedding? ---------------------------------------------------------------


def rate_cost(model, samples: int, text_tokens: int, rate: int) -> dict[str, int]:
    """What an audio_downsample_rate means for one clip: counted, nothing is trained.

    Args:
        samples: the clip's length at 16 kHz. text_tokens: L.
    Returns:
        `A`; `positions` (prompt, audio, text) that the decoder reads; its `flops`, 2 for each
        position and each parameter outside the token table; `parameters` of the projector.
    """
    lm, config = model.decoder.language_model, model.config
    layers = sum(p.numel() for p in lm.parameters()) - lm.get_input_embeddings().weight.numel()
    embeddings = -(-samples // (rate * SAMPLES_PER_ENCODER_FRAME))
    positions = model.decoder.prompt_length + embeddings + text_tokens
    hidden, out = config.projector_hidden_dim, config.llm_dim
    parameters = (rate * config.encoder_dim + 1) * hidden + (hidden + 1) * out
    return {
        "A": embeddings,
        "positions": positions,
        "flops": 2 * layers * positions,
        "parameters": parameters + (out if config.projector_output_norm else 0),
    }


@drawn
def rate_view(model, audio, text_tokens: int, rate: int) -> Picture:
    """The clip cut as a rate cuts it, and what each rate from 1 to 10 costs; one is picked out."""
    samples = load_audio(audio, SAMPLE_RATE)
    rows = [rate_cost(model, len(samples), text_tokens, each) for each in RATES]
    figure = Picture(figsize=(WIDTH, 4.2), layout="constrained")
    panels = figure.subplot_mosaic([["cut", "cut"], ["read", "size"]], height_ratios=[0.7, 1])
    cut, read, size = panels["cut"], panels["read"], panels["size"]
    waves(cut, samples)
    step, count = rate * SAMPLES_PER_ENCODER_FRAME / SAMPLE_RATE, rows[rate - RATES[0]]["A"]
    for place in range(1, count, 2):
        cut.axvspan(place * step, (place + 1) * step, color=AUDIO, alpha=0.35, linewidth=0)
    cut.set(xlim=(0, count * step), yticks=[], xlabel="time in s")
    cut.set_title(f"rate {rate}: {count} audio embeddings of {1000 * step:.0f} ms")
    audio_positions, prompt = np.array([row["A"] for row in rows]), model.decoder.prompt_length
    below = {"prompt": 0, "audio": prompt, "text": prompt + audio_positions}
    heights = {"prompt": prompt, "audio": audio_positions, "text": text_tokens}
    for (name, height), color in zip(heights.items(), (PROMPT, AUDIO, TEXT), strict=True):
        bars = read.bar(RATES, height, bottom=below[name], color=color, label=name)
    positions = [str(row["positions"]) for row in rows]
    read.bar_label(bars, positions)
    read.set(title="positions that the decoder reads")
    read.legend(loc="upper right", frameon=True, framealpha=1, edgecolor="none")
    millions = [row["parameters"] / 1e6 for row in rows]
    labels = [f"{number:.1f}" for number in millions]
    size.bar_label(size.bar(RATES, millions, color=ENCODER), labels)
    size.set(title="parameters of the projector, millions")
    for axes in (read, size):
        axes.set(xticks=RATES, yticks=[], xlabel="audio_downsample_rate")
        axes.spines["left"].set_visible(False)
        axes.axvspan(rate - 0.5, rate + 0.5, fill=False, edgecolor=MARK, linewidth=1.5)
    figure.alt = (
        f"Above, {len(samples) / SAMPLE_RATE:.2f} s of sound, cut into {count} pieces of "
        f"{1000 * step:.0f} ms, rate {rate}. Below, for rates 1 to 10: the decoder's positions, "
        f"{', '.join(positions)}; the projector's parameters in millions, {', '.join(labels)}."
    )
    return figure


def explore_rate(model, audio, text_tokens: int) -> Explorer:
    """A slider over audio_downsample_rate: the clip as it is cut, length and cost."""
    samples, own = len(load_audio(audio, SAMPLE_RATE)), model.config.audio_downsample_rate

    def explain(rate: int) -> str:
        cost = rate_cost(model, samples, text_tokens, rate)
        return (
            f"{rate} frames of 20 ms in each audio embedding: {cost['A']} embeddings for "
            f"{text_tokens} tokens of text, {cost['positions']} positions, "
            f"{cost['flops'] / 1e9:.2f} GFLOP in the decoder, a projector of "
            f"{many(cost['parameters'])} parameters. This model was made for {own}."
        )

    name = "audio_downsample_rate"
    slider = IntSlider(value=own, min=RATES[0], max=RATES[-1], description=name)
    draw = partial(rate_view, model, audio, text_tokens)
    return Explorer("explore_rate", slider, draw=draw, explain=explain)
