"""The programs that train the tiny encoder and decoder, in small."""

import io
import lzma
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from recipes import decoder, encoder, first_projector, notes, projector
from tiny_asr.audio import log_mel
from tiny_asr.data.utterance import Utterance
from tiny_asr.decoder import TextDecoder
from tiny_asr.hub import load_frozen
from tiny_asr.model import ASRModel
from tiny_asr.prompt import default_prompt

MODELS = REPOSITORY / "data" / "models"
LINES = """\
the captain heard a night bird cry over the house
she did not answer
we saw the white sails in the bay at night and he counted them""".splitlines()
SOUNDS = """bay B EY1
bird B ER1 D
captain K AE1 P T AH0 N
cry K R AY1
night N AY1 T
white W AY1 T
write W AY1 T # rare
"""


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODELS / "tiny-decoder")


@pytest.fixture(scope="module")
def words(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "cmudict.xz"
    path.write_bytes(lzma.compress(SOUNDS.encode()))
    texts = {"train": LINES * 20}
    return notes.Words(tokenizer.backend_tokenizer, texts, path, seed=0)


@pytest.fixture(scope="module")
def language_model():
    torch.manual_seed(0)
    small = {
        "num_hidden_layers": 2,
        "layer_types": ["full_attention"] * 2,
        "no_rope_layers": [1, 0],
    }
    config = AutoConfig.from_pretrained(MODELS / "tiny-decoder", **small)
    return AutoModelForCausalLM.from_config(config).eval()


def draw(words, table, **options):
    settings = {"batch": 64, "fewest": 2, "most": 6, "longest": 60} | options
    generator = torch.Generator().manual_seed(0)
    text = words.texts["train"]
    return notes.make_notes(words, text, table, 3, 2, generator=generator, **settings)


def test_words_that_sound_alike_and_misspelt_ones_are_among_the_forms(words, tokenizer):
    forms = words.forms[words.numbers["night"]]
    spelt = {tokenizer.decode(form[form >= 0]) for form in forms}
    assert tokenizer.decode(forms[0][forms[0] >= 0]) == " night"
    assert " white" in spelt  # one phoneme away
    assert len(spelt - {" night", " white"}) > 1  # misspelt


def test_a_note_says_a_stretch_of_the_text_or_nothing(words, tokenizer, language_model):
    table = language_model.get_input_embeddings().weight.detach()
    drawn = draw(words, table)
    running = " ".join(LINES * 20)
    said = [tokenizer.decode(labels[labels >= 0]) for labels in drawn.labels]
    assert all(text.endswith("<|im_end|>") for text in said)
    said = [text.removesuffix("<|im_end|>") for text in said]
    assert all(text in running for text in said)
    assert any(text == "" for text in said) and len(set(said)) > 20
    assert drawn.embeddings.shape == (64, 60, table.shape[1])
    assert int(drawn.lengths.max()) <= 60
    rms = drawn.embeddings.pow(2).mean(-1).sqrt()
    torch.testing.assert_close(rms, table.pow(2).mean().sqrt().expand_as(rms), rtol=1e-3, atol=0)


def test_notes_can_be_read(words, tokenizer):
    """With tokens at right angles, most words of a note are the nearest tokens of its vectors."""
    table = torch.eye(2048)
    drawn = draw(words, table)
    found = count = 0
    for embeddings, length, labels in zip(
        drawn.embeddings, drawn.lengths, drawn.labels, strict=True
    ):
        near = set(embeddings[:length].argmax(-1).tolist())
        wanted = set(labels[labels > 3].tolist()[1:])  # the first has no space in front
        found, count = found + len(near & wanted), count + len(wanted)
    assert 0.4 < found / count < 0.95  # messy, but not lost


def test_dictation_is_the_loss_that_the_package_computes(words, tokenizer, language_model):
    """The rows of decoder.py against the splice of `TextDecoder`, on the same notes."""
    dictation = decoder.Dictation(language_model, tokenizer, words)
    bucket, text = (2, 6, 60), words.texts["train"]
    with torch.no_grad():
        loss = dictation.loss(text, bucket, 1000, torch.Generator().manual_seed(0))
        table = language_model.get_input_embeddings().weight
        width = 60 + 12 + 2 * 6 + 6
        drawn = draw(words, table, batch=1000 // width)
        prompt = default_prompt(tokenizer)
        reader = TextDecoder(language_model, tokenizer, prompt, "<|im_end|>")
        logits = reader.text_logits(drawn.embeddings, drawn.lengths, drawn.labels)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), drawn.labels.flatten())
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def listening(seed: int = 0):
    class Noise:
        samples = torch.randn(200_000, generator=torch.Generator().manual_seed(1)).mul(1000).short()
        lengths = torch.tensor([150_000, 50_000])

    return encoder.Listening(Noise, 80, seed)


def test_the_teacher_hears_what_the_package_computes():
    waveforms = torch.randn(2, 32_000) * 0.1
    waveforms[1, 15_000:] = 0
    lengths = torch.tensor([32_000, 15_000])
    for change in (False, True):
        heard = listening()(waveforms, lengths, change)
        mel = log_mel(waveforms, 80, torch.tensor([32_000, 16_000]))
        torch.testing.assert_close(heard.teacher, mel, rtol=0, atol=1e-5)
        assert heard.encoder_frames.tolist() == [100, 50]
        assert torch.equal(heard.student, mel) != change


