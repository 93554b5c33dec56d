"""The config: what is read off the parts, what is stored, and what happens when a part changes."""

import json
import shutil

import pytest
from fixtures_models import (
    ENCODER_DIM,
    LLM_DIM,
    decoder_dir,
    encoder_dir,
    folder,
    pair,
    pair_config,
)
from transformers import AutoConfig, AutoTokenizer, WhisperConfig

from tiny_asr import ASRConfig, ASRModel, data_dir, sample_clip
from tiny_asr.hub import BUNDLED, PAIRS, resolve_checkpoint, resolve_source

PROMPT = "Listen: <audio>\nNow write: "


@pytest.fixture
def saved(tmp_path):
    """A checkpoint with a prompt of its own."""
    config = ASRConfig(
        encoder=encoder_dir(), decoder=decoder_dir(), prompt=PROMPT, projector_hidden_dim=64
    )
    ASRModel(config).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def copy_of(directory, place):
    shutil.copytree(directory, place)
    return place


# What it knows ---------------------------------------------------------------------------------


def test_the_default_parts_are_the_bundled_ones():
    config = ASRConfig()
    assert (config.encoder, config.decoder) == (f"{BUNDLED}tiny-encoder", f"{BUNDLED}tiny-decoder")
    assert config.audio_downsample_rate == 5
    models = data_dir() / "models"
    encoder = json.loads((models / "tiny-encoder" / "config.json").read_text())
    decoder = json.loads((models / "tiny-decoder" / "config.json").read_text())
    assert config.encoder_dim == encoder["d_model"]
    assert config.num_mel_bins == encoder["num_mel_bins"]
    assert (config.llm_dim, config.vocab_size) == (decoder["hidden_size"], decoder["vocab_size"])


@pytest.mark.parametrize("bins", [80, 128])
def test_sizes_are_read_off_the_parts(bins):
    config = ASRConfig(encoder=encoder_dir(bins), decoder=decoder_dir("llama"))
    assert config.num_mel_bins == bins
    assert config.encoder_dim == ENCODER_DIM
    assert config.llm_dim == LLM_DIM
    assert config.vocab_size == len(AutoTokenizer.from_pretrained(decoder_dir("llama")))


@pytest.mark.parametrize(
    ("rate", "samples", "seconds"), [(5, 1_600, 30.0), (1, 320, 30.0), (7, 2_240, 29.96)]
)
def test_time(rate, samples, seconds):
    config = ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(), audio_downsample_rate=rate)
    assert config.samples_per_embedding == samples
    assert config.max_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(("asked", "longest"), [(None, 30.0), (15.0, 15.0), (45.0, 30.0)])
def test_the_longest_piece(asked, longest):
    config = ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(), piece_seconds=asked)
    assert config.max_seconds == longest


def test_a_piece_of_no_length_is_refused():
    with pytest.raises(ValueError, match="piece_seconds=0 came; expected at least 1"):
        ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(), piece_seconds=0)


def test_another_decoder_takes_pieces_of_any_length():
    assert ASRConfig.from_pretrained("tiny").max_seconds == 15.0
    assert ASRConfig.from_pretrained("tiny", decoder=str(decoder_dir())).max_seconds == 30.0


@pytest.mark.parametrize("name", PAIRS)
def test_the_bundled_checkpoints(name):
    config = ASRConfig.from_pretrained(name)
    known = {"tiny": (80, 5), "small": (80, 4), "medium": (80, 4), "full": (128, 5)}
    assert (config.num_mel_bins, config.audio_downsample_rate) == known[name]
    if name == "full":
        assert (config.encoder_dim, config.llm_dim, config.vocab_size) == (1_280, 2_048, 128_256)


def test_where_bundled_things_are(monkeypatch, tmp_path):
    assert sample_clip() == data_dir() / "sample.flac"
    assert sample_clip().is_file()
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("TINY_ASR_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.setenv("TINY_ASR_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"no bundled models at .*nowhere.*set TINY_ASR_DATA"):
        data_dir()


