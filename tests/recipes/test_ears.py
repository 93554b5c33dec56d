"""What hears is trained: scenes put sound where it was planned, losses are right, files load."""

import csv
import io
import itertools
import json
import sys

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from recipes.ears import encoder, keep, learn, pack, projectors, scene
from recipes.ears.bank import WIDTHS, Bank, batches, read_pack
from tiny_asr.config import ASRConfig
from tiny_asr.model import ASRModel

MODELS = REPOSITORY / "data" / "models"
SPEECH = REPOSITORY / "data" / "speech" / "dev.parquet"
CPU = torch.device("cpu")
TEXTS = ["a", "sea of words", "she listens", "waves turn", "into", "it is her own sea"]


def tone(seconds: float, hertz: float) -> bytes:
    time = np.arange(int(seconds * 16_000)) / 16_000
    return (9000 * np.sin(2 * np.pi * hertz * time)).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A folder with a pack of six tones of 0.4 to 2.4 s, and one of noise."""
    folder = tmp_path_factory.mktemp("tones")
    clips = [(text, tone(0.4 * n, 300 * n)) for n, text in enumerate(TEXTS, 1)]
    pack.write(folder / "tones", clips, "pcm16")
    noise = np.random.default_rng(0).normal(0, 900, 80_000).astype("<i2").tobytes()
    pack.write(folder / "noise", [("", noise)], "pcm16")
    return folder


@pytest.fixture(scope="module")
def microphone(tones):
    bank, noise = (
        Bank({name: ([tones / f"{name}.json"], 1.0)}, CPU, 1) for name in ("tones", "noise")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene, "STORE", 4)
        return scene.Microphone(bank, noise, 80, 1600, seed=0)


# Packs


def test_packs_of_made_speech_hold_its_samples(tmp_path):
    rows, sounds = [], [np.arange(-500, 500, dtype=np.int16), np.full(700, 7, np.int16)]
    for number, sound in enumerate(sounds):
        wav = io.BytesIO()
        soundfile.write(wav, sound, 16_000, format="WAV", subtype="PCM_16")
        rows.append({"text": f"text {number}", "audio": {"bytes": wav.getvalue(), "path": "x"}})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "0007.parquet")
    pack.made(tmp_path, tmp_path / "packs")
    texts, read = read_pack(tmp_path / "packs" / "0007.json", 1)
    assert texts == ["text 0", "text 1"]
    assert all(np.array_equal(one, other) for one, other in zip(sounds, read, strict=True))


def test_encoded_packs_are_read_at_16_khz(tmp_path):
    flac = io.BytesIO()
    sound = 0.3 * np.sin(np.arange(24_000) / 10)
    soundfile.write(flac, np.stack([sound, sound], 1), 24_000, format="FLAC")
    pack.write(tmp_path / "one", [("stereo", flac.getvalue())])
    _, (read,) = read_pack(tmp_path / "one.json", 1)
    assert read.dtype == np.int16 and len(read) == 16_000
    assert np.abs(read).max() == pytest.approx(0.3 * 32767, rel=0.05)


def test_twenty_speakers_are_kept_out():
    rows = [{"speaker": f"s{number % 230}"} for number in range(900)]
    out = pack.held_out_speakers(rows)
    assert len(out) == 20 and out == pack.held_out_speakers(rows[::-1])


# Scenes


def test_text_and_sound_lie_where_they_were_planned(microphone):
    """At two speeds: quiet, a clip, quiet, at times another; nobody is nobody."""
    bank = microphone.bank
    for speed in (1.0, 1.16):
        plans = bank.draw(200, speed, np.random.default_rng(1))
        said, lengths, speaks = microphone._said(plans, speed, level=False)
        people = (plans.clips >= 0).sum(1)
        assert set(people) == {0, 1, 2} and speaks.tolist() == (people > 0).tolist()
        assert (lengths.numpy() % 1600 == 0).all() and (lengths.numpy() >= plans.lengths).all()
        for row, clips in enumerate(plans.clips):
            expected = torch.zeros(said.shape[1], dtype=torch.bool)
            for clip, start in zip(clips, plans.starts[row], strict=True):
                if clip >= 0:
                    expected[start : start + int(bank.lengths[clip] / speed)] = True
            loud = said[row].abs() > 0.02
            # Clear of the tones' zeros, and of a filter's ringing at the edges.
            near = torch.nn.functional.max_pool1d(loud[None].float(), 161, 1, 80)[0] > 0
            assert (near != expected).sum() <= 2 * 400 * people[row], (row, speed)
            words = [bank.texts[clip] for clip in clips if clip >= 0]
            assert bank.text(clips) == " ".join(words)


def test_batches_have_few_shapes_and_hold_what_they_say(microphone):
    rng, shapes = np.random.default_rng(0), set()
    some = batches(microphone.bank, 40.0, (0.85, 1.0, 1.16), rng)
    for scenes, _ in itertools.islice(some, 60):
        assert scenes.lengths.max() <= scenes.width and scenes.width in WIDTHS
        assert len(scenes) == max(1, int(40 * 16_000 / scenes.width))
        shapes.add((len(scenes), scenes.width))
    assert len(shapes) <= len(WIDTHS)


def test_the_student_hears_another_sound_than_the_teacher(microphone):
    plans = microphone.bank.draw(12, 1.0, np.random.default_rng(3))
    heard = microphone(plans, 1.0, clean=True)
    assert heard.heard.shape == heard.clean.shape and heard.heard.isfinite().all()
    assert (heard.heard - heard.clean).abs().mean() > 0.05
    assert heard.mel_frames.tolist() == (2 * heard.encoder_frames).tolist()


# Losses


def test_ctc_on_token_vectors_is_the_sum_over_all_alignments():
    torch.manual_seed(0)
    ctc = learn.TokenCTC(torch.randn(3, 5))
    embeddings, lengths = torch.randn(3, 4, 5), torch.tensor([4, 3, 4])
    texts = [[0, 2], [1, 1], []]  # the third says nothing, and does not count
    goals = torch.cat([ctc.table, torch.nn.functional.normalize(ctc.nothing, dim=0)[None]])
    near = torch.nn.functional.normalize(embeddings, dim=-1) @ goals.T
    chances = (ctc.scale.exp() * near).softmax(-1)
    losses = []
    for row, text in enumerate(texts[:2]):
        total = 0.0
        for path in itertools.product(range(4), repeat=int(lengths[row])):
            heard = [key for key, _ in itertools.groupby(path) if key != 3]
            if heard == text:
                total += np.prod([chances[row, t, token].item() for t, token in enumerate(path)])
        losses.append(-np.log(total) / len(text))
    found = ctc(embeddings, lengths, texts)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert ctc(embeddings[2:], lengths[2:], [[]]).item() == 0


def test_a_deepened_encoder_computes_the_same_and_learns():
    torch.manual_seed(0)
    config = WhisperConfig(
        num_mel_bins=80, d_model=16, encoder_layers=3, encoder_attention_heads=2,
        encoder_ffn_dim=32, max_source_positions=1500,
    )  # fmt: skip
    small = WhisperEncoder(config).eval()
    weights = {f"model.encoder.{name}": value for name, value in small.state_dict().items()}
    deep = encoder.deepened(weights | {"model.decoder.x": torch.zeros(1)}, config, 5).eval()
    assert len(deep.layers) == 5 and config.encoder_layers == 3
    mel = torch.randn(2, 80, 3000)
    torch.testing.assert_close(deep(mel)[0], small(mel)[0])
    deep(mel)[0].square().mean().backward()
    assert all(layer.fc2.weight.grad.abs().max() > 0 for layer in deep.layers)
    same = encoder.deepened(weights, config, 3).eval()
    torch.testing.assert_close(same(mel)[0], small(mel)[0])


# The two programs, on a few clips


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """What pack.py writes, small, of the bundled speech."""
    folder = tmp_path_factory.mktemp("packs")
    rows = pyarrow.parquet.read_table(SPEECH).to_pylist()[:18]
    for place, name in enumerate(("novels", "accents", "dev", "accents-test", "natural-test")):
        pack.write(folder / name, pack.pairs(rows[3 * place : 3 * place + 3]))
    noise = np.random.default_rng(0).normal(0, 900, 80_000).astype("<i2").tobytes()
    pack.write(folder / "noise", [("", noise)], "pcm16")
    for name in ("natural", "robots"):
        (folder / name).mkdir()
        clips = [(text, tone(0.4 * n, 300 * n)) for n, text in enumerate(TEXTS, 1)]
        pack.write(folder / name / "0000", clips, "pcm16")
    return folder


def run(program, packs, out, monkeypatch, *options: object) -> list[str]:
    """Train for a moment: the lines of the log."""
    command = ["x", *options, "--packs", packs, "--natural", packs / "natural"]
    command += ["--robots", packs / "robots", "--out", out, "--minutes", "0.04", "--workers", "1"]
    command += ["--batch-seconds", "16", "--warmup", "2", "--log-every", "2"]
    monkeypatch.setattr(scene, "STORE", 4)
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    program.main()
    return (out / "log.csv").read_text().splitlines()


def test_the_encoder_learns_and_loads_with_its_pair(packs, tmp_path, monkeypatch):
    options = ("--teacher", MODELS / "tiny-encoder", "--learning-rate", "1e-3", "--apart", "0.1")
    options += ("--soft-pair", "tiny")
    lines = run(encoder, packs, tmp_path, monkeypatch, *options)
    assert lines[0].startswith("step,seconds,loss,token_ctc,ctc,distillation,clips,hours,dev")
    values = lines[-1].split(",")
    assert int(values[0]) >= 1 and "nan" not in lines[-1] and all(values[-3:])
    weights = tmp_path / "encoder"
    AutoConfig.from_pretrained(MODELS / "tiny-encoder").save_pretrained(weights)
    before = ASRModel.from_pretrained("tiny")
    after = ASRModel.from_pretrained(tmp_path / "pair", encoder=str(weights))
    changed = {name.split(".")[0] for name, w in before.state_dict().items()
               if not torch.allclose(w, after.state_dict()[name], atol=1e-6)}  # fmt: skip
    assert changed == {"encoder", "audio_projector"}
    assert isinstance(after.transcribe(REPOSITORY / "data" / "sample.flac"), str)

    for name in ("tiny-encoder", "tiny-asr"):
        (tmp_path / "models" / name).mkdir(parents=True)
    keep.keep(tmp_path, tmp_path / "models", keep.KEPT["encoder"])
    kept = load_file(tmp_path / "models" / "tiny-asr" / "model.safetensors")
    assert kept and all(weight.dtype == torch.float16 for weight in kept.values())
    assert (tmp_path / "models" / "tiny-encoder" / "log.csv").is_file()
    log = tmp_path / "models" / "tiny-encoder" / "log.csv"
    keep.keep(tmp_path, tmp_path / "models", {"encoder": "tiny-encoder"}, goes_on=True)
    once = list(csv.DictReader((tmp_path / "log.csv").open()))
    twice = list(csv.DictReader(log.open()))
    assert twice[: len(once)] == once and len(twice) == 2 * len(once)
    for name in ("step", "clips"):
        assert int(twice[-1][name]) == 2 * int(once[-1][name])
    other = {name: weight + 1 for name, weight in kept.items()}
    save_file(other, tmp_path / "models" / "tiny-asr" / "model.safetensors")
    keep.keep(tmp_path, tmp_path / "models", {"pair": "tiny-asr"}, before={"pair": 0.25})
    mean = load_file(tmp_path / "models" / "tiny-asr" / "model.safetensors")
    for name, weight in kept.items():
        torch.testing.assert_close(mean[name], weight + 0.25, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("share", ["-0.1", "1.5"])
def test_a_share_of_soft_targets_is_one(share, packs, tmp_path, monkeypatch, capsys):
    options = ("--teacher", MODELS / "tiny-encoder", "--soft-share", share)
    with pytest.raises(SystemExit):
        run(encoder, packs, tmp_path, monkeypatch, *options)
    assert "expected 0 to 1" in capsys.readouterr().err


def test_soft_targets_are_the_tokens_that_are_likely_to_the_teacher():
    logits, soft = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    labels = torch.tensor([[0, 1, -100], [2, -100, -100]])
    rows = [(logits[0, 0], soft[0, 0]), (logits[0, 1], soft[0, 1]), (logits[1, 0], soft[1, 0])]
    by_hand = sum(
        sum(float(p * (p / q).log()) for p, q in zip(s.softmax(-1), x.softmax(-1), strict=True))
        for x, s in rows
    ) / 3  # fmt: skip
    assert encoder.soft_loss(logits, soft, labels).item() == pytest.approx(by_hand, rel=1e-5)
    assert encoder.soft_loss(soft, soft, labels).item() == pytest.approx(0, abs=1e-6)
    nobody = torch.full_like(labels, -100)
    assert encoder.soft_loss(logits, soft, nobody).item() == 0


def test_two_projectors_learn_at_once_and_nothing_else(packs, tmp_path, monkeypatch):
    begin = ASRConfig(audio_downsample_rate=4, projector_hidden_dim=32)
    ASRModel(begin).save_pretrained(tmp_path / "begin")
    pairs = ("one", f"two:convolution:16={MODELS / 'tiny-decoder'}")
    options = ("--encoder", MODELS / "tiny-encoder", "--width", "32", "--rate", "4")
    options += ("--init", f"one={tmp_path / 'begin'}", "--learning-rate", "1e-9")
    lines = run(projectors, packs, tmp_path, monkeypatch, *pairs, *options)
    assert lines[0].startswith("step,seconds,one,one_ctc,two,two_ctc,clips,hours,one_dev,two_dev")
    assert "nan" not in lines[-1] and all(lines[-1].split(",")[-6:])
    for name, kind, width in (("one", "mlp", 32), ("two", "convolution", 16)):
        kept = load_file(tmp_path / name / "model.safetensors")
        assert kept and all(key.startswith("audio_projector.") for key in kept)
        pair = ASRModel.from_pretrained(tmp_path / name)
        config = pair.config
        assert config.audio_downsample_rate == 4 and config.projector_hidden_dim == width
        assert config.projector_type == kind
        begun = load_file(tmp_path / "begin" / "model.safetensors")
        same = kept.keys() == begun.keys() and all(
            torch.allclose(kept[key].float(), begun[key].float(), atol=1e-4) for key in kept
        )
        assert same == (name == "one")


def test_only_what_two_recognisers_wrote_alike_is_taken():
    heard = {
        "alike": ["Can I have 12 ounces?", "can i have twelve ounces"],
        "not": ["I would like a mocha.", "I like a mocha."],
        "nearly": [
            "We gather apples and pears in the old garden today.",
            "We gather apples and pairs in the old garden today.",
        ],
        "nothing": ["...", "..."],
    }
    assert pack.agreed(heard).keys() == {"alike", "nearly"}
    assert pack.agreed(heard)["alike"] == "Can I have 12 ounces?"


def test_noises_in_which_two_whispers_hear_words_are_found():
    heard = {"both": ["Very good. No.", "Very good."], "one": ["", "What?"], "no": ["...", "..."]}
    assert pack.spoken(heard) == {"both"}
    stored = json.loads(pack.SPOKEN.read_text(encoding="utf-8"))
    found = pack.spoken(stored)
    assert len(stored) == 460 and len(found) == 51
    assert sum(name.startswith("test-") for name in found) == 8
