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

from tiny_asr import ASRConfig, ASRModel, cli, load_audio, log_mel, sample_clip, trace_clip
from tiny_asr.audio import pad_batch, split_at_silences
from tiny_asr.device import choose_device
from tiny_asr.projector import stack_frames

RATE = 16_000
SECOND = np.zeros(RATE, np.float32)


# Things that are wrong -----------------------------------------------------------------------


@once
def file(name: str, content: bytes) -> Path:
    """A file that is not what it should be."""
    folder("bad").mkdir(exist_ok=True)
    (folder("bad") / name).write_bytes(content)
    return folder("bad") / name


@once
def sound(name: str, seconds: float) -> Path:
    """A WAV file of noise."""
    folder("bad").mkdir(exist_ok=True)
    samples = noise(seconds).numpy() if seconds else np.zeros(0, np.float32)
    soundfile.write(folder("bad") / name, samples, RATE)
    return folder("bad") / name


def copy_of(source: Path, name: str) -> Path:
    """A checkpoint to be spoilt."""
    shutil.copytree(source, folder(name))
    return folder(name)


@once
def empty_folder() -> Path:
    """A directory without a config.json."""
    folder("empty").mkdir()
    return folder("empty")


@once
def with_fields(source: Path, name: str, fields: str) -> Path:
    """A checkpoint with other values in its config.json; `fields` is JSON."""
    path = copy_of(source, name) / "config.json"
    config = json.loads(path.read_text())
    for key, value in json.loads(fields).items():
        config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    return path.parent


@once
def broken_config() -> Path:
    """A checkpoint whose config.json is half a file."""
    path = copy_of(checkpoint_dir(), "half") / "config.json"
    path.write_text(path.read_text()[:100])
    return path.parent


@once
def torn(source: Path, name: str) -> Path:
    """A checkpoint whose weights were not copied to the end."""
    weights = copy_of(source, name) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return weights.parent


@once
def without_layer(source: Path, name: str) -> Path:
    """A checkpoint that lacks the weights of one layer."""
    weights = copy_of(source, name) / "model.safetensors"
    state = {key: value for key, value in load_file(weights).items() if "layers.1." not in key}
    save_file(state, weights, metadata={"format": "pt"})
    return weights.parent


@once
def pickled(source: Path, name: str) -> Path:
    """A checkpoint with its weights in a format that can run code."""
    directory = copy_of(source, name)
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    return directory


@once
def too_big() -> Path:
    """A checkpoint whose decoder would need some 13 000 GB."""
    fields = {"hidden_size": 2**19, "intermediate_size": 2**19, "head_dim": 2**17}
    return with_fields(checkpoint_dir(), "big", json.dumps({"decoder_config": fields}))


def with_parts(**parts) -> ASRModel:
    """A model of the tests' parts, but for those given."""
    return ASRModel(ASRConfig(**{"encoder": encoder_dir(), "decoder": decoder_dir()} | parts))


def spoilt(value: float) -> np.ndarray:
    samples = SECOND.copy()
    samples[100] = value
    return samples


def inputs(**tensors) -> torch.Tensor:
    return pair()(**tensors)


def mel(bins: int, frames: int) -> torch.Tensor:
    return pair().encoder(torch.zeros(1, bins, frames))