def test_resolving_names(monkeypatch, tmp_path):
    assert resolve_source(encoder_dir()) == str(encoder_dir())
    assert resolve_source("openai/whisper-tiny.en") == "openai/whisper-tiny.en"
    bundled = str(data_dir() / "models" / "tiny-encoder")
    assert resolve_source("bundled:tiny-encoder") == bundled
    assert resolve_checkpoint("tiny") == str(data_dir() / "models" / "tiny-asr")
    monkeypatch.setenv("HOME", str(tmp_path))
    copy_of(encoder_dir(), tmp_path / "mine")
    assert resolve_source("~/mine") == str(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert resolve_source("mine") == "mine"


# Saving and reading ----------------------------------------------------------------------------


def test_a_round_trip_changes_nothing(saved):
    config = ASRConfig.from_pretrained(saved)
    assert config.to_dict() == ASRConfig.from_pretrained(saved).to_dict()
    first, again = json.loads((saved / "config.json").read_text()), saved / "again"
    config.save_pretrained(again)
    assert json.loads((again / "config.json").read_text()) == first
    assert (config.prompt, config.projector_hidden_dim) == (PROMPT, 64)
    assert (config.llm_dim, config.encoder_dim) == (LLM_DIM, ENCODER_DIM)
    assert isinstance(config.encoder_config, WhisperConfig)


def test_the_file_names_no_folder_but_the_two_that_the_user_gave(saved):
    fields = json.loads((saved / "config.json").read_text())
    assert fields.pop("encoder") == str(encoder_dir())
    assert fields.pop("decoder") == str(decoder_dir())
    rest = json.dumps(fields)
    assert str(folder("")) not in rest
    assert str(saved.parent) not in rest
    assert "name_or_path" not in rest


def test_writing_it_down_leaves_the_config_as_it_was():
    config = ASRConfig(encoder=encoder_dir(), decoder=decoder_dir())
    config.to_dict()
    assert config.encoder_config.name_or_path == str(encoder_dir())


def test_reading_needs_neither_part(saved):
    text = (saved / "config.json").read_text()
    text = text.replace(str(encoder_dir()), "gone/encoder").replace(str(decoder_dir()), "gone/lm")
    (saved / "config.json").write_text(text)
    config = ASRConfig.from_pretrained(saved)
    assert (config.encoder, config.decoder) == ("gone/encoder", "gone/lm")
    assert (config.llm_dim, config.prompt, config.end_token) == (LLM_DIM, PROMPT, "<|im_end|>")


def test_auto_config(saved):
    config = AutoConfig.from_pretrained(saved)
    assert type(config) is ASRConfig
    assert config.to_dict() == ASRConfig.from_pretrained(saved).to_dict()


def test_fields_can_be_set_while_reading(saved):
    config = ASRConfig.from_pretrained(saved, audio_downsample_rate=4)
    assert (config.audio_downsample_rate, config.samples_per_embedding) == (4, 1_280)


# Another encoder or decoder --------------------------------------------------------------------


def test_a_copy_of_a_part_counts_as_the_same(saved, tmp_path):
    encoder = copy_of(encoder_dir(), tmp_path / "encoder")
    decoder = copy_of(decoder_dir(), tmp_path / "decoder")
    config = ASRConfig.from_pretrained(saved, encoder=encoder, decoder=decoder)
    assert (config.encoder, config.decoder) == (str(encoder), str(decoder))
    assert not config.fresh_projector
    assert config.prompt == PROMPT
    assert ASRModel(config).untrained == ()


def test_another_encoder_starts_a_fresh_projector(saved):
    config = ASRConfig.from_pretrained(saved, encoder=encoder_dir(128))
    assert config.num_mel_bins == 128
    assert config.fresh_projector
    assert config.prompt == PROMPT
    assert ASRModel(config).untrained == ("projector",)


def test_another_decoder_brings_its_own_prompt(saved):
    config = ASRConfig.from_pretrained(saved, decoder=decoder_dir("llama"))
    assert config.decoder_config.model_type == "llama"
    assert config.fresh_projector
    assert (config.prompt, config.end_token) == ("<s><audio>Transcript: ", "</s>")
    assert config.projector_hidden_dim == 64
    assert ASRModel(config).untrained == ("projector",)


def test_a_prompt_that_is_given_with_another_decoder_is_kept(saved):
    given = {"prompt": "Write: <audio>!", "end_token": "<s>"}
    config = ASRConfig.from_pretrained(saved, decoder=decoder_dir("llama"), **given)
    assert {"prompt": config.prompt, "end_token": config.end_token} == given


def test_both_parts_can_be_replaced(saved):
    config = ASRConfig.from_pretrained(
        saved, encoder=encoder_dir(128), decoder=decoder_dir("llama")
    )
    assert (config.num_mel_bins, config.decoder_config.model_type) == (128, "llama")
    assert config.prompt == "<s><audio>Transcript: "


def test_with_parts_leaves_the_config_as_it_was(saved):
    config = ASRConfig.from_pretrained(saved)
    before = config.to_dict()
    other = config.with_parts(encoder_dir(128), decoder_dir("llama"), end_token="<s>")
    assert other.fresh_projector and other.name_or_path == str(saved)
    assert (other.prompt, other.end_token) == ("<s><audio>Transcript: ", "<s>")
    assert config.to_dict() == before and not config.fresh_projector
    assert not config.with_parts().fresh_projector


def test_a_checkpoint_of_a_projector_that_began_fresh_is_read_with_its_projector(saved, tmp_path):
    config = ASRConfig.from_pretrained(saved, encoder=encoder_dir(128))
    ASRModel(config).save_pretrained(tmp_path / "trained")
    assert "fresh_projector" not in (tmp_path / "trained" / "config.json").read_text()
    assert ASRModel.from_pretrained(tmp_path / "trained").untrained == ()


def test_a_fresh_projector_can_be_asked_for(saved):
    config = ASRConfig.from_pretrained(saved, fresh_projector=True)
    assert ASRModel(config).untrained == ("projector",)
    # A config that is given along with its checkpoint still says so.
    assert ASRModel.from_pretrained(saved, config=config).untrained == ("projector",)


def test_unused_arguments_come_back_as_the_auto_classes_ask(saved):
    config, unused = ASRConfig.from_pretrained(
        saved, encoder=encoder_dir(128), return_unused_kwargs=True, attn_mode=1
    )
    assert (config.encoder, unused) == (str(encoder_dir(128)), {"attn_mode": 1})


# Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"audio_downsample_rate": 0},
        {"audio_downsample_rate": -1},
        {"audio_downsample_rate": 2.5},
        {"audio_downsample_rate": "5"},
        {"projector_hidden_dim": 0},
        {"projector_hidden_dim": 64.5},
        {"audio_downsample_rate": 1_000_000},
        {"projector_hidden_dim": 10**9},
        {"projector_hidden_dim": True},
    ],
)
def test_sizes_must_be_whole_numbers_that_fit_into_memory(fields):
    with pytest.raises(ValueError, match=r"came; expected 1 to \d+, whole"):
        ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(), **fields)


