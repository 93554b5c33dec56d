"""A second stage: adapters on the frozen decoder, trained, kept, loaded, merged; and its faults."""

import json
import sys
from copy import deepcopy
from pathlib import Path
from shutil import copytree

import pytest
import torch
from fixtures_models import checkpoint_dir, decoder_dir, encoder_dir, noise, some_noises
from safetensors.torch import load_file
from small_runs import Stop, assert_same, clips, crash_at, end, small_run, start, train

from tiny_asr import ASRModel
from tiny_asr.adapters.lora import (
    FOLDER,
    adapter_parameters,
    add_adapter,
    has_adapter,
    load_adapter,
    merge_adapter,
)
from tiny_asr.cli.main import info
from tiny_asr.training.log import read_log

RANK = 4


def second_stage(out: Path, **changes):
    """The settings of a run that goes on from a trained projector."""
    settings = {"model": checkpoint_dir(), "encoder": None, "decoder": None, "adapter_rank": RANK}
    return small_run(out, **settings | {"adapter_learning_rate": 1e-2} | changes)


def loaded(folder: Path) -> ASRModel:
    return ASRModel.from_pretrained(folder)


def language_model(model: ASRModel):
    return model.decoder.language_model


def shaken(model: ASRModel) -> ASRModel:
    """The model with an adapter that changes what it writes."""
    add_adapter(language_model(model), RANK)
    torch.manual_seed(1)
    for matrix in adapter_parameters(language_model(model)):
        torch.nn.init.normal_(matrix, std=0.3)
    return model


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a second stage that is over."""
    out = tmp_path_factory.mktemp("adapters") / "run"
    train(second_stage(out))
    return out


def texts(model: ASRModel) -> list[str]:
    return model.transcribe(some_noises(), 16_000)


# What it is -------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["smollm3", "llama"])
def test_a_fresh_adapter_changes_nothing_and_its_weights_are_the_papers(architecture):
    model, plain = loaded(checkpoint_dir(architecture)), loaded(checkpoint_dir(architecture))
    add_adapter(language_model(model), RANK)
    assert texts(model) == texts(plain)
    config = model.config.decoder_config
    shapes = {
        name.split(".")[-4]: tuple(weight.shape)
        for name, weight in language_model(model).named_parameters()
        if "layers.0" in name and "lora_A" in name
    }
    names = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert shapes.keys() == names
    assert shapes["down_proj"] == (RANK, config.intermediate_size)
    assert {p.requires_grad for p in adapter_parameters(language_model(model))} == {True}
    others = [p for name, p in language_model(model).named_parameters() if "lora_" not in name]
    assert not any(p.requires_grad for p in others) and not language_model(model).training


def test_the_same_seed_gives_the_same_adapter_whatever_came_before():
    models = [loaded(checkpoint_dir()) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        torch.rand(seed + 3)
        add_adapter(language_model(model), RANK, seed)
    first, again, other = (
        torch.cat([p.flatten() for p in adapter_parameters(language_model(m))]) for m in models
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_merged_it_writes_the_same_with_the_matrices_of_the_formula():
    model, plain = shaken(loaded(checkpoint_dir())), loaded(checkpoint_dir())
    before = texts(model)
    assert before != texts(plain)
    merge_adapter(language_model(model))
    assert texts(model) == before
    merged = model.decoder.layers[0].self_attn.q_proj
    frozen = plain.decoder.layers[0].self_attn.q_proj.weight
    product = merged.lora_B.default.weight @ merged.lora_A.default.weight
    torch.testing.assert_close(merged.base_layer.weight, frozen + 2 * product)


# Kept and loaded --------------------------------------------------------------------------------


def test_it_lies_beside_the_projector_in_pefts_own_format(tmp_path):
    model = shaken(loaded(checkpoint_dir()))
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / FOLDER / "adapter_model.safetensors")
    assert sum(w.numel() for w in weights.values()) == sum(
        p.numel() for p in adapter_parameters(language_model(model))
    )
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    assert model.config.decoder in (tmp_path / FOLDER / "adapter_config.json").read_text()
    again = loaded(tmp_path)
    assert texts(again) == texts(model) and again.untrained == ()
    merge_adapter(language_model(model))
    model.save_pretrained(tmp_path / "merged")
    kept = load_file(tmp_path / "merged" / FOLDER / "adapter_model.safetensors")
    assert all(torch.equal(kept[name], weights[name]) for name in weights)


def test_peft_alone_reads_it(tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = shaken(loaded(checkpoint_dir()))
    model.save_pretrained(tmp_path)
    bare = AutoModelForCausalLM.from_pretrained(model.config.decoder)
    theirs = PeftModel.from_pretrained(bare, tmp_path / FOLDER)
    ids = torch.arange(5)[None]
    ours = language_model(model)(ids).logits
    torch.testing.assert_close(theirs(ids).logits, ours)


def test_another_decoder_does_not_get_it(tmp_path):
    shaken(loaded(checkpoint_dir())).save_pretrained(tmp_path)
    other = ASRModel.from_pretrained(tmp_path, decoder=str(decoder_dir("llama")))
    assert not has_adapter(language_model(other)) and "projector" in other.untrained


# Trained ----------------------------------------------------------------------------------------


def test_a_run_trains_projector_and_adapter_and_nothing_else(tmp_path, finished):
    before = loaded(checkpoint_dir())
    after = loaded(finished)
    frozen = dict(language_model(before).named_parameters())
    for name, weight in language_model(after).named_parameters():
        if "lora_" not in name:
            assert torch.equal(weight, frozen[name.replace(".base_layer", "")])
    moved = [p for n, p in language_model(after).named_parameters() if "lora_B" in n]
    assert moved and all(p.abs().max() > 0 for p in moved)
    ours, theirs = after.audio_projector.state_dict(), before.audio_projector.state_dict()
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)
    train(small_run(tmp_path / "plain", model=checkpoint_dir(), encoder=None, decoder=None))
    with_adapter, plain = (
        read_log(run / "log.csv")[-1]["loss"] for run in (finished, tmp_path / "plain")
    )
    assert with_adapter < plain - 0.1


def test_the_projector_may_stay_as_it_is(tmp_path):
    train(second_stage(tmp_path / "run", freeze_projector=True, max_utterances=12))
    ours = loaded(tmp_path / "run").audio_projector.state_dict()
    theirs = loaded(checkpoint_dir()).audio_projector.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert has_adapter(language_model(loaded(tmp_path / "run")))


def test_an_interrupted_second_stage_ends_with_the_same_weights(tmp_path, finished):
    broken = second_stage(tmp_path / "broken")
    with pytest.raises(Stop):
        train(broken, on_log=crash_at(9))
    train(broken, resume=True)
    assert_same(tmp_path / "broken", finished)


def test_two_processes_train_it_as_one_does(tmp_path):
    changes = {"encoder": encoder_dir(), "decoder": decoder_dir(), "model": "tiny"}
    changes |= {"batch_seconds": 2.5, "adapter_learning_rate": 1e-3}
    one, two = (second_stage(tmp_path / name, **changes) for name in ("one", "two"))
    train(one)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    status, said = end(start(two, launcher=launcher))
    assert status == 0, said
    ours, theirs = (
        load_file(tmp_path / name / FOLDER / "adapter_model.safetensors") for name in ("one", "two")
    )
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)


def test_a_third_stage_goes_on_with_the_adapter_that_there_is(tmp_path, finished):
    train(second_stage(tmp_path / "run", model=finished, adapter_rank=None, max_utterances=12))
    ours, theirs = (
        load_file(out / FOLDER / "adapter_model.safetensors")
        for out in (tmp_path / "run", finished)
    )
    assert ours.keys() == theirs.keys()
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_that_gets_no_better_stops_early(tmp_path):
    run = second_stage(tmp_path / "run", eval_data=clips(3, 1), eval_every=6, patience=2)
    run.learning_rate = run.adapter_learning_rate = 0.0  # it stays as good as it is
    trainer, said = train(run)
    assert "stopped early: no better in 2 evaluations" in said
    assert trainer.state.utterances < run.max_utterances
    evaluated = [row for row in read_log(tmp_path / "run" / "log.csv") if row["wer"] is not None]
    assert len(evaluated) == 2
    assert "before training: WER" in said and "nothing was better than at the beginning" in said
    assert texts(loaded(tmp_path / "run")) == texts(loaded(checkpoint_dir()))
    before = deepcopy(trainer.state)
    trainer, said = train(run, resume=True)
    assert "stopped early" in said and trainer.state.step == before.step


# What may be wrong ------------------------------------------------------------------------------


def test_no_adapter_is_loaded_from_a_pickle(tmp_path):
    shaken(loaded(checkpoint_dir())).save_pretrained(tmp_path)
    weights = tmp_path / FOLDER / "adapter_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ValueError, match=r"holds no adapter_model\.safetensors"):
        loaded(tmp_path)


@pytest.mark.parametrize("damage", ["torn", "other sizes", "no config"])
def test_a_damaged_adapter_is_an_error(tmp_path, damage):
    shaken(loaded(checkpoint_dir())).save_pretrained(tmp_path)
    weights = tmp_path / FOLDER / "adapter_model.safetensors"
    if damage == "torn":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "no config":
        (tmp_path / FOLDER / "adapter_config.json").unlink()
    else:
        config = tmp_path / FOLDER / "adapter_config.json"
        config.write_text(config.read_text().replace('"r": 4', '"r": 8'))
    with pytest.raises(ValueError, match=r"cannot load the adapter .*; expected one that was"):
        loaded(tmp_path)


def test_weights_that_an_adapter_lacks_are_noticed(tmp_path):
    from safetensors.torch import save_file

    shaken(loaded(checkpoint_dir())).save_pretrained(tmp_path)
    weights = tmp_path / FOLDER / "adapter_model.safetensors"
    some = dict(list(load_file(weights).items())[:-2])
    save_file(some, weights)
    with pytest.raises(ValueError, match="cannot load the adapter"):
        loaded(tmp_path)


def test_what_does_not_go_together(tmp_path, finished):
    with pytest.raises(ValueError, match="adapter_rank=4 came for a decoder that has an adapter"):
        train(second_stage(tmp_path / "a", model=finished))
    with pytest.raises(ValueError, match="freeze_projector came without an adapter"):
        train(second_stage(tmp_path / "b", adapter_rank=None, freeze_projector=True))
    with pytest.raises(ValueError, match="patience=2 came without eval_data"):
        second_stage(tmp_path / "c", patience=2)
    with pytest.raises(ValueError, match=r"adapter_rank=100000 came .* that is \d+ wide"):
        train(second_stage(tmp_path / "d", adapter_rank=100_000))


def test_without_peft_it_says_what_to_install(monkeypatch, tmp_path, finished):
    monkeypatch.setitem(sys.modules, "peft", None)
    for raises in (lambda: loaded(finished), lambda: train(second_stage(tmp_path / "run"))):
        with pytest.raises(ValueError, match=r"no peft here.*'\.\[adapters\]\'"):
            raises()


def test_info_shows_it(finished, capsys):
    how = {"model": str(finished), "device": "cpu"}
    about = {}
    for dtype in ("float32", "bfloat16"):
        info(**how, dtype=dtype, as_json=True)
        about[dtype] = json.loads(capsys.readouterr().out)["models"][str(finished)]["adapter"]
    matrices = len(adapter_parameters(language_model(loaded(finished)))) // 2
    size = (finished / FOLDER / "adapter_model.safetensors").stat().st_size
    known = {"rank": RANK, "alpha": 2 * RANK, "matrices": matrices, "bytes": size}
    assert about == {"float32": known | {"merged": True}, "bfloat16": known | {"merged": False}}
    info(**how, dtype="float32")
    line = f"rank {RANK}, alpha {2 * RANK}, on {matrices} matrices, {size / 1000:.0f} kB; merged"
    assert f"adapter                {line} into the decoder" in capsys.readouterr().out
    info(model=str(checkpoint_dir()))
    assert "adapter" not in capsys.readouterr().out


def test_info_of_a_damaged_one_is_an_error(finished, tmp_path):
    copytree(finished, tmp_path / "run")
    (tmp_path / "run" / FOLDER / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"cannot read the adapter .*: copy it again"):
        info(model=str(tmp_path / "run"))


def test_in_16_bits_it_stays_beside_the_matrices(finished):
    model = ASRModel.from_pretrained(finished, dtype="bfloat16")
    assert {p.dtype for p in adapter_parameters(language_model(model))} == {torch.float32}
    assert isinstance(model.transcribe(noise(1.0), 16_000), str)


def test_a_real_language_model_learns_a_text(tmp_path, real, shared):
    changes = {"encoder": real / "whisper-base", "decoder": real / "smollm2-135m-instruct"}
    changes |= {"data": shared / "speech" / "train-accents.parquet", "limit": 4}
    changes |= {"model": "medium", "batch_seconds": 20.0, "max_utterances": 24}
    train(second_stage(tmp_path / "run", **changes, adapter_learning_rate=1e-3))
    losses = [row["loss"] for row in read_log(tmp_path / "run" / "log.csv")]
    assert losses[-1] < losses[0] - 0.3


def test_load_adapter_wants_its_file(tmp_path):
    with pytest.raises(ValueError, match="holds no"):
        load_adapter(language_model(loaded(checkpoint_dir())), tmp_path)