def test_only_the_student_hears_noise_and_masks_and_never_twice_the_same():
    waveforms, lengths = torch.randn(8, 32_000) * 0.1, torch.full((8,), 32_000)
    twice = listening()
    first, second = (twice(waveforms, lengths, change=True) for _ in range(2))
    assert first.teacher.shape == first.student.shape == (8, 80, 200)
    assert torch.isfinite(first.student).all()
    assert (first.student - first.teacher).abs().mean() > 0.05
    assert (first.student - second.student).abs().mean() > 0.05
    again = listening()(waveforms, lengths, change=True)
    assert torch.equal(again.student, first.student)


def test_the_encoder_is_saved_as_the_package_loads_it(tmp_path):
    config = AutoConfig.from_pretrained(MODELS / "tiny-encoder")
    torch.manual_seed(1)
    student = encoder.Student(config, 384, 2048)
    assert any(p.requires_grad for p in student.encoder.parameters())
    encoder.save(student, tmp_path)
    config.save_pretrained(tmp_path)
    loaded, trained = load_frozen("encoder", str(tmp_path), config, torch.float32)
    assert trained and isinstance(loaded, WhisperEncoder)
    for name, value in student.encoder.whisper.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float())


@pytest.fixture(scope="module")
def clips(tokenizer):
    """Clips of 0.5 to 15 s, each a tone that names its text."""
    seconds = np.random.default_rng(0).uniform(0.5, 15, 60)
    made = [Utterance(f"{i}", "a", s, {}, tone(i, s)) for i, s in enumerate(seconds)]
    return encoder.Clips(made, tokenizer, torch.device("cpu"), workers=1)


def tone(number: int, seconds: float) -> bytes:
    time = np.arange(int(seconds * 16_000)) / 16_000
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * 400 * time), 16_000, format="WAV")
    return file.getvalue()


def test_a_batch_of_clips_is_alike_in_length_and_bounded(clips):
    rng = np.random.default_rng(0)
    seconds = clips.lengths.numpy() / 16_000
    assert (np.diff(seconds) >= 0).all()
    shapes = set()
    for speed in [84, 100, 116] * 50:
        rows, width = clips.draw(60.0, speed, rng)
        chosen = seconds[rows] * 100 / speed
        assert len(set(rows)) == len(rows) and chosen.max() <= 1.4 * chosen.min()
        assert chosen.max() <= width and (len(rows) * width <= 60 or len(rows) == 1)
        shapes.add(width)
    assert len(shapes) < 25


def test_clips_at_another_speed_are_shorter_and_higher(clips):
    clips.add_speeds([100, 116])
    rows = np.array([5, 40])
    slow, lengths = clips.waveforms(rows, 20)
    fast, shorter = clips.waveforms(rows, 20, 116)
    assert slow.shape == fast.shape == (2, 320_000)
    assert shorter.tolist() == [int(n * 100 / 116) for n in lengths.tolist()]
    for sound, size, hertz in ((slow, lengths, 400), (fast, shorter, 464)):
        for row, n in zip(sound, size.tolist(), strict=True):
            assert row[n:].abs().max() == 0 and row[: n - 100].abs().max() > 0.2
            peak = torch.fft.rfft(row[:n] * torch.hann_window(n)).abs().argmax() * 16_000 / n
            assert abs(peak.item() - hertz) < 3


def test_the_decoder_is_saved_as_the_package_loads_it(language_model, tmp_path):
    decoder.save(language_model, tmp_path)
    language_model.config.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")  # the tied table
    loaded, trained = load_frozen("decoder", str(tmp_path), language_model.config, torch.float32)
    assert trained
    for name, value in language_model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float())


def test_a_first_training_changes_the_projector_alone(tmp_path, monkeypatch):
    """On bundled speech in the place of all sources; the checkpoint is one to train on from."""
    speech = str(MODELS.parent / "speech" / "dev.parquet")
    sources = [f"--{name}" for name in ("speech", "real", "untranscribed", "noise", "dev")]
    options = [word for name in sources for word in (name, speech)]
    options += ["--limit", "6", "--steps", "3", "--batch-seconds", "8", "--log-every", "2"]
    monkeypatch.setattr(sys, "argv", ["x", "tiny", "--out", str(tmp_path), "--seed", "1", *options])
    before = ASRModel.from_pretrained("tiny")
    first_projector.main()
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "2", "3"]
    assert all(0 < float(number) < 9 for row in rows[1:] for number in row.split(",")[-2:])
    kept = load_file(tmp_path / "pair" / "model.safetensors")
    assert all(name.startswith("audio_projector.") for name in kept)
    after = ASRModel.from_pretrained(tmp_path / "pair")
    for name, weight in before.state_dict().items():
        learnt = name.startswith("audio_projector.")
        assert torch.equal(weight, after.state_dict()[name]) != learnt, name


def test_a_finished_run_is_kept_in_float16(tmp_path, monkeypatch, capsys):
    run, out = tmp_path / "run", tmp_path / "tiny-asr"
    run.mkdir()
    out.mkdir()
    weight = torch.linspace(-1, 1, 7)
    save_file({"audio_projector.linear1.bias": weight}, run / "model.safetensors")
    (run / "log.csv").write_text("step\n1\n")
    arguments = ["projector.py", str(run), "tiny", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        projector.main()
    assert "has no run.yaml" in capsys.readouterr().err and not list(out.iterdir())
    (run / "run.yaml").write_text("data: train.parquet\n")
    projector.main()
    kept = load_file(out / "model.safetensors")["audio_projector.linear1.bias"]
    assert kept.dtype is torch.float16 and torch.equal(kept, weight.half())
    assert (out / "log.csv").read_text() == "step\n1\n"
    assert (out / "run.yaml").read_text().endswith("\ndata: train.parquet\n")
