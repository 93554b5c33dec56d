"""The command line as a user meets it: what is printed where, as text and as JSON."""

import io
import json
import os
import re
import subprocess
import sys
import warnings

import pytest
import soundfile
from fixtures_models import checkpoint_dir, decoder_dir, encoder_dir, noise, talkative

from tiny_asr import sample_clip
from tiny_asr.cli import main as cli
from tiny_asr.shapes import CONTRACT

COMMANDS = ("info", "trace", "transcribe")
SHARED_OPTIONS = ("--model", "--encoder", "--decoder", "--device", "--dtype", "--json")


def parts() -> list[str]:
    """Options for random frozen models, whose projector nobody has trained."""
    return ["--encoder", str(encoder_dir()), "--decoder", str(decoder_dir())]


def trained() -> list[str]:
    """Options for a checkpoint that has a projector."""
    return ["--model", str(checkpoint_dir())]


@pytest.fixture
def tiny_asr(monkeypatch, capsys):
    """Run `tiny-asr ARGUMENTS` in this process: (exit status, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # restored afterwards

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tiny-asr", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[str]:
    """Three readable files; the last one is longer than the encoder can take at once."""
    directory = tmp_path_factory.mktemp("clips")
    paths = [str(directory / f"{name}.wav") for name in ("short", "middle", "long")]
    for path, seconds in zip(paths, (0.5, 1.3, 33.0), strict=True):
        soundfile.write(path, noise(seconds).numpy(), 16_000)
    return paths


def test_help_needs_none_of_the_heavy_libraries():
    program = (
        "import sys; from tiny_asr.cli import main as cli; sys.argv = ['tiny-asr', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit as stopped: print(stopped.code)\n"
        "print({'torch', 'transformers', 'datasets', 'numpy', 'matplotlib'} & sys.modules.keys())"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert all(command in printed for command in COMMANDS)
    assert printed.endswith("0\nset()\n")


def test_without_arguments_it_shows_help(tiny_asr):
    status, out, err = tiny_asr()
    assert (status, err) == (0, "")
    assert "Usage: tiny-asr" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_shared_options(tiny_asr, command):
    status, out, _ = tiny_asr(command, "--help")
    assert status == 0
    assert [option for option in SHARED_OPTIONS if f"{option} " not in out] == []


def test_info_knows_the_four_pairs_without_a_network(tiny_asr):
    status, out, _ = tiny_asr("info", "--device", "cpu", "--json")
    report = json.loads(out)
    assert status == 0
    assert list(report["models"]) == ["tiny", "small", "medium", "full"]
    full = report["models"]["full"]
    assert full["parts"]["encoder"]["parameters"] == 636_968_960
    assert full["parts"]["decoder"]["parameters"] == 3_075_098_624
    assert full["sizes"]["llm_dim"] == 2048
    assert report["device"] == "cpu" and report["dtype"] == "float32"
    assert {"tiny_asr", "python", "torch", "transformers"} <= report["versions"].keys()


def test_info_for_a_terminal(tiny_asr):
    _, table, _ = tiny_asr("info")
    assert "no CUDA GPU here" in table or "a CUDA GPU is here" in table
    for name in ("bundled:tiny-encoder", "openai/whisper-base", "HuggingFaceTB/SmolLM3-3B"):
        assert name in table
    _, detail, _ = tiny_asr("info", "--model", "full", "--dtype", "bfloat16")
    assert "/no_think" in detail and "2048" in detail
    assert "7.49 GB" in detail  # 2 bytes for each frozen parameter, 4 for the projector's


def test_info_counts_what_the_model_holds_and_says_what_is_trained(tiny_asr):
    _, out, _ = tiny_asr("info", *trained(), "--json")
    (described,) = json.loads(out)["models"].values()
    model = talkative()
    for part, module in {
        "encoder": model.encoder,
        "decoder": model.decoder,
        "projector": model.audio_projector,
    }.items():
        numbers = sum(parameter.numel() for parameter in module.parameters())
        assert described["parts"][part]["parameters"] == numbers
        assert described["parts"][part]["weights"] == "trained"
    assert described["prompt"] == model.config.prompt

    _, out, _ = tiny_asr("info", *parts(), "--json")
    described = json.loads(out)["models"]["tiny"]["parts"]
    assert described["projector"]["weights"] == "untrained"  # not the one of other parts
    assert described["encoder"]["name"] == str(encoder_dir())


def test_info_sees_what_the_hub_cache_holds(tmp_path):
    """The cache's own layout, written by hand: one model with an index, the other one not there."""
    model = tmp_path / "models--HuggingFaceTB--SmolLM3-3B"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("0123abc")
    (model / "snapshots" / "0123abc").mkdir(parents=True)
    (model / "snapshots" / "0123abc" / "model.safetensors.index.json").write_text("{}")
    out = subprocess.check_output(
        [sys.executable, "-m", "tiny_asr.cli", "info", "--model", "full", "--json"],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path)},
    )
    described = json.loads(out)["models"]["full"]["parts"]
    assert described["decoder"]["weights"] == "downloaded"
    assert described["encoder"]["weights"] == "not downloaded"


