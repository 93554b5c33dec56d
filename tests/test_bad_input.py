"""Everything a user can get wrong, and the message that tells what came and what to do.

Each row of the tables is one mistake: in Python it must be a ValueError, on the command line one
line on stderr, nothing on stdout, and exit status 2.
"""

import io
import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fixtures_models import checkpoint_dir, decoder_dir, encoder_dir, folder, noise, once, pair
from safetensors.torch import load_file, save_file

from tiny_asr import ASRConfig, ASRModel, load_audio, sample_clip, trace_clip
from tiny_asr.audio import split_at_silences
from tiny_asr.cli import main as cli
from tiny_asr.device import choose_device
from tiny_asr.projector import stack_frames

RATE = 16_000
SECOND = np.zeros(RATE, np.float32)
WEIGHTS = "model.safetensors"


# Things that are wrong -----------------------------------------------------------------------


@once
def file(name: str, content: bytes) -> Path:
    """A file that is not what it should be."""
    folder(name).write_bytes(content)
    return folder(name)


@once
def sound(name: str, seconds: float) -> Path:
    """A WAV file of noise."""
    soundfile.write(folder(name), noise(seconds).numpy(), RATE)
    return folder(name)


@once
def empty_folder() -> Path:
    """A directory without a config.json."""
    folder("empty").mkdir()
    return folder("empty")


def samples_with(value: float) -> np.ndarray:
    """A second of silence but for one sample."""
    samples = SECOND.copy()
    samples[100] = value
    return samples


@once
def spoilt(source: Path, how) -> Path:
    """A copy of a checkpoint with one thing wrong."""
    directory = folder(f"{how.__name__}-{source.name}")
    shutil.copytree(source, directory)
    how(directory)
    return directory


def half(directory: Path) -> None:
    """The config.json ends in the middle."""
    text = (directory / "config.json").read_text()
    (directory / "config.json").write_text(text[:100])


def torn(directory: Path) -> None:
    """The weights were not copied to the end."""
    content = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(content[:-1000])


def gap(directory: Path) -> None:
    """One layer's weights are not there."""
    state = load_file(directory / WEIGHTS)
    kept = {key: value for key, value in state.items() if "layers.1." not in key}
    save_file(kept, directory / WEIGHTS, metadata={"format": "pt"})


def pickled(directory: Path) -> None:
    """The weights are in a format that can run code when it is loaded."""
    torch.save(load_file(directory / WEIGHTS), directory / "pytorch_model.bin")
    (directory / WEIGHTS).unlink()


def change(directory: Path, **fields) -> None:
    """Other values in the config.json."""
    config = json.loads((directory / "config.json").read_text())
    for key, value in fields.items():
        config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
    (directory / "config.json").write_text(json.dumps(config))


def wide(directory: Path) -> None:
    """The config.json declares other sizes than the weights of an encoder have."""
    change(directory, d_model=64)


def narrow(directory: Path) -> None:
    """The config.json declares another projector than was saved."""
    change(directory, projector_hidden_dim=17)


def big(directory: Path) -> None:
    """The decoder needs some 13 000 GB."""
    sizes = {"hidden_size": 2**19, "intermediate_size": 2**19, "head_dim": 2**17}
    change(directory, decoder_config=sizes)


def load(name, **options) -> ASRModel:
    return ASRModel.from_pretrained(name, **options)


def join(**parts) -> ASRModel:
    """A model of the tests' own parts, but for those given."""
    return ASRModel(ASRConfig(**{"encoder": encoder_dir(), "decoder": decoder_dir()} | parts))


def bad_checkpoint(how) -> ASRModel:
    return load(spoilt(checkpoint_dir(), how))


def bad_encoder(how) -> ASRModel:
    return join(encoder=spoilt(encoder_dir(), how))


def bad_decoder(how) -> ASRModel:
    return join(decoder=spoilt(decoder_dir(), how))


def hear(*shape: int) -> torch.Tensor:
    return pair().encoder(torch.zeros(shape))


def project(*shape: int) -> torch.Tensor:
    return pair().audio_projector(torch.zeros(shape))


def learn(**tensors):
    return pair()(**tensors)


# What is wrong, how it comes about, the message (a regular expression) ---------------------------

