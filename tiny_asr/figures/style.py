"""What all figures share: style, alt text, output; the words and numbers read off a trace.

A `Picture` is a matplotlib figure outside pyplot: none stays open. `show` hands
its alt text to the notebook, `save` writes it into the file.
"""

import base64
import io
from functools import wraps
from html import escape
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from tiny_asr.figures.trace import Trace
from tiny_asr.shapes import SAMPLE_RATE

# Okabe and Ito's colours stay apart for colour-blind readers; black text reads on the last four.
SOUND, MARK, MEL = "#0072B2", "#D55E00", "#CC79A7"
ENCODER, AUDIO, PROMPT, TEXT = "#009E73", "#E69F00", "#C8C8C8", "#56B4E9"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.facecolor": "white",  # in a dark notebook, too: the figure brings its own paper
    "text.parse_math": False,  # a token may well be a dollar sign
    "legend.frameon": False,
}
WIDTH = 8.3  # inches: 800 CSS pixels, the width of a notebook's output and of an A4 page
DPI, CSS_DPI = 150, 96
MONOSPACE = "DejaVu Sans Mono"  # comes with matplotlib


class Picture(Figure):
    """A figure with an alt text: what is seen on it, in a few sentences with numbers."""

    alt = ""

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        return _bundle(self)


def drawn(draw):
    """Decorate a figure's function: the course's style, whatever the notebook around it has set."""

    @wraps(draw)
    def wrapper(*args, **kwargs) -> Picture:
        with style.context(["default", STYLE]):
            figure = draw(*args, **kwargs)
            engine = figure.get_layout_engine()
            if engine is not None:
                engine.execute(figure)
        figure.alt = " ".join(figure.alt.split())
        figure.set_layout_engine("none")  # computed for every output anew, it moves by a hair
        return figure

    return wrapper


def png(figure: Figure, alt: str | None = None, dpi: float = DPI) -> bytes:
    """The figure as PNG: the alt text as its Description, no date and no version in it."""
    drawing, out = io.BytesIO(), io.BytesIO()
    with style.context(["default", STYLE]):
        figure.savefig(drawing, dpi=dpi, pil_kwargs={"compress_level": 0})
    # 256 colours are enough at a third of the bytes; notebooks are stored with their figures.
    image = Image.open(drawing).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    about = PngInfo()
    about.add_text("Description", _alt(figure, alt))
    image.save(out, "png", pnginfo=about)
    return out.getvalue()


def _alt(figure: Figure, alt: str | None) -> str:
    alt = alt or (figure.alt if isinstance(figure, Picture) else "")
    if not alt:
        raise ValueError(f"{figure} came without alt text; expected one: pass alt='what is seen'")
    return alt


def _bundle(figure: Figure, alt: str | None = None) -> tuple[dict, dict]:
    image = base64.b64encode(png(figure, alt, 1.25 * CSS_DPI)).decode()
    width = round(figure.get_figwidth() * CSS_DPI)  # fewer than the pixels: sharp on fine screens
    about = {"alt": _alt(figure, alt), "width": width}
    return {"image/png": image, "text/plain": repr(figure)}, {"image/png": about}


def show(figure: Figure, alt: str | None = None) -> None:
    """Display a figure in a notebook with its alt text, and close it. `figure`: one of this module;
    or any other, together with `alt`, what is seen on it."""
    from IPython.display import display  # the command line draws, too, and has no notebook
    from matplotlib import pyplot

    data, metadata = _bundle(figure, alt)
    display(data, metadata=metadata, raw=True)
    pyplot.close(figure)


def save(figure: Figure, path: str | Path, alt: str | None = None) -> Path:
    """Write a figure as PNG, its alt text inside; the same figure gives the same bytes.

    Raises ValueError where the file can't be written.
    """
    path, image = Path(path), png(figure, alt)
    try:
        path.write_bytes(image)
    except OSError as error:
        raise ValueError(f"cannot write {path} ({error.strerror}): choose another place") from error
    return path


def name_words(axes, words, size: float = 8) -> None:
    """Write words above an axis of time, each over the seconds in which it was said.

    Args:
        words: (word, begin, end) in s; none leaves the axis as it is.
        size: of the letters, in points.
    """
    if words:
        middles = [(begin + end) / 2 for _, begin, end in words]
        above = axes.secondary_xaxis("top")
        names = [word for word, _, _ in words]
        above.set_xticks(middles, labels=names, fontstyle="italic", fontsize=size)
        above.tick_params(length=0, pad=1)
        above.spines["top"].set_visible(False)
        for edge in {edge for _, *edges in words for edge in edges}:
            axes.axvline(edge, 1, 1.03, color="black", linewidth=0.8, clip_on=False)


def many(number: float) -> str:
    """12345 -> '12 345'."""
    return f"{number:,.0f}".replace(",", " ")


def title_of(trace: Trace, name: str) -> str:
    """`log_mel (B, M, F) = 1 x 80 x 590: loudness of ...`, all of it from the trace."""
    line, tensor = trace.stages[name].stage, trace[name]
    return f"{name} {line.shape} = {sizes_of(tensor)}: {line.meaning}"


def sizes_of(tensor: Tensor) -> str:
    return " x ".join(map(many, tensor.shape))


def duration_of(trace: Trace) -> float:
    """Seconds on every time axis: the clip, and the padding that fills its last embedding."""
    return trace.sizes["S"] / SAMPLE_RATE


def decoder_parts(trace: Trace) -> dict[str, tuple[int, str]]:
    """What the decoder reads and writes, in order: name -> number of positions, colour."""
    prompt, audio = trace.sizes["P"], trace["audio_embeddings"][0]
    # The prompt's length before the audio, read off the tensor: where the first embedding lies.
    distance = (trace["decoder_input"][0, : prompt + 1] - audio[0]).norm(dim=1)
    before = int(distance.argmin())
    return {
        "prompt tokens": (before, PROMPT),
        "audio embeddings": (len(audio), AUDIO),
        "more prompt tokens": (prompt - before, PROMPT),
        "written tokens": (trace["token_ids"].shape[1], TEXT),
    }


def legible(text: str) -> str:
    """The text with a box for every character that the figures' font cannot draw."""
    known = get_font(findfont(MONOSPACE)).get_charmap()
    return "".join(c if c.isprintable() and ord(c) in known else "\u25a1" for c in text)


def seen(text: str, longest: int = 60) -> str:
    """A piece of text with its spaces and line ends made visible, cut if it is long."""
    text = legible(text.replace(" ", "\u2423").replace("\n", "\u21b5"))
    return text if len(text) <= longest else f"{text[: longest - 1]}\u2026"


def picture_html(figure: Picture) -> str:
    """A figure as HTML, its PNG in it, with its alt text."""
    data = base64.b64encode(png(figure, dpi=CSS_DPI)).decode()
    source = f'src="data:image/png;base64,{data}" style="max-width: 100%"'
    return f'<img alt="{escape(figure.alt)}" {source}>'