# name, what is done, the message (a regular expression)
SOUND = [
    ("missing file", lambda: load_audio("no.wav"), r"'no\.wav' \(No such file.*check the path"),
    ("folder", lambda: load_audio(empty_folder()), r"empty' \(Is a directory\); expected an audio"),
    (
        "text",
        lambda: load_audio(file("text.wav", b"good morning")),
        r"text\.wav cannot be decoded .*; expected WAV, FLAC, .*: convert it to WAV",
    ),
    (
        "torn FLAC",
        lambda: load_audio(file("torn.flac", sample_clip().read_bytes()[:2000])),
        r"torn\.flac cannot be decoded .*fetch it again",
    ),
    ("empty file", lambda: load_audio(file("0.wav", b"")), r"0\.wav is empty: 0 bytes; .*copy it"),
    (
        "no samples",
        lambda: load_audio(sound("0s.wav", 0)),
        r"0s\.wav is empty: 0 samples; expected",
    ),
    ("NaN", lambda: load_audio(spoilt(np.nan), RATE), r"has 1 NaN or Inf; .*drop this clip"),
    ("Inf", lambda: load_audio(spoilt(np.inf), RATE), r"has 1 NaN or Inf; expected finite"),
    ("rank 3", lambda: load_audio(SECOND[None, None], RATE), r"shape \(1, 1, 16000\).*\(S,\) or"),
    ("upside down", lambda: load_audio(np.zeros((99, 2)), RATE), r"\(99, 2\).*: transpose it\?"),
    ("no rate", lambda: load_audio(SECOND), r"without sampling_rate; expected one: pass it, in Hz"),
    ("rate 0", lambda: load_audio(SECOND, 0), r"sampling_rate=0; expected an integer from 1000"),
    ("rate -1", lambda: load_audio(SECOND, -1), r"sampling_rate=-1; expected .*: pass the rate"),
    ("rate 0.5", lambda: load_audio(SECOND, 16e3), r"sampling_rate=16000\.0; expected an integer"),
    ("two rates", lambda: load_audio(sample_clip(), 8000), r"16000 Hz, but sampling_rate=8000"),
    ("booleans", lambda: load_audio(SECOND > 0, RATE), r"type bool is not sound; .*convert it"),
    ("list", lambda: load_audio([0.1, 0.2], RATE), r"audio from a list; expected a path, .*array"),
    ("floats", lambda: pair().transcribe([0.1, 0.2], RATE), r"audio from a float; expected a path"),
    ("nothing", lambda: load_audio(None), r"cannot load audio from a NoneType; expected a path"),
    ("empty row", lambda: load_audio({"path": None}), r"dict of \['path'\].*: fill these in"),
    ("text mode", lambda: load_audio(io.StringIO("a")), r"gave text; expected bytes: .*mode 'rb'"),
    ("no clips", lambda: pair().generate([]), r"empty list of clips; expected at least one"),
    ("31 s", lambda: pair().encode(torch.zeros(31 * RATE), RATE), r"31\.00 s; .*: use transcribe"),
    ("31 s trace", lambda: trace_clip(pair(), noise(31), RATE), r"lasts 31\.00 s; .*at most 30 s"),
    ("rank 3 batch", lambda: pair().encode(torch.zeros(1, 1, 9), RATE), r"\(1, 1, 9\) .*\(B, S\)"),
    ("split at 0 s", lambda: split_at_silences(noise(1), 0), r"max_seconds=0; expected 1 to 30"),
    (
        "rank 2 clip",
        lambda: pad_batch([torch.zeros(1, 9)], 320),
        r"clip 0 .*\(1, 9\); .*load_audio",
    ),
    ("odd length", lambda: log_mel(torch.zeros(1, 99), 80), r"\(1, 99\); .*of 160: use pad_batch"),
]
MODELS = [
    (
        "unknown pair",
        lambda: ASRModel.from_pretrained("huge"),
        r"model 'huge' was not found; expected a directory .* pairs: tiny, small, full",
    ),
    (
        "unknown bundled",
        lambda: ASRModel.from_pretrained("bundled:huge"),
        r"'bundled:huge' is bundled; expected one of: bundled:full-asr, .*, bundled:tiny-encoder",
    ),
    (
        "no config.json",
        lambda: ASRModel.from_pretrained(empty_folder()),
        r"empty' has no config\.json; expected a checkpoint in the hub's layout",
    ),
    (
        "half a config.json",
        lambda: ASRModel.from_pretrained(broken_config()),
        r"half'.* not a valid JSON file.*is it complete",
    ),
    (
        "other model type",
        lambda: ASRModel.from_pretrained(decoder_dir()),
        r"'smollm3' model; expected a tiny_asr checkpoint.*--decoder",
    ),
    (
        "projector of another shape",
        lambda: ASRModel.from_pretrained(
            with_fields(checkpoint_dir(), "narrow", '{"projector_hidden_dim": 17}')
        ),
        r"narrow.model\.safetensors does not fit .*\(17,\).*trained with another encoder",
    ),
    (
        "torn projector",
        lambda: ASRModel.from_pretrained(torn(checkpoint_dir(), "torn")),
        r"torn.model\.safetensors.*not fully covered.*again",
    ),
    (
        "torn encoder",
        lambda: with_parts(encoder=torn(encoder_dir(), "torn-encoder")),
        r"encoder '.*torn-encoder': .*not fully covered.*is it complete",
    ),
    (
        "torn decoder",
        lambda: with_parts(decoder=torn(decoder_dir(), "torn-decoder")),
        r"decoder '.*torn-decoder': .*not fully covered.*is it complete",
    ),
    (
        "encoder without a layer",
        lambda: with_parts(encoder=without_layer(encoder_dir(), "gap-encoder")),
        r"encoder '.*gap-encoder' lacks .*layers\.1\..*again",
    ),
    (
        "decoder without a layer",
        lambda: with_parts(decoder=without_layer(decoder_dir(), "gap-decoder")),
        r"decoder '.*gap-decoder' lacks .*layers\.1\..*again",
    ),
    (
        "weights of other sizes",
        lambda: with_parts(encoder=with_fields(encoder_dir(), "wide", '{"d_model": 64}')),
        r"encoder '.*wide'.*(sizes|shape).*config\.json",
    ),
    (
        "encoder is a language model",
        lambda: with_parts(encoder=decoder_dir()),
        r"encoder .*smollm3'\)? is a 'smollm3' model; expected a Whisper checkpoint",
    ),
    (
        "decoder is Whisper",
        lambda: with_parts(decoder=encoder_dir()),
        r"decoder .* is a 'whisper' model; expected a causal language model",
    ),
    (
        "pickled encoder",
        lambda: with_parts(encoder=pickled(encoder_dir(), "pickled-encoder")),
        r"pickled-encoder' holds no \*\.safetensors; .*run code .*refused",
    ),
    (
        "pickled decoder",
        lambda: with_parts(decoder=pickled(decoder_dir(), "pickled-decoder")),
        r"pickled-decoder' holds no \*\.safetensors; .*run code .*refused",
    ),
    (
        "trust_remote_code",
        lambda: ASRModel.from_pretrained("tiny", trust_remote_code=True),
        r"trust_remote_code=True.* runs no code from a checkpoint.*leave",
    ),
    (
        "hub model offline",
        lambda: ASRModel.from_pretrained("nobody/nothing"),
        r"model 'nobody/nothing': .*without network.*name a local copy or use --model tiny",
    ),
    (
        "hub encoder offline",
        lambda: ASRModel.from_pretrained("tiny", encoder="nobody/nothing"),
        r"encoder 'nobody/nothing': .*without network.*name a local copy",
    ),
    (
        "no marker",
        lambda: with_parts(prompt="hi"),
        r"prompt 'hi' .*<audio> 0 times; .*exactly once",
    ),
    ("two markers", lambda: with_parts(prompt="<audio>" * 2), r"<audio> 2 times; .*exactly once"),
    (
        "end token",
        lambda: with_parts(end_token="<stop>"),
        r"end_token '<stop>' is not a token of this decoder's tokenizer.*(expected|set)",
    ),
    (
        "rate 0",
        lambda: with_parts(audio_downsample_rate=0),
        r"audio_downsample_rate=0 .*whole numbers of at least 1",
    ),
    (
        "rate 2.5",
        lambda: with_parts(audio_downsample_rate=2.5),
        r"audio_downsample_rate=2\.5 .*whole numbers of at least 1",
    ),
]
CALLS = [
    (
        "7 frames",
        lambda: stack_frames(torch.zeros(1, 7, 4), 5),
        r"7 encoder .*= 5: pad .* 1600 sam",
    ),
    (
        "encoder output of another width",
        lambda: pair().audio_projector(torch.zeros(1, 5, 47)),
        r"\(1, 5, 47\) came; expected \(B, T, 48\)",
    ),
    (
        "encoder output of rank 2",
        lambda: pair().audio_projector(torch.zeros(5, 48)),
        r"\(5, 48\) came; expected \(B, T, 48\)",
    ),
    ("mel bins", lambda: mel(128, 100), r"\(1, 128, 100\) came; expected \(B, 80, F\)"),
    ("odd mel frames", lambda: mel(80, 101), r"101 mel frames .*even number up to 3000.*: pad"),
    ("too many mel frames", lambda: mel(80, 3002), r"3002 mel frames .*split longer audio"),
    ("unknown device", lambda: choose_device("tpu"), r"device 'tpu'; expected auto, cpu, cuda"),
    (
        "cpu:x",
        lambda: choose_device("cpu:x"),
        r"device 'cpu:x'; expected auto, cpu, cuda or cuda:N",
    ),
    ("cuda:99", lambda: choose_device("cuda:99"), r"'cuda:99' .*(use cpu|numbered from cuda:0)"),
    (
        "unknown dtype",
        lambda: choose_device("cpu", "int8"),
        r"dtype 'int8'; expected auto, float32",
    ),
    (
        "unknown dtype of a model",
        lambda: ASRModel.from_pretrained(checkpoint_dir(), dtype="int8"),
        r"dtype 'int8'; expected auto, float32",
    ),
    (
        "unknown device of a model",
        lambda: ASRModel.from_pretrained(checkpoint_dir(), device="tpu"),
        r"device 'tpu'; expected auto, cpu, cuda",
    ),
    (
        "cold",
        lambda: pair().generate([noise(1)], temperature=-1),
        r"temperature -1 came; expected 0",
    ),
    (
        "batch of 0",
        lambda: pair().transcribe([noise(1)], RATE, batch_size=0),
        r"batch_size ?=? ?0 came; expected (at least )?1",
    ),
    (
        "more texts than clips",
        lambda: pair().processor([noise(1)], ["a", "b"], RATE),
        r"1 clips.* 2 texts came; expected as many",
    ),
    ("no clip, no text", lambda: pair().processor(), r"neither audio nor text came; expected"),
    ("no labels", lambda: inputs(input_features=torch.zeros(1, 80, 100)), r"expected labels, and"),
    (
        "features twice",
        lambda: inputs(
            input_features=torch.zeros(1, 80, 100),
            encoder_output=torch.zeros(1, 50, 48),
            labels=torch.zeros(1, 2).long(),
        ),
        r"either input_features or encoder_output",
    ),
    (
        "push of local parts",
        lambda: pair().push_to_hub("somebody/something"),
        r"local directory '.*whisper-80', which nobody else has; expected a hub id: reload it",
    ),
]
COMMANDS = [
    ("unknown model", lambda: ["transcribe", sample_clip(), "--model", "huge"], r"'huge' was not"),
    ("model folder", lambda: ["info", "--model", empty_folder()], r"empty' has no config\.json"),
    ("missing file", lambda: ["transcribe", "no.wav"], r"cannot read 'no\.wav'.*: check the path"),
    ("missing file", lambda: ["trace", "no.wav"], r"cannot read 'no\.wav'.*: check the path"),
    ("text file", lambda: ["trace", file("t.wav", b"hello")], r"t\.wav cannot be decoded"),
    ("device", lambda: ["info", "--device", "tpu"], r"unknown device 'tpu'; expected auto, cpu"),
    (
        "dtype",
        lambda: ["trace", "--dtype", "int8"],
        r"unknown dtype 'int8'; expected auto, float32",
    ),
    ("not Whisper", lambda: ["info", "--encoder", decoder_dir()], r"expected a Whisper checkpoint"),
    ("offline", lambda: ["info", "--decoder", "nobody/nothing"], r"'nobody/nothing': .*local copy"),
    (
        "memory",
        lambda: ["transcribe", sample_clip(), "--model", too_big(), "--device", "cpu"],
        r"not enough memory on cpu: needs about \d{5,}\.\d GB as float32, .*use --dtype bfloat16",
    ),
    (
        "memory at half the size",
        lambda: ["trace", "--model", too_big(), "--device", "cpu", "--dtype", "bfloat16"],
        r"GB as bfloat16, .* GB free; use a smaller model",
    ),
    (
        "31 s trace",
        lambda: ["trace", sound("31.wav", 31), "--model", checkpoint_dir(), "--out", folder("out")],
        r"lasts 31\.00 s; expected at most 30 s",
    ),
    ("out is a file", lambda: ["trace", "--out", file("out", b"")], r"out' .*choose another --out"),
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
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    fields = json.dumps({"model_type": model_type, "auto_map": own})
    directory = with_fields(decoder_dir(), f"code-{model_type}", fields)
    (directory / "own.py").write_text("raise SystemExit('code from a checkpoint was run')")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    if model_type == "own":
        with pytest.raises(ValueError, match=r"decoder '.*code-own': .*custom code"):
            with_parts(decoder=directory)
    else:
        assert with_parts(decoder=directory).untrained == ("projector",)
