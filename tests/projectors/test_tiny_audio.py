"""Checkpoints of another project: written here in each of its layouts, imported, and compared with
a direct computation of what its projectors and its prompt are."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import write_whisper
from fixtures_models import (
    ENCODER_DIM,
    LLM_DIM,
    decoder_dir,
    folder,
    noise,
    once,
    some_noises,
    talkative_decoder_dir,
)
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    HubertConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from tiny_asr import ASRConfig, ASRModel, ASRProcessor
from tiny_asr.audio import pad_batch
from tiny_asr.projectors.tiny_audio import import_checkpoint
from tiny_asr.shapes import record

HIDDEN = 40
SYSTEM = "/no_think /system_override"
LATER = "<audio> Transcribe the speech to text"


@once
def encoder_dir(num_mel_bins: int = 128) -> Path:
    """A random Whisper whose output depends on the sound more than the usual random one's does."""
    return write_whisper(folder(f"whisper-of-tiny-audio-{num_mel_bins}"), num_mel_bins)


def weights_of(layout: str, rate: int, dim: int = ENCODER_DIM, llm_dim: int = LLM_DIM) -> dict:
    """Random weights by the names of a layout."""
    generator = torch.Generator().manual_seed(rate)
    wide = rate * dim
    shapes = {
        "november": {
            "projector.ln_pre": (wide,),
            "projector.proj.w1": (HIDDEN, wide),
            "projector.proj.w2": (HIDDEN, wide),
            "projector.proj.w3": (llm_dim, HIDDEN),
            "projector.ln_post": (llm_dim,),
        },
        "early": {
            "ln_pre": (wide,),
            "gate_proj": (HIDDEN, wide),
            "up_proj": (HIDDEN, wide),
            "down_proj": (llm_dim, HIDDEN),
            "ln_post": (llm_dim,),
        },
        "early linear": {"ln_pre": (wide,), "proj": (llm_dim, wide), "ln_post": (llm_dim,)},
        "later": {
            "projector.linear_1": (HIDDEN, wide),
            "projector.norm": (HIDDEN,),
            "projector.linear_2": (llm_dim, HIDDEN),
            "projector.norm_2": (llm_dim,),
        },
    }
    shapes["later without norm_2"] = {
        name: shape for name, shape in shapes["later"].items() if name != "projector.norm_2"
    }
    return {
        f"{name}.weight": torch.randn(shape, generator=generator) * (0.3 if len(shape) > 1 else 1)
        for name, shape in shapes[layout].items()
    }


LAYOUTS = ("november", "early", "early linear", "later", "later without norm_2")


def write_theirs(
    place: Path, layout: str, rate: int, weights: dict | None = None, **fields
) -> Path:
    """A checkpoint as that project writes it, its Python files, which nobody may run, included."""
    place.mkdir(parents=True)
    early, later = layout.startswith("early"), layout.startswith("later")
    config = {
        "model_type": "asr_model",
        "audio_model_id": str(encoder_dir()),
        "text_model_id": str(talkative_decoder_dir()),
        "audio_config": {"model_type": "whisper"},
        "audio_downsample_rate" if early else "projector_pool_stride": rate,
        "projector_hidden_dim": None,
        "system_prompt": SYSTEM,
        "auto_map": {"AutoConfig": "asr_config.ASRConfig"},
    }
    if not later:
        config["user_prompt"] = "Transcribe: <audio>"
    config |= fields
    (place / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v != ""}))
    file = "projector.safetensors" if early else "model.safetensors"
    stored = weights_of(layout, rate) if weights is None else weights
    save_file({name: tensor.bfloat16() for name, tensor in stored.items()}, place / file)
    (place / "asr_config.py").write_text("raise SystemExit('the code of a checkpoint was run')\n")
    return place


# What that project computes, written out --------------------------------------------------------


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def their_projector(layout: str, weights: dict, x: Tensor, rate: int) -> Tensor:
    """Encoder frames (1, T, dim) -> (A, llm_dim)."""
    w = {name.removeprefix("projector."): t.bfloat16().float() for name, t in weights.items()}
    x = x[0]
    if len(x) % rate:
        x = torch.cat([x, torch.zeros(rate - len(x) % rate, x.shape[1])])
    x = x.reshape(-1, rate * x.shape[1])
    if layout.startswith("later"):
        hidden = rms_norm(x @ w["linear_1.weight"].T, w["norm.weight"])
        x = F.gelu(hidden) @ w["linear_2.weight"].T
        return rms_norm(x, w["norm_2.weight"]) if "norm_2.weight" in w else x
    x = rms_norm(x, w["ln_pre.weight"])
    if layout == "early linear":
        x = x @ w["proj.weight"].T
    else:
        names = ("proj.w1", "proj.w2", "proj.w3")
        if layout == "early":
            names = ("gate_proj", "up_proj", "down_proj")
        gate, up, down = (w[f"{name}.weight"] for name in names)
        x = (F.silu(x @ gate.T) * (x @ up.T)) @ down.T
    return rms_norm(x, w["ln_post.weight"])


