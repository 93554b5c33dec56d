"""What a model has on disk: only the projector, whole, findable, and damage that is noticed."""

import logging
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from fixtures_models import (
    ARCHITECTURES,
    checkpoint_dir,
    decoder_dir,
    encoder_dir,
    folder,
    noise,
    pair,
    pair_config,
    some_noises,
    talkative,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from tiny_asr import ASRConfig, ASRModel, data_dir

RATE = 16_000

both = pytest.mark.parametrize("architecture", ARCHITECTURES)


def copy_of(directory, place):
    shutil.copytree(directory, place)
    return place


@pytest.fixture
def checkpoint(tmp_path):
    """A saved model that the test may damage."""
    return copy_of(checkpoint_dir(), tmp_path / "checkpoint")


# Saving and loading ----------------------------------------------------------------------------


def test_a_checkpoint_holds_the_projector_and_nothing_frozen(checkpoint):
    state = load_file(checkpoint / "model.safetensors")
    projector = talkative().audio_projector.state_dict()
    assert set(state) == {f"audio_projector.{name}" for name in projector}
    for name, weight in projector.items():
        assert torch.equal(state[f"audio_projector.{name}"], weight)
    numbers = sum(weight.numel() for weight in projector.values())
    size = (checkpoint / "model.safetensors").stat().st_size
    assert 4 * numbers < size < 4 * numbers + 2_000
    suffixes = {".json", ".safetensors", ".jinja"}
    assert {file.suffix for file in checkpoint.iterdir()} <= suffixes


@both
def test_a_round_trip_is_bitwise(architecture):
    model, loaded = talkative(architecture), ASRModel.from_pretrained(checkpoint_dir(architecture))
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.untrained == ()
    assert torch.equal(loaded.encode(noise(1), RATE), model.encode(noise(1), RATE))
    assert loaded.transcribe(some_noises(), RATE) == model.transcribe(some_noises(), RATE)
    assert not loaded.training


def test_saving_again_gives_the_same_files(checkpoint, tmp_path):
    ASRModel.from_pretrained(checkpoint).save_pretrained(tmp_path / "again")
    for file in checkpoint.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_fresh_projector_is_announced(caplog):
    with caplog.at_level(logging.WARNING, logger="tiny_asr"):
        model = ASRModel(pair_config())
    assert model.untrained == ("projector",)
    assert "untrained: projector" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="tiny_asr"):
        model = ASRModel(ASRConfig.from_pretrained(checkpoint_dir()))
    assert model.untrained == ()
    assert caplog.text == ""