SOUND = [
    ("missing file", lambda: load_audio("no.wav"), r"'no\.wav' \(No such file.*check the path"),
    ("folder", lambda: load_audio(empty_folder()), r"empty' \(Is a directory\); expected an audio"),
    ("text", lambda: load_audio(file("t.wav", b"hello")), r"t\.wav cannot .* WAV, FLAC.*: convert"),
    (
        "torn FLAC",
        lambda: load_audio(file("torn.flac", sample_clip().read_bytes()[:2000])),
        r"torn\.flac cannot be decoded .*fetch it again",
    ),
    ("empty file", lambda: load_audio(file("0.wav", b"")), r"0\.wav is empty: 0 bytes; .*copy it"),
    ("no samples", lambda: load_audio(SECOND[:0], RATE), r"is empty: 0 samples; expected some"),
    ("NaN", lambda: load_audio(samples_with(np.nan), RATE), r"has 1 NaN or Inf; .*drop this clip"),
    ("Inf", lambda: load_audio(samples_with(np.inf), RATE), r"has 1 NaN or Inf; expected finite"),
    ("rank 3", lambda: load_audio(SECOND[None, None], RATE), r"shape \(1, 1, 16000\).*\(S,\) or"),
    ("upside down", lambda: load_audio(np.zeros((99, 2)), RATE), r"\(99, 2\).*: transpose it\?"),
    ("no rate", lambda: load_audio(SECOND), r"without sampling_rate; expected one: pass it, in Hz"),
    ("rate 0", lambda: load_audio(SECOND, 0), r"sampling_rate=0; expected an integer from 1000"),
    ("rate -1", lambda: load_audio(SECOND, -1), r"sampling_rate=-1; expected .*: pass the rate"),
    ("two rates", lambda: load_audio(sample_clip(), 8000), r"16000 Hz, but sampling_rate=8000"),
    ("booleans", lambda: load_audio(SECOND > 0, RATE), r"type bool is not sound; .*convert it"),
    ("list", lambda: load_audio([0.1, 0.2], RATE), r"audio from a list; expected a path, .*array"),
    ("floats", lambda: pair().transcribe([0.1, 0.2], RATE), r"audio from a float; expected a path"),
    ("empty row", lambda: load_audio({"path": None}), r"dict of \['path'\].*: fill these in"),
    ("text mode", lambda: load_audio(io.StringIO("a")), r"gave text; expected bytes: .*mode 'rb'"),
    ("no clips", lambda: pair().generate([]), r"empty list of clips; expected at least one"),
    ("31 s", lambda: pair().encode(torch.zeros(31 * RATE), RATE), r"31\.00 s; .*: use transcribe"),
    ("31 s trace", lambda: trace_clip(pair(), noise(31), RATE), r"lasts 31\.00 s; .*at most 30 s"),
    ("rank 3 batch", lambda: pair().encode(torch.zeros(1, 1, 9), RATE), r"\(1, 1, 9\) .*\(B, S\)"),
    ("split at 0 s", lambda: split_at_silences(noise(1), 0), r"max_seconds=0; expected 1 to 30"),
]
MODELS = [
    ("unknown pair", lambda: load("huge"), r"'huge' was not found; .*pairs: tiny, small, medium"),
    ("bundled:huge", lambda: load("bundled:huge"), r"expected one of: bundled:full-asr, .*ti"),
    ("no config", lambda: load(empty_folder()), r"empty' has no config\.json; expected a"),
    ("half a config", lambda: bad_checkpoint(half), r"not a valid JSON.*complete"),
    ("other type", lambda: load(decoder_dir()), r"'smollm3' model; expected a tiny_asr.*--decoder"),
    ("projector's shape", lambda: bad_checkpoint(narrow), r"does not fit .*\(17,\).*trained with"),
    ("torn projector", lambda: bad_checkpoint(torn), r"model\.safetensors.*not fully.*again"),
    ("torn encoder", lambda: bad_encoder(torn), r"torn-whisper-80.*not fully.*complete"),
    ("torn decoder", lambda: bad_decoder(torn), r"torn-smollm3.*not fully.*complete"),
    ("encoder's gap", lambda: bad_encoder(gap), r"encoder .* lacks .*layers\.1\..*again"),
    ("decoder's gap", lambda: bad_decoder(gap), r"decoder .* lacks .*layers\.1\..*again"),
    ("wide encoder", lambda: bad_encoder(wide), r"weights of other sizes .*config\.json"),
    ("not Whisper", lambda: join(encoder=decoder_dir()), r"'smollm3' model; expected a Whisper"),
    ("no LM", lambda: join(decoder=encoder_dir()), r"'whisper' model; expected a causal language"),
    ("pickle", lambda: bad_encoder(pickled), r"no \*\.safetensors;.*refused"),
    ("LM pickle", lambda: bad_decoder(pickled), r"run code .*refused"),
    ("remote code", lambda: load("tiny", trust_remote_code=True), r"=True.* runs no code.*leave"),
    ("offline", lambda: load("no/thing"), r"model 'no/thing': .*local copy or use --model tiny"),
    ("hub part", lambda: load("tiny", encoder="no/thing"), r"encoder 'no/thing': .*local copy"),
    ("dtype", lambda: load(checkpoint_dir(), dtype="int4"), r"dtype 'int4'; expected auto, f"),
    ("device", lambda: load(checkpoint_dir(), device="tpu"), r"device 'tpu'; expected auto, cpu"),
    ("no marker", lambda: join(prompt="hi"), r"prompt 'hi' .*<audio> 0 times; .*exactly once"),
    ("two markers", lambda: join(prompt="<audio>" * 2), r"<audio> 2 times; .*exactly once"),
    ("end token", lambda: join(end_token="<stop>"), r"'<stop>' is not .*: set end_token"),
    ("rate 0", lambda: join(audio_downsample_rate=0), r"rate=0 .*expected 1 to 1500, whole"),
    ("rate 2.5", lambda: join(audio_downsample_rate=2.5), r"rate=2\.5 .*expected 1 to 1500, whole"),
]
CALLS = [
    ("7 frames", lambda: stack_frames(torch.zeros(1, 7, 4), 5), r"7 encoder .*= 5: pad .* 1600"),
    ("frame width", lambda: project(1, 5, 47), r"\(1, 5, 47\) came; expected \(B, T, 48\)"),
    ("frame rank", lambda: project(5, 48), r"\(5, 48\) came; expected \(B, T, 48\)"),
    ("mel bins", lambda: hear(1, 128, 100), r"\(1, 128, 100\) came; expected \(B, 80, F\)"),
    ("odd mel frames", lambda: hear(1, 80, 101), r"101 mel frames .*even number up to 3000.*: pad"),
    ("many mel frames", lambda: hear(1, 80, 3002), r"3002 mel frames .*split longer audio"),
    ("unknown device", lambda: choose_device("tpu"), r"device 'tpu'; expected auto, cpu, cuda"),
    ("cpu:x", lambda: choose_device("cpu:x"), r"device 'cpu:x'; expected auto, cpu, cuda or"),
    ("cuda:99", lambda: choose_device("cuda:99"), r"'cuda:99' .*(use cpu|numbered from cuda:0)"),
    ("unknown dtype", lambda: choose_device("cpu", "int4"), r"dtype 'int4'; expected auto"),
    ("cold", lambda: pair().generate([noise(1)], temperature=-1), r"temperature -1 came; exp"),
    ("batch of 0", lambda: pair().transcribe([], batch_size=0), r"batch_size 0 came; expected"),
    ("texts", lambda: pair().processor([noise(1)], ["a", "b"], RATE), r"1 clips.* 2 texts came"),
    ("no clip, no text", lambda: pair().processor(), r"neither audio nor text came; expected"),
    ("no labels", lambda: learn(input_features=torch.zeros(1, 80, 100)), r"expected labels, and"),
    ("no features", lambda: learn(labels=torch.zeros(1, 2)), r"either input_features or"),
    ("push", lambda: pair().push_to_hub("a/b"), r"whisper-80', which nobody else has"),
]
COMMANDS = [
    ("unknown model", lambda: ["transcribe", sample_clip(), "--model", "huge"], r"'huge' was not"),
    ("model folder", lambda: ["info", "--model", empty_folder()], r"empty' has no config\.json"),
    ("missing file", lambda: ["transcribe", "no.wav"], r"cannot read 'no\.wav'.*: check the path"),
    ("missing clip", lambda: ["trace", "no.wav"], r"cannot read 'no\.wav'.*: check the path"),
    ("text file", lambda: ["trace", file("t.wav", b"hello")], r"t\.wav cannot be decoded"),
    ("device", lambda: ["info", "--device", "tpu"], r"unknown device 'tpu'; expected auto, cpu"),
    ("dtype", lambda: ["trace", "--dtype", "int4"], r"unknown dtype 'int4'; expected auto"),
    ("not Whisper", lambda: ["info", "--encoder", decoder_dir()], r"expected a Whisper checkpoint"),
    ("offline", lambda: ["info", "--decoder", "no/thing"], r"'no/thing': .*local copy"),
    (
        "memory",
        lambda: [
            "transcribe",
            sample_clip(),
            "--device",
            "cpu",
            "--model",
            spoilt(checkpoint_dir(), big),
        ],
        r"not enough memory on cpu: needs about \d{5,}\.\d GB as float32, .*use --dtype bfloat16",
    ),
    (
        "memory at half the size",
        lambda: [
            "trace",
            "--dtype",
            "bfloat16",
            "--device",
            "cpu",
            "--model",
            spoilt(checkpoint_dir(), big),
        ],
        r"GB as bfloat16, .* GB free; use a smaller model",
    ),
    (
        "31 s",
        lambda: ["trace", sound("31.wav", 31), "--out", folder("out")],
        r"expected at most 30",
    ),
    (
        "out is a file",
        lambda: ["trace", "--out", file("o", b"")],
        r"/o' *: .*/o is a file; expected a folder to write: choose one",
    ),
    ("two streams", lambda: ["transcribe", "--stream", "a", "b"], r"2 files; expected one file"),
    (
        "JSON stream",
        lambda: ["transcribe", "--stream", "--json", "a"],
        r"with --json; expected one",
    ),
    ("no file", lambda: ["transcribe"], r"Missing argument 'FILE'.*see tiny-asr --help"),
    ("option", lambda: ["info", "--modle", "tiny"], r"No such option: --modle"),
    ("command", lambda: ["trasncribe"], r"No such command 'trasncribe'"),
]