@torch.no_grad()
def their_logits(
    place: Path, layout: str, weights: dict, clip: Tensor, text: str, user: str
) -> Tensor:
    """The scores (L, V) of a text's tokens and the end, by transformers' own models."""
    fields = json.loads((place / "config.json").read_text())
    exact = {"dtype": torch.float32}
    whisper = WhisperModel.from_pretrained(fields["audio_model_id"], **exact).eval()
    language_model = AutoModelForCausalLM.from_pretrained(fields["text_model_id"], **exact).eval()
    tokenizer = AutoTokenizer.from_pretrained(fields["text_model_id"])
    bins = whisper.config.num_mel_bins
    mel = WhisperFeatureExtractor(bins)(clip.numpy(), sampling_rate=16_000, return_tensors="pt")
    heard = whisper.encoder(mel.input_features).last_hidden_state
    rate = fields.get("projector_pool_stride") or fields["audio_downsample_rate"]
    audio = their_projector(layout, weights, heard, rate)
    if layout.startswith("later"):  # the clip's own, and what of a stack its end touches
        audio = audio[: -(-len(clip) // (320 * rate))]
    chat = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    before, after = prompt.split("<audio>")
    table = language_model.get_input_embeddings()
    ids = [tokenizer(part, add_special_tokens=False).input_ids for part in (before, after, text)]
    parts = [table(torch.tensor(part)) for part in ids]
    spliced = torch.cat([parts[0], audio, parts[1], parts[2]])
    return language_model(inputs_embeds=spliced[None]).logits[0, -len(ids[2]) - 1 :]


def our_logits(model: ASRModel, clip: Tensor, text: str) -> Tensor:
    batch = model.processor(clip, text, 16_000)
    with torch.no_grad():
        return model(**batch).logits[0]


@pytest.mark.parametrize(
    ("layout", "rate", "kind"),
    [
        ("november", 2, "swiglu"),
        ("november", 4, "swiglu"),
        ("november", 8, "swiglu"),  # 1500 frames are 187 stacks and a half
        ("early", 5, "swiglu"),
        ("early linear", 5, "linear"),
        ("later", 4, "normed_mlp"),
        ("later without norm_2", 4, "normed_mlp"),
    ],
)
def test_logits_are_those_of_the_formulas(layout, rate, kind, tmp_path):
    weights = weights_of(layout, rate)
    theirs = write_theirs(tmp_path / "theirs", layout, rate, weights)
    config = import_checkpoint(theirs, tmp_path / "ours")
    assert config.projector_type == kind and config.audio_downsample_rate == rate
    model = ASRModel.from_pretrained(tmp_path / "ours")
    assert model.untrained == ()
    user = LATER if layout.startswith("later") else "Transcribe: <audio>"
    clip, text = noise(2.38, 3), "the cat sat"
    expected = their_logits(theirs, layout, weights, clip, text, user)
    came = our_logits(model, clip, text)
    assert came.shape == expected.shape
    torch.testing.assert_close(came, expected, atol=1e-3, rtol=1e-3)
    deaf = our_logits(model, noise(2.38, 4), text)
    assert (deaf - came).abs().max() > 0.02  # so they depend on the sound


@pytest.mark.parametrize(("layout", "rate"), [("november", 2), ("later", 4)])
def test_a_batch_writes_what_its_clips_do_alone(layout, rate, tmp_path):
    import_checkpoint(write_theirs(tmp_path / "theirs", layout, rate), tmp_path / "ours")
    model = ASRModel.from_pretrained(tmp_path / "ours")
    clips = some_noises()
    together = [row.tolist() for row in model.generate(clips, 6)]
    assert together == [model.generate([clip], 6)[0].tolist() for clip in clips]


@pytest.mark.parametrize(("padding", "own"), [("window", 1500), ("window_cut", 30)])
def test_the_window_is_a_property_of_the_config(padding, own, tmp_path):
    """Of any checkpoint, imported or not; the encoder then hears what the stock one does."""
    config = ASRConfig(
        encoder_dir(), decoder_dir(), projector_type="swiglu", encoder_padding=padding
    )
    model = ASRModel(config)
    clip = noise(0.53)
    stock = WhisperModel.from_pretrained(encoder_dir()).encoder.eval()
    extract = WhisperFeatureExtractor(128)
    mel = extract(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = stock(mel).last_hidden_state
    torch.testing.assert_close(model.encode(clip, 16_000), expected, atol=1e-4, rtol=1e-4)
    _, lengths = model.encode_batch(*pad_batch([clip, noise(2.38)], 1_600))
    assert lengths[0] == own
    batch = model.processor(clip, "the cat", 16_000)
    torch.testing.assert_close(batch["input_features"], mel, atol=1e-4, rtol=1e-4)
    with record(model) as recorder:  # the shape contract holds
        model.generate([clip], 3)
    assert recorder.sizes["T"] == 1500
    model.save_pretrained(tmp_path)
    assert ASRModel.from_pretrained(tmp_path).config.encoder_padding == padding
    assert ASRProcessor.from_pretrained(tmp_path).encoder_padding == padding


def test_the_command_and_what_it_leaves(tmp_path, capsys, monkeypatch):
    from tiny_asr.cli import main as cli

    theirs, ours = write_theirs(tmp_path / "theirs", "november", 2), tmp_path / "new" / "ours"

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["tiny-asr", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, *capsys.readouterr()

    code, out, _ = run("import", theirs, "--out", ours)
    assert code == 0
    assert "swiglu" in out and "padding window" in out and f"--model {ours}" in out
    fields = json.loads((ours / "config.json").read_text())
    assert fields["imported_from"] == str(theirs) and fields["model_type"] == "tiny_asr"
    assert sorted(p.suffix for p in ours.iterdir() if p.suffix not in (".json", ".jinja")) == [
        ".safetensors"
    ]
    code, out, _ = run("info", "--model", ours)
    assert code == 0 and "swiglu" in out and "window" in out
    code, _, err = run("import", theirs, "--out", ours)
    assert code == 2 and "is there already; expected a new or empty folder" in err
    prompt = "<audio>Write it down."
    code, out, _ = run("import", theirs, "--out", tmp_path / "b", "--user-prompt", prompt, "--json")
    assert code == 0 and "<audio>Write it down.<|im_end|>" in json.loads(out)["prompt"]
    code, _, err = run("import", theirs, "--out", tmp_path / "c", "--revision", "main")
    assert code == 2 and "--revision main came with the folder" in err
    code, _, err = run("import", "someone/tiny-audio", "--out", tmp_path / "c")  # no network here
    assert code == 2 and "no hub model of that name could be reached" in err
    code, out, _ = run("import", "--help")
    assert code == 0 and "mazesmazes/tiny-audio" in out
    assert not (tmp_path / "c").exists()


def test_a_model_of_ones_own_goes_on_from_there(tmp_path):
    """An imported checkpoint is trained like any other, from a cache of its windows too."""
    from small_runs import small_run

    from tiny_asr.training.trainer import Trainer

    for layout, rate, frames in (("november", 2, 1500), ("later", 4, None)):
        place = tmp_path / layout
        import_checkpoint(write_theirs(place / "theirs", layout, rate), place / "ours")
        changes = {"encoder": None, "decoder": None, "max_utterances": 12, "batch_seconds": 60.0}
        changes |= {"model": str(place / "ours"), "cache": str(place / "c"), "eval_data": None}
        settings = small_run(place / "run", **changes)
        trainer = Trainer(settings, say=lambda line: None)
        before = [weight.clone() for weight in trainer.model.audio_projector.parameters()]
        trainer.train()
        for old, new in zip(before, trainer.model.audio_projector.parameters(), strict=True):
            assert not torch.equal(old, new)
        clip = trainer.caches[0][next(iter(trainer.caches[0].clips))]
        assert len(clip) == frames if frames else len(clip) < 300


# What is refused ----------------------------------------------------------------------------------


def no_whisper(place: Path) -> Path:
    HubertConfig(hidden_size=ENCODER_DIM).save_pretrained(place)
    return place


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"audio_model_id": "facebook/hubert-large-ls960-ft", "audio_config": None},
            "encoder 'facebook/hubert-large-ls960-ft' is no Whisper",
        ),
        (
            {"audio_model_id": "zai-org/GLM-ASR-Nano-2512", "audio_config": None},
            "encoder 'zai-org/GLM-ASR-Nano-2512' is no Whisper",
        ),
        (
            {
                "audio_model_id": "Qwen/Qwen3-ASR-0.6B",
                "audio_config": {"model_type": "qwen3_asr_audio_encoder"},
            },
            r"'Qwen/Qwen3-ASR-0.6B' is no Whisper \(qwen3_asr_audio_encoder model\)",
        ),
        ({"model_type": "whisper"}, "it is a 'whisper' model; expected 'asr_model'"),
        ({"text_model_id": ""}, "does not say text_model_id"),
        ({"use_lora": True}, r"adapters \(LoRA\)"),
        ({"projector_pool_stride": 4}, "reads 96 numbers at a time and its config.json says"),
        ({"user_prompt": "Transcribe it."}, "0 times; it must hold it exactly once"),
        ({"text_model_id": "no-such-owner/no-such-model"}, "no hub model of that name"),
    ],
)
def test_what_cannot_be_imported_is_refused_by_name(fields, message, tmp_path):
    theirs = write_theirs(tmp_path / "theirs", "november", 2, **fields)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(theirs, tmp_path / "ours")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["theirs"]


