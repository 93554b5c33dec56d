"""The page of `tiny-asr demo`: Gradio's components around `demo.follow` and `demo.live`.

It is served on this machine alone: no link that others can open, no analytics, no fonts from
elsewhere, no history in the browser; what is recorded is deleted when the demo stops.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import gradio
import numpy as np

from tiny_asr.audio import load_audio
from tiny_asr.demo.follow import READY, bundled_clips, follow, shapes
from tiny_asr.demo.live import Live
from tiny_asr.shapes import SAMPLE_RATE

HOST = "127.0.0.1"
LARGEST_FILE = "100mb"
FONTS = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]  # none has to be downloaded
STYLE = Path(__file__).with_name("page.css")


def playable(source) -> tuple[int, np.ndarray]:
    """Anything `load_audio` takes, as Gradio's player does: it would amplify floats."""
    return SAMPLE_RATE, (load_audio(source) * 32_767).short().numpy()


def introduction(model) -> str:
    """The head of the page, as Markdown: which models these are, where they run, what to expect."""
    parts = [Path(name).name for name in (model.config.encoder, model.config.decoder)]
    encoder, decoder = (name.removeprefix("bundled:") for name in parts)
    lines = [
        "# tiny_asr: say something",
        f"sound → log-mel → **{encoder}** → projector → **{decoder}** → text",
        f"It runs on this machine ({model.device.type}) alone: nothing that you say leaves it, and "
        "recordings are deleted when the demo stops.",
    ]
    if model.untrained:
        lines.append(f"**Untrained: {', '.join(model.untrained)}.** The text means nothing.")
    return "\n\n".join(lines)


def build(model, beams: int = 1, hints: Sequence[str] = ()) -> gradio.Blocks:
    """The page for an `ASRModel`, not yet served; beams and hints: see `ASRModel.transcribe`."""
    clips, lock = bundled_clips(), Lock()
    with gradio.Blocks(title="tiny_asr", analytics_enabled=False) as page:
        gradio.Markdown(introduction(model))
        with gradio.Tab("A recording"):
            with gradio.Row():
                with gradio.Column():
                    clip = gradio.Audio(
                        sources=["microphone", "upload"],
                        type="filepath",
                        label="Your voice, or a file",
                        editable=False,
                        buttons=[],
                    )
                    picker = gradio.Dropdown(
                        list(clips), value=None, label="... or choose a bundled clip"
                    )
                    button = gradio.Button("Transcribe", variant="primary")
                with gradio.Column():
                    text = gradio.Textbox(
                        label="Transcript", lines=4, interactive=False, elem_id="transcript"
                    )
                    status = gradio.HTML(READY, elem_id="status")
            gradio.Markdown("## The shape of every stage")
            shown = [status, text, gradio.HTML(shapes(), elem_id="shapes")]
            shown.append(gradio.HTML(elem_id="pictures"))
            run = partial(_alone, lock, follow, model, beams=beams, hints=hints)
            starts = [clip.stop_recording, clip.upload, button.click]
            gradio.on(starts, run, clip, shown, show_progress="hidden")
            picked = picker.input(lambda name: playable(clips[name]), picker, clip)
            picked.then(run, clip, shown, show_progress="hidden")
        with gradio.Tab("While you speak"):
            _live(partial(Live, model, lock, beams, hints))
    return page


def _alone(lock: Lock, work, *args, **options) -> Iterator:
    """What a generator yields, while nobody else uses the model."""
    with lock:
        yield from work(*args, **options)


def _live(begin: Callable[[], Live]) -> None:
    """The tab to speak to: text under the microphone, the tentative part pale."""
    microphone = gradio.Audio(
        sources=["microphone"], streaming=True, type="numpy", label="Your voice", buttons=[]
    )
    said = gradio.HTML("Record, and speak: words come while you do.", elem_id="live")
    live = gradio.State(None, delete_callback=lambda live: live and live.finish())

    def hear(live: Live | None, block: tuple[int, np.ndarray] | None) -> str:
        if live is None or block is None:
            return ""
        live.put(block[1], block[0])
        return live.html()

    def end(live: Live | None) -> str:
        if live is None:
            return ""
        live.finish()
        return live.html()

    quiet = {"show_progress": "hidden"}
    microphone.start_recording(lambda: (begin(), ""), None, [live, said], **quiet)
    microphone.stream(hear, [live, microphone], said, stream_every=0.3, time_limit=None, **quiet)
    microphone.stop_recording(end, live, said, **quiet)


def serve(
    model,
    port: int | None = None,
    open_browser: bool = True,
    beams: int = 1,
    hints: Sequence[str] = (),
) -> None:
    """Serve the page at http://127.0.0.1:PORT, for this machine only, until Ctrl-C.

    Args:
        model: an `ASRModel`.
        port: the first free one from 7860 on if None; one that is taken raises ValueError.
        open_browser: show the page in the user's browser.
        beams, hints: see `ASRModel.transcribe`.
    """
    with TemporaryDirectory() as folder:  # for all that is recorded and uploaded
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(model, beams, hints)
        try:
            _, address, _ = page.launch(
                server_name=HOST,
                server_port=port,
                inbrowser=open_browser,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                run_history=False,  # it would keep recordings in the browser
                footer_links=[],
                enable_monitoring=False,
                max_file_size=LARGEST_FILE,
                ssr_mode=False,
                pwa=False,
                theme=gradio.themes.Default(primary_hue="blue", font=FONTS[0], font_mono=FONTS[1]),
                css=STYLE.read_text(encoding="utf-8"),
            )
        except OSError as error:
            raise ValueError(
                f"port {port or 'from 7860 on'} is taken; expected a free one: choose another "
                "--port, or stop the demo that runs there"
            ) from error
        print(f"the demo is at {address} for this machine only; Ctrl-C stops it", flush=True)
        page.block_thread()