def rows(table):
    return [pytest.param(*values, id=name) for name, *values in table]


@pytest.mark.parametrize(("attempt", "message"), rows(SOUND + MODELS + CALLS))
def test_python(attempt, message):
    with pytest.raises(ValueError) as raised:
        attempt()
    assert re.search(message, str(raised.value), re.DOTALL), raised.value


@pytest.mark.parametrize(("arguments", "message"), rows(COMMANDS))
def test_command_line(arguments, message, monkeypatch, capsys):
    line = [str(argument) for argument in arguments()]
    monkeypatch.setattr(sys, "argv", ["tiny-asr", *line])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # restored afterwards
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    assert re.fullmatch(rf"tiny-asr: [^\n]*{message}[^\n]*\n", err), err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_cuda_without_a_gpu():
    with pytest.raises(ValueError, match=r"'cuda' was asked for, but torch sees no CUDA GPU; use"):
        choose_device("cuda")


def test_data_folder_that_is_not_there(monkeypatch):
    monkeypatch.setenv("TINY_ASR_DATA", "nowhere")
    with pytest.raises(
        ValueError, match=r"no bundled models at nowhere; .*set TINY_ASR_DATA to it"
    ):
        ASRModel.from_pretrained("tiny")


@pytest.mark.parametrize("model_type", ["own", "smollm3"])
def test_code_in_a_checkpoint_is_not_run(model_type, monkeypatch):
    """Where transformers has a class of its own, it takes that; else nobody is asked to agree."""

    def with_code(directory: Path) -> None:
        own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
        change(directory, model_type=model_type, auto_map=own)
        (directory / "own.py").write_text("raise SystemExit('code from a checkpoint was run')")

    with_code.__name__ = f"code-of-{model_type}"
    directory = spoilt(decoder_dir(), with_code)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    if model_type == "own":
        with pytest.raises(ValueError, match=r"decoder '.*code-of-own-smollm3': .*custom code"):
            join(decoder=directory)
    else:
        assert join(decoder=directory).untrained == ("projector",)