def test_trace_of_the_bundled_sentence(tiny_asr, tmp_path):
    status, out, _ = tiny_asr("trace", "--out", tmp_path / "new" / "folder", *parts())
    assert status == 0
    for stage in CONTRACT.keys() - {"text_logits"}:  # these belong to training
        assert re.search(rf"^{stage} ", out, re.MULTILINE), stage
    assert "untrained: projector" in out
    for picture in ("encoder_output.png", "projector_output.png", "journey.png"):
        path = tmp_path / "new" / "folder" / picture
        assert f"wrote {path}" in out
        assert path.read_bytes().startswith(b"\x89PNG")
    printed = [line for line in out.splitlines() if not line.startswith(("text ", "wrote "))]
    assert [line for line in printed if len(line) > 80] == []


def test_trace_as_json(tiny_asr, tmp_path, clips):
    status, out, err = tiny_asr("trace", clips[1], "--out", tmp_path, *trained(), "--json")
    report = json.loads(out)
    assert (status, err) == (0, "")
    assert report["sizes"]["S"] == 20_800 and report["sizes"]["A"] == 13
    shapes = {stage["stage"]: stage["shape"] for stage in report["stages"]}
    assert shapes["audio_embeddings"] == [1, 13, 32]
    assert report["text"] == talkative().transcribe(clips[1])
    assert report["untrained"] == []
    assert [name.rsplit(os.sep)[-1] for name in report["files"]] == [
        "encoder_output.png",
        "projector_output.png",
        "journey.png",
    ]
    assert report["seconds"] > 0


def test_one_file_gives_its_text_alone(tiny_asr, clips):
    status, out, _ = tiny_asr("transcribe", clips[0], *trained())
    text = talkative().transcribe(clips[0])
    assert status == 0
    assert re.sub(r"\s", "", out) == re.sub(r"\s", "", text)
    assert out.count("\n") == 1  # whatever a random decoder writes, one line


def test_several_files_give_one_line_each_however_long(tiny_asr, clips):
    status, out, _ = tiny_asr("transcribe", *clips, *parts())
    assert status == 0
    assert [line.partition(": ")[0] for line in out.splitlines()] == clips


def test_a_bad_file_does_not_stop_the_good_ones(tiny_asr, clips):
    status, out, err = tiny_asr("transcribe", clips[0], "nowhere.wav", clips[1], *parts())
    assert status == 2
    assert [line.partition(": ")[0] for line in out.splitlines()] == [clips[0], clips[1]]
    assert re.fullmatch(r"tiny-asr: cannot read 'nowhere.wav' .*: check the path\n", err)


def test_transcribe_as_json(tiny_asr, clips):
    status, out, err = tiny_asr("transcribe", clips[2], "nowhere.wav", *trained(), "--json")
    report = json.loads(out)
    assert status == 2 and err.count("\n") == 1
    assert report["model"] == str(checkpoint_dir())
    assert report["device"] in ("cpu", "cuda") and report["untrained"] == []
    good, bad = report["files"]
    assert good == {
        "file": clips[2],
        "seconds": 33.0,
        "text": talkative().transcribe(clips[2]),
    }
    assert bad.keys() == {"file", "error"} and "nowhere.wav" in bad["error"]


def test_words_are_a_table_of_80_columns(tiny_asr, clips):
    status, out, _ = tiny_asr("transcribe", *clips[:2], "--words", *trained())
    rows = [line for line in out.splitlines() if not line.startswith(tuple(clips))]
    expected = talkative().transcribe(clips[:2], words=True)
    assert status == 0 and len(rows) == sum(len(timed.words) for timed in expected) > 0
    for row, word in zip(rows, [w for timed in expected for w in timed.words], strict=True):
        begin, end, *_ = row.split()
        assert (begin, end) == (f"{word.begin:.2f}", f"{word.end:.2f}")


def test_the_words_of_the_bundled_sentence(tiny_asr):
    _, out, _ = tiny_asr("transcribe", "--words", "--json", sample_clip())
    (result,) = json.loads(out)["files"]
    assert " ".join(word["word"] for word in result["words"]) == result["text"]
    assert result["words"][0] == {"word": "she", "begin": 0.02, "end": 0.18}
    _, table, _ = tiny_asr("transcribe", "--words", sample_clip())
    assert "\n     2.50      2.98  words\n" in table
    _, srt, _ = tiny_asr("transcribe", "--format", "srt", sample_clip())
    assert srt.startswith("1\n00:00:00,020 --> 00:00:02,980\nshe listens to the sea")
    _, vtt, _ = tiny_asr("transcribe", "--format", "vtt", sample_clip())
    assert vtt.startswith("WEBVTT\n\n00:00:00.020 --> 00:00:02.980\n")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--format", "xml"], "--format 'xml' came; expected text, srt or vtt"),
        (["--format", "srt", "--json"], "--format srt came with --json; expected one file"),
        (["--format", "vtt", "--words"], "--format vtt came with --words"),
        (["--format", "srt", "other.wav"], "--format srt came with 2 files"),
        (["--stream", "--words"], "--stream came with --words"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_asr, clips, options, says):
    status, out, err = tiny_asr("transcribe", clips[0], *options, *trained())
    assert (status, out) == (2, "") and says in err


