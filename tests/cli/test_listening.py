"""`tiny-asr listen` as a user meets it: from a file in its time, from a pipe, on a terminal."""

import json
import os
import pty
import signal
import subprocess
import sys
from functools import partial
from itertools import pairwise

import pytest
import torch
from fixtures_models import checkpoint_dir, noise

from tiny_asr import ASRModel, load_audio, sample_clip
from tiny_asr.cli.listening import CLEAR, DIM, PLAIN, _Text
from tiny_asr.cli.options import printable
from tiny_asr.listen.listener import Heard

SAID = "she listens to the sea and its waves turn into words"
COMMAND = [sys.executable, "-m", "tiny_asr.cli", "listen"]


def listen(*arguments, data: bytes = b"", **options) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of `tiny-asr listen ARGUMENTS` in a process of its own."""
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=100, **options)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def pcm(waveform: torch.Tensor) -> bytes:
    return (waveform * 32_767).round().short().numpy().astype("<i2").tobytes()


def test_each_step_of_a_file_is_a_line_of_json():
    status, out, err = listen("--file", sample_clip(), "--json")
    *steps, last = map(json.loads, out.splitlines())
    assert (status, err) == (0, "")
    assert last["text"] == SAID and last["seconds"] >= 2.99
    assert len(steps) >= 2 and all(step["tentative"] for step in steps)
    assert all(step["heard"] <= step["seconds"] + 0.02 for step in steps), "before it was said"
    assert all(a["heard"] < b["heard"] for a, b in pairwise(steps))


def test_raw_samples_at_another_rate_from_a_pipe_that_ends_within_a_sample():
    data = pcm(noise(1.5))
    options = ("--file", "-", "--rate", 22_050, "--model", checkpoint_dir())
    status, out, err = listen(*options, data=data + b"x")
    samples = torch.frombuffer(bytearray(data), dtype=torch.int16) / 32_768
    text = ASRModel.from_pretrained(checkpoint_dir()).transcribe(samples, 22_050)
    assert status == 0 and out == f"{printable(text).strip()}\n"
    assert err == "tiny-asr: stdin ended within a sample, whose one byte is left out\n"


@pytest.mark.parametrize(
    ("arguments", "data", "complaint"),
    [
        (("--file", "-"), b"", "nothing came on stdin"),
        (("--file", "-"), b"RIFF....", "begins with RIFF"),
        (("--file", "-", "--rate", "7"), b"..", "--rate 7 came"),
        (("--file", "none.wav"), b"", "cannot read 'none.wav'"),
        (("--file", "-", "--rate", "0"), b"..", "--rate 0 came"),
        (("--file", "none.wav", "--rate", "8000"), b"", "--rate came; expected --file - with it"),
        (("--rate", "8000"), b"", "--rate came; expected --file - with it"),
        (("--file", "-", "--microphone", "3"), b"", "--microphone came; expected no --file"),
    ],
)
def test_what_cannot_be_heard_is_one_line(arguments, data, complaint):
    status, out, err = listen(*arguments, data=data)
    assert (status, out) == (2, "")
    assert complaint in err and len(err.splitlines()) == 1


def test_ctrl_c_ends_and_what_was_said_is_printed():
    """On a terminal, with a pipe that stays open: tentative text is dim, the last line is plain."""
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--file", "-"],
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "40"},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    os.close(terminal)
    try:
        process.stdin.write(pcm(load_audio(sample_clip())))
        process.stdin.flush()
        shown = ""
        while f"words{PLAIN}" not in shown:
            shown += os.read(screen, 1000).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, process.stderr.read()
        shown += os.read(screen, 1000).decode()
    finally:
        process.kill()
        process.stdin.close()
        os.close(screen)
    assert f"{CLEAR}{DIM}{SAID[-39:]}{PLAIN}" in shown
    assert shown.endswith(f"{CLEAR}{CLEAR}{SAID}\r\n")
    assert process.stderr.read() == b""


def test_only_final_text_is_printed_where_there_is_no_terminal(capsys):
    show = _Text()
    for heard in (Heard("", "a"), Heard("a b", "c"), Heard("a b", "c d"), Heard("a b c d", "e")):
        show.step(heard)
    show.end("a b c d f")
    assert capsys.readouterr() == ("a b\nc d\nf\n", "")


def test_a_final_text_that_was_wrong_is_put_right(capsys):
    show = _Text()
    show.step(Heard("a b", "c"))
    show.end("a d c")
    out, err = capsys.readouterr()
    assert out == "a b\na d c\n"
    assert err == "what came later moved the pauses' borders; the whole text:\n"