def test_a_local_encoder_that_is_no_whisper_is_refused(tmp_path):
    hubert = str(no_whisper(tmp_path / "hubert"))
    fields = {"audio_model_id": hubert, "audio_config": None}
    theirs = write_theirs(tmp_path / "theirs", "november", 2, **fields)
    with pytest.raises(ValueError, match="is a 'hubert' model; expected a Whisper"):
        import_checkpoint(theirs, tmp_path / "ours")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w | {"projector.router.weight": torch.ones(2, 2)},
            "unknown layout, with the weights ln_post.weight, ln_pre.weight, .*router.weight; "
            "expected one of: ln_pre",
        ),
        (
            lambda w: w | {f"language_model.layers.{i}": torch.ones(2) for i in range(20)},
            "and 13 more",
        ),
        (lambda w: {k: t for k, t in w.items() if "ln_post" not in k}, "unknown layout"),
        (
            lambda w: w | {"projector.proj.w3.weight": torch.ones(LLM_DIM + 1, HIDDEN)},
            "does not fit .*size mismatch for down.weight",
        ),
        (
            lambda w: w | {"projector.ln_pre.weight": torch.ones(2 * ENCODER_DIM + 1)},
            "reads 97 numbers at a time",
        ),
        (
            lambda w: w | {"projector.ln_pre.weight": torch.ones(())},
            "neither a vector nor a matrix",
        ),
    ],
)
def test_unknown_layouts_are_refused_with_the_names_found(change, message, tmp_path):
    weights = change(weights_of("november", 2))
    theirs = write_theirs(tmp_path / "theirs", "november", 2, weights)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(theirs, tmp_path / "ours")


