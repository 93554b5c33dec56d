"""The command `tiny-asr listen`."""

import json
import os
import shutil
import signal
import sys
import time
from io import FileIO
from typing import Annotated

import typer

from tiny_asr.cli import options

DIM, PLAIN, CLEAR = "\x1b[2m", "\x1b[0m", "\r\x1b[K"


def listen(
    file: Annotated[
        str | None,
        typer.Option(help="play it as if it were spoken now; -: raw 16-bit mono PCM from stdin"),
    ] = None,
    rate: Annotated[int | None, typer.Option(help="Hz of the raw PCM (16000)")] = None,
    microphone: Annotated[
        str | None, typer.Option(help="its number or a part of its name; see --devices")
    ] = None,
    devices: Annotated[bool, typer.Option("--devices", help="list the microphones")] = False,
    beams: options.Beams = 1,
    hints: options.Hints = "",
    model: options.Model = "tiny",
    encoder: options.Encoder = None,
    decoder: options.Decoder = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="each step as an object a line")] = False,
) -> None:
    """Write what is said while it is said, from the microphone; Ctrl-C ends it."""
    from tiny_asr.audio import load_audio, resampled
    from tiny_asr.listen import sources
    from tiny_asr.listen.listener import Listener
    from tiny_asr.shapes import SAMPLE_RATE

    if devices:
        print(sources.microphones())
        return
    for option, came, needs in [
        ("--rate", rate is not None and file != "-", "--file -"),
        ("--microphone", microphone is not None and file is not None, "no --file"),
    ]:
        if came:
            raise ValueError(f"{option} came; expected {needs} with it: leave {option} out")
    inbox = sources.Inbox()
    if file == "-":
        rate = SAMPLE_RATE if rate is None else rate
        start = sources.raw_pcm(inbox, FileIO(options.stdin().fileno(), closefd=False), rate)
    elif file is not None:
        start, rate = sources.played(inbox, load_audio(file)), SAMPLE_RATE
    else:
        start, rate = sources.microphone(inbox, microphone)
    recogniser, _ = options.load_model(model, encoder, decoder, device, dtype)
    listener = Listener(recogniser, beams, options.words_of(hints))
    show = _Json() if as_json else _Text()

    def end(*_) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends at once
        inbox.close()

    before = signal.signal(signal.SIGINT, end)
    try:
        if file is None:
            print("listening; Ctrl-C ends it", file=sys.stderr, flush=True)
        start()
        for block in resampled(inbox, rate):
            show.step(listener.hear(block))
        show.end(listener.finish())
    finally:
        signal.signal(signal.SIGINT, before)


class _Text:
    """Final text line by line; below it, on a terminal, the tentative text, rewritten in place."""

    def __init__(self) -> None:
        self.final = ""
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def step(self, heard) -> None:
        self.line(heard.final[len(self.final) :])
        self.final = heard.final
        if self.terminal:  # the end of what does not fit into one line
            words = options.printable(heard.tentative)[1 - shutil.get_terminal_size().columns :]
            print(f"{CLEAR}{DIM}{words}{PLAIN}", end="", flush=True)

    def line(self, text: str) -> None:
        if text.strip():
            print(f"{CLEAR if self.terminal else ''}{options.printable(text).strip()}", flush=True)

    def end(self, text: str) -> None:
        if self.terminal:
            print(CLEAR, end="")
        if text.startswith(self.final):
            self.line(text[len(self.final) :])
            return
        print("what came later moved the pauses' borders; the whole text:", file=sys.stderr)
        self.line(text)


class _Json:
    """A line for each step that changed something, and one with the whole text."""

    def __init__(self) -> None:
        self.start, self.last, self.final = time.perf_counter(), ("", ""), 0

    def step(self, heard) -> None:
        if (heard.final, heard.tentative) != self.last:
            new = {"final": heard.final[self.final :].strip(), "tentative": heard.tentative}
            self.print(new | {"heard": round(heard.seconds, 2)})
            self.last, self.final = heard[:2], len(heard.final)

    def end(self, text: str) -> None:
        self.print({"text": text})

    def print(self, report: dict) -> None:
        seconds = round(time.perf_counter() - self.start, 2)
        print(json.dumps(report | {"seconds": seconds}), flush=True)