def test_dtype_and_device_reach_the_model(tiny_asr, clips):
    options = ("--dtype", "bfloat16", "--device", "cpu", "--json")
    _, out, _ = tiny_asr("transcribe", clips[0], *parts(), *options)
    assert json.loads(out) | {"files": []} == {
        "model": "tiny",
        "untrained": ["projector"],
        "device": "cpu",
        "dtype": "bfloat16",
        "files": [],
    }


def test_stream_prints_the_same_text(tiny_asr, clips):
    status, out, _ = tiny_asr("transcribe", "--stream", clips[1], *trained())
    _, whole, _ = tiny_asr("transcribe", clips[1], *trained())
    assert status == 0
    assert " ".join(out.split()) == whole.strip()


def test_a_dash_reads_stdin(tiny_asr, clips, monkeypatch):
    with open(clips[0]) as file:
        monkeypatch.setattr(sys, "stdin", file)
        _, out, _ = tiny_asr("transcribe", "-", *trained(), "--json")
    (result,) = json.loads(out)["files"]
    assert result["text"] == talkative().transcribe(clips[0])


def test_as_a_program_stdout_is_json_and_stderr_says_untrained(clips):
    """As `accelerate launch -m` starts it; the libraries' own advice stays away."""
    finished = subprocess.run(
        [sys.executable, "-m", "tiny_asr.cli", "transcribe", clips[0], *parts(), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(finished.stdout)["untrained"] == ["projector"]
    (line,) = finished.stderr.splitlines()
    assert line.startswith("tiny-asr: untrained: projector.")


class _Broken(io.RawIOBase):
    """A stdin that fails, to see how failures leave the program."""

    def __init__(self, error: BaseException):
        self.error = error

    @property
    def buffer(self):
        raise self.error


def test_our_warnings_are_a_line_and_a_librarys_bad_spelling_is_none():
    code = """
import warnings
from tiny_asr import sample_clip
from tiny_asr.cli import main as cli
cli._quieten()
warnings.warn("bad spelling", SyntaxWarning)
warnings.warn("heed this")
"""
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert said == "tiny-asr: heed this\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has another shell")
@pytest.mark.parametrize(
    ("closed", "command", "status", "says"),
    [
        (">&-", "info --device cpu", 0, ""),
        (">&- <&-", "--help", 0, ""),
        ("<&-", "transcribe -", 2, "tiny-asr: stdin is closed; expected sound on it"),
        ("<&-", "listen --file -", 2, "tiny-asr: stdin is closed; expected sound on it"),
        ("2>&- <&-", "transcribe -", 2, ""),
    ],
)
def test_closed_streams(closed, command, status, says):
    line = f"{sys.executable} -m tiny_asr.cli {command} {closed}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(says) and done.stderr.count("\n") == bool(says)


def test_ctrl_c_ends_quietly(tiny_asr, monkeypatch):
    monkeypatch.setattr(sys, "stdin", _Broken(KeyboardInterrupt()))
    assert tiny_asr("transcribe", "-") == (130, "", "")


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "stdin", _Broken(RuntimeError("a bug")))
    monkeypatch.setattr(sys, "argv", ["tiny-asr", "transcribe", "-"])
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


def test_transcribe_with_beams_and_hints(tiny_asr, clips):
    status, out, _ = tiny_asr(
        "transcribe", clips[1], *trained(), "--beams", "3", "--hints", "the cat,  on ,", "--json"
    )
    assert status == 0
    plain, searched = talkative(), json.loads(out)["files"][0]["text"]
    assert searched == plain.transcribe(clips[1], beams=3, hints=["the cat", "on"])
    assert searched != plain.transcribe(clips[1])
    status, streamed, _ = tiny_asr(
        "transcribe", clips[1], *trained(), "--beams", "3", "--hints", "the cat,on", "--stream"
    )
    assert (status, streamed.rstrip("\n")) == (0, cli.options.printable(searched))
    status, _, err = tiny_asr("transcribe", clips[1], *trained(), "--beams", "0")
    assert (status, err.count("\n")) == (2, 1) and "Invalid value for '--beams'" in err


def test_int8_is_said_in_the_json(tiny_asr):
    import torch

    from tiny_asr import sample_clip

    status, out, _ = tiny_asr("transcribe", sample_clip(), "--dtype", "int8", "--json")
    assert status == 0 and json.loads(out)["dtype"] == "int8"
    assert "its waves turn into words" in out
    if not torch.cuda.is_available():
        status, _, err = tiny_asr(
            "transcribe", sample_clip(), "--dtype", "int8", "--device", "cuda"
        )
        assert status == 2 and "'cuda' was asked for, but torch sees no CUDA GPU" in err