def test_files_that_are_missing_or_damaged(tmp_path):
    theirs = write_theirs(tmp_path / "theirs", "november", 2)
    weights = theirs / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        import_checkpoint(theirs, tmp_path / "ours")
    weights.rename(theirs / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"none of model.safetensors, .*pytorch_model.bin.*run"):
        import_checkpoint(theirs, tmp_path / "ours")
    (theirs / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="adapters"):
        import_checkpoint(theirs, tmp_path / "ours")
    (theirs / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json cannot be read"):
        import_checkpoint(theirs, tmp_path / "ours")
    shutil.rmtree(theirs)
    with pytest.raises(ValueError, match="was not found"):
        import_checkpoint(theirs, tmp_path / "ours")


# Real models --------------------------------------------------------------------------------------


@pytest.fixture
def real() -> Path:
    """The folder with whisper-base/ and smollm2-135m-instruct/ that TINY_ASR_REAL names."""
    place = Path(os.environ.get("TINY_ASR_REAL", "/nonexistent"))
    for name in ("whisper-base", "smollm2-135m-instruct"):
        if not (place / name / "config.json").is_file():
            pytest.skip(f"no {name} at {place}: set TINY_ASR_REAL to the folder with real models")
    return place


def test_real_models(real, tmp_path):
    """Whisper-base and SmolLM2: the logits again, with a random projector of their widths."""
    encoder, decoder = real / "whisper-base", real / "smollm2-135m-instruct"
    whisper, text = AutoConfig.from_pretrained(encoder), AutoConfig.from_pretrained(decoder)
    weights = weights_of("november", 2, whisper.d_model, text.hidden_size)
    theirs = write_theirs(
        tmp_path / "theirs", "november", 2, weights,
        audio_model_id=str(encoder), text_model_id=str(decoder),
    )  # fmt: skip
    config = import_checkpoint(theirs, tmp_path / "ours")
    assert config.max_seconds == 30
    model = ASRModel.from_pretrained(tmp_path / "ours")
    clip, words = noise(2.0), "she listens to the sea"
    expected = their_logits(theirs, "november", weights, clip, words, "Transcribe: <audio>")
    torch.testing.assert_close(our_logits(model, clip, words), expected, atol=5e-3, rtol=1e-3)
