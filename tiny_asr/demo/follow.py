"""What the page of `tiny-asr demo` shows of one clip, piece by piece as it comes to be: text, the
shape of every stage, pictures. It knows nothing of Gradio.
"""

import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet

from tiny_asr.audio import load_audio
from tiny_asr.figures import plots
from tiny_asr.figures.style import picture_html
from tiny_asr.figures.tables import Table
from tiny_asr.figures.trace import Trace, trace_clip
from tiny_asr.files.levels import require_sound
from tiny_asr.hub import data_dir, sample_clip
from tiny_asr.shapes import CONTRACT, SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME, record

# A sentence of each, where the speech data is.
VOICES = ("kokoro/bf_emma", "kokoro/am_echo", "flite/rms")
READY = "Record a sentence and stop when it is said, or upload a file, or choose a clip."


def shapes(trace: Trace | None = None) -> str:
    """The stages from sound to text as an HTML table; dots where a trace has no tensor yet."""
    known = {row["stage"]: row for row in trace.rows()} if trace else {}
    unknown = {"shape": "...", "numbers/s": "..."}
    rows = [
        known.get(name) or {"stage": name, "axes": stage.shape, **unknown, "meaning": stage.meaning}
        for name, stage in CONTRACT.items()
        if name != "text_logits"  # these belong to training
    ]
    return Table(rows)._repr_html_()


class Shown(NamedTuple):
    """What the page shows of one clip: HTML, but for the transcript, which is plain text."""

    status: str
    text: str = ""
    shapes: str = shapes()
    pictures: str = ""


def bundled_clips() -> dict[str, object]:
    """Clips that come along, each as `load_audio` takes it, under the name that the page shows. The
    sample is in every installation; a sentence of each of VOICES where the speech data is."""
    clips: dict[str, object] = {"the sentence of the course": sample_clip()}
    speech = data_dir() / "speech" / "test.parquet"
    if speech.is_file():
        for voice in VOICES:
            (row, *_) = pyarrow.parquet.read_table(
                speech, columns=["text", "audio"], filters=[("voice", "==", voice)]
            ).to_pylist()
            clips[f"{voice}: {row['text']}"] = row["audio"]
    return clips


def read(file: str | None):
    """A file from the page -> its waveform (S,) at 16 kHz.

    Raises ValueError for no file, what is not sound, and silence; the message names the file
    without its folder, which is Gradio's.
    """
    if file is None:
        raise ValueError(f"there is no clip yet. {READY}")
    path = Path(file)
    return require_sound(load_audio({"bytes": path.read_bytes(), "path": path.name}))


def follow(model, file: str | None, beams: int = 1, hints: Sequence[str] = ()) -> Iterator[Shown]:
    """Send a clip through the model and yield what there is to show: text, shapes, pictures.

    Args:
        model: an `ASRModel`.
        file: path of a sound file; None is answered with words, as is any other bad input.
        beams, hints: see `ASRModel.transcribe`.
    """
    try:
        waveform = read(file)
    except ValueError as error:
        yield Shown(f'<span class="error">{escape(str(error))}</span>')
        return
    seconds, start = len(waveform) / SAMPLE_RATE, time.perf_counter()
    yield Shown(f"listening to {seconds:.1f} s of sound ...")
    pieces = model.stream(waveform, SAMPLE_RATE, beams, hints)
    with record(model) as recorder:  # at the first piece of text all stages but the last are there
        text = next(pieces, "")
    whole = seconds <= model.config.max_seconds
    table = shapes()
    if whole:
        so_far = Trace(recorder.stages, recorder.sizes, seconds, "", [], model.untrained, {})
        table = shapes(so_far)
    yield Shown("writing ...", text, table)
    for piece in pieces:
        text += piece
        yield Shown("writing ...", text, table)
    done = f"{seconds:.1f} s of sound, written in {time.perf_counter() - start:.1f} s."
    if not text.strip():
        done += " No words were heard in it."
    if whole:
        yield Shown(f"{done} Drawing ...", text, table)
        trace = trace_clip(
            model, waveform, SAMPLE_RATE, beams, hints
        )  # again, now keeping every tensor
        yield Shown(done, text, shapes(trace), pictures(trace))
    else:
        done += (
            f" The encoder hears at most {model.config.max_seconds:g} s at once, so the clip was "
            "split at silences: the text is whole, but shapes and pictures need a shorter clip."
        )
        yield Shown(done, text)


def pictures(trace: Trace) -> str:
    """A trace's pictures as HTML: what the encoder hears, what it says, what the decoder reads."""
    frame = SAMPLES_PER_ENCODER_FRAME / SAMPLE_RATE
    embedding = frame * trace.sizes["audio_downsample_rate"]
    figures = (
        plots.log_mel(trace),
        plots.embeddings(trace["encoder_output"], "Encoder output", frame),
        plots.embeddings(trace["audio_embeddings"], "Projector output", embedding),
    )
    return "".join(map(picture_html, figures))