WRONG = (5, "x", [], {}, True, ["<audio>"])
FIELDS = {  # and what is right among these
    "piece_seconds": (5,),
    "no_speech_threshold": (),
    "projector_output_norm": (True,),
    "projector_type": (),
    "encoder_padding": (),
    "text": (),
    "prompt": (),
    "end_token": ("x",),
    "encoder_config": (),
    "decoder_config": (),
    "audio_downsample_rate": (5,),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_a_wrong_type_is_one_error(saved, field):
    whole = json.loads((saved / "config.json").read_text())
    for value in (value for value in WRONG if value not in FIELDS[field]):
        (saved / "config.json").write_text(json.dumps(whole | {field: value}))
        with pytest.raises(ValueError, match=r"^cannot load the model .*saved'"):
            ASRConfig.from_pretrained(saved)


@pytest.mark.parametrize("content", ["null", "5", "[]", '"x"', "{}"])
def test_a_config_of_another_form_is_one_error(saved, content):
    (saved / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"saved'.*(complete and in|expected a tiny_asr)"):
        ASRConfig.from_pretrained(saved)


def test_a_wrong_size_of_a_part_is_one_error(saved):
    whole = json.loads((saved / "config.json").read_text())
    whole["encoder_config"]["d_model"] = "x"
    (saved / "config.json").write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r"cannot load the model .*'d_model'"):
        ASRConfig.from_pretrained(saved)


@pytest.mark.parametrize("prompt", ["Transcribe:", "<audio> and <audio>"])
def test_a_prompt_needs_one_marker(prompt):
    with pytest.raises(ValueError, match="exactly once"):
        ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(), prompt=prompt)


def test_the_encoder_must_be_a_whisper():
    with pytest.raises(ValueError, match="is a 'smollm3' model; expected a Whisper checkpoint"):
        ASRConfig(encoder=decoder_dir(), decoder=decoder_dir())


def test_another_encoder_must_be_a_whisper_too(saved):
    with pytest.raises(ValueError, match="expected a Whisper checkpoint"):
        ASRConfig.from_pretrained(saved, encoder=decoder_dir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "model.* ''.*; expected a "),
        ("tinny", "'tinny' was not found.*one of the pairs: tiny, small, medium, full"),
        ("bundled:tinny", "no model 'bundled:tinny' is bundled; expected one of: bundled:"),
        ("./nowhere", r"'\./nowhere' was not found"),
        ("../a/b", "was not found"),
        ("nobody/nothing", "cannot load the model 'nobody/nothing'.*without network"),
        ("runs/tiyn", "there is no folder 'runs/tiyn', and no hub model of that name could be"),
    ],
)
def test_a_model_that_is_not_there(name, message):
    with pytest.raises(ValueError, match=message):
        ASRConfig.from_pretrained(name)


def test_a_part_that_is_not_there():
    with pytest.raises(ValueError, match=r"cannot load the encoder 'nobody/nothing'.*network"):
        ASRConfig(encoder="nobody/nothing", decoder=decoder_dir())
    with pytest.raises(ValueError, match="decoder 'nowhere' was not found"):
        ASRConfig(encoder=encoder_dir(), decoder="nowhere")


def test_directories_that_are_no_checkpoints(saved, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty' has no config\.json; expected a checkpoint"):
        ASRConfig.from_pretrained(tmp_path / "empty")
    (saved / "config.json").write_text('{"model_type": "tiny_asr", ')
    with pytest.raises(ValueError, match=r"cannot load the model .*is it complete"):
        ASRConfig.from_pretrained(saved)


def test_a_part_is_no_recogniser():
    with pytest.raises(ValueError, match="a 'whisper' model"):
        ASRConfig.from_pretrained(encoder_dir())


def test_the_cached_config_is_the_models():
    assert pair().config is pair_config()