def test_a_fresh_projector_is_the_same_whatever_the_global_seed():
    theirs = pair().state_dict()
    torch.manual_seed(99)
    ours = ASRModel(pair_config()).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_making_a_model_moves_no_random_generator():
    state = torch.random.get_rng_state()
    model = ASRModel(pair_config())
    model.reset_projector(seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_argument_that_nobody_knows_is_refused():
    with pytest.raises(TypeError, match=r"devcie came; expected an argument of .*local_files_only"):
        ASRModel.from_pretrained(checkpoint_dir(), devcie="cpu")


def test_bundled_parts_without_weights_are_seeded_and_announced(monkeypatch, tmp_path, caplog):
    for part, directory in (("encoder", encoder_dir()), ("decoder", decoder_dir())):
        copy = copy_of(directory, tmp_path / "models" / f"tiny-{part}")
        (copy / "model.safetensors").unlink()
    monkeypatch.setenv("TINY_ASR_DATA", str(tmp_path))
    with caplog.at_level(logging.WARNING, logger="tiny_asr"):
        model = ASRModel(ASRConfig())
    assert model.untrained == ("encoder", "decoder", "projector")
    assert "untrained: encoder, decoder, projector" in caplog.text
    torch.manual_seed(99)
    again = ASRModel(ASRConfig()).state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("kind", [AutoModel, ASRModel])
def test_loading_by_class(kind):
    model = kind.from_pretrained(checkpoint_dir())
    assert type(model) is ASRModel
    assert model.untrained == ()
    assert torch.equal(
        model.audio_projector.linear1.weight, talkative().audio_projector.linear1.weight
    )


@pytest.mark.parametrize("kind", [AutoModel, ASRModel])
def test_a_checkpoint_from_the_hub_brings_its_projector(kind, tmp_path):
    """The hub's cache as it lies on disk after a download; no network is asked."""
    repository, commit = tmp_path / "models--somebody--asr", 40 * "a"
    copy_of(checkpoint_dir(), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    model = kind.from_pretrained("somebody/asr", cache_dir=tmp_path)
    assert model.untrained == ()
    assert torch.equal(
        model.audio_projector.linear1.weight, talkative().audio_projector.linear1.weight
    )


def test_a_config_that_is_given_does_not_lose_the_checkpoints_projector():
    config = ASRConfig(encoder=encoder_dir(), decoder=talkative().config.decoder)
    assert ASRModel.from_pretrained(checkpoint_dir(), config=config).untrained == ()


def test_what_the_auto_classes_pass_where_peft_is_installed_is_taken():
    """They name a revision of the adapter that may be there, also where there is none."""
    model = ASRModel.from_pretrained(checkpoint_dir(), adapter_kwargs={"revision": None})
    assert model.untrained == ()
    with pytest.raises(ValueError, match="finds its adapter: leave both out"):
        adapter = {"_adapter_model_path": "there"}
        ASRModel.from_pretrained(checkpoint_dir(), adapter_kwargs=adapter)


def test_auto_model_from_a_config():
    assert type(AutoModel.from_config(pair_config())) is ASRModel


def test_other_parts_of_the_same_sizes_keep_the_projector(tmp_path):
    encoder = copy_of(encoder_dir(), tmp_path / "encoder")
    model = ASRModel.from_pretrained(checkpoint_dir(), encoder=encoder)
    assert (model.config.encoder, model.untrained) == (str(encoder), ())


def test_other_parts_of_other_sizes_start_a_fresh_projector():
    model = ASRModel.from_pretrained(checkpoint_dir(), encoder=encoder_dir(128))
    assert model.untrained == ("projector",)
    assert isinstance(model.transcribe(noise(1), RATE), str)


def test_a_local_directory_is_not_pushed_to_the_hub():
    with pytest.raises(ValueError, match=r"local directory .*; expected a hub id"):
        pair().push_to_hub("somebody/asr")


def test_a_local_directory_that_is_gone_is_not_taken_for_a_hub_id(monkeypatch):
    model = pair()
    monkeypatch.setattr(model.config, "encoder", "./my-encoder")
    with pytest.raises(ValueError, match=r"local directory './my-encoder'"):
        model.push_to_hub("somebody/asr")


def test_the_checkpoints_text_names_no_folder_of_this_machine(checkpoint):
    named = re.compile(re.escape(str(folder(""))) + r"[^\"]*")
    found = {name for file in checkpoint.glob("*.json") for name in named.findall(file.read_text())}
    assert found == {str(encoder_dir()), talkative().config.decoder}


# Damage ----------------------------------------------------------------------------------------


def test_a_projector_of_another_shape_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"does not fit this model.*another encoder, decoder"):
        ASRModel(ASRConfig.from_pretrained(checkpoint, audio_downsample_rate=4))
    weights = load_file(checkpoint / "model.safetensors")
    del weights["audio_projector.output_norm.weight"]
    save_file(weights, checkpoint / "model.safetensors")
    with pytest.raises(ValueError, match="does not fit this model"):
        ASRModel.from_pretrained(checkpoint)


def cut(file) -> None:
    file.write_bytes(file.read_bytes()[:5_000])


def test_a_torn_checkpoint_is_refused(checkpoint):
    cut(checkpoint / "model.safetensors")
    with pytest.raises(ValueError, match=r"checkpoint.*model\.safetensors"):
        ASRModel.from_pretrained(checkpoint)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_torn_or_missing_weights_of_a_part_are_refused(part, tmp_path):
    sources = {"encoder": encoder_dir(), "decoder": decoder_dir()}
    sources[part] = copy_of(sources[part], tmp_path / part)
    config = ASRConfig(**sources)
    cut(sources[part] / "model.safetensors")
    with pytest.raises(ValueError, match=f"cannot load the {part}"):
        ASRModel(config)
    (sources[part] / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"the {part} directory .* holds no \*\.safetensors"):
        ASRModel(config)


def test_an_encoder_with_half_of_its_weights_is_refused(tmp_path):
    encoder = copy_of(encoder_dir(), tmp_path / "encoder")
    weights = load_file(encoder / "model.safetensors")
    half = {name: weight for name, weight in weights.items() if "layers.1." not in name}
    save_file(half, encoder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="cannot load the encoder"):
        ASRModel(ASRConfig(encoder=encoder, decoder=decoder_dir()))


def test_a_part_whose_weights_have_another_size_is_refused(tmp_path):
    encoder = copy_of(encoder_dir(), tmp_path / "encoder")
    text = (encoder / "config.json").read_text()
    (encoder / "config.json").write_text(text.replace('"d_model": 48', '"d_model": 64'))
    with pytest.raises(ValueError, match="cannot load the encoder"):
        ASRModel(ASRConfig(encoder=encoder, decoder=decoder_dir()))


def test_code_from_a_checkpoint_is_refused():
    with pytest.raises(ValueError, match="runs no code from a checkpoint"):
        ASRModel.from_pretrained(checkpoint_dir(), trust_remote_code=True)


# No network ------------------------------------------------------------------------------------

WITHOUT_NETWORK = """
import socket

def refuse(*arguments, **options):
    raise AssertionError(f"the network was asked for {arguments}")

socket.socket.connect = socket.getaddrinfo = refuse
from tiny_asr import ASRModel, sample_clip

print(type(ASRModel.from_pretrained("tiny").transcribe(sample_clip())).__name__)
"""


def test_the_default_pair_never_touches_the_network(tmp_path):
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "TINY_ASR_DATA": str(data_dir()),
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "str"
