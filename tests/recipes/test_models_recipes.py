"""The program that trains the tiny decoder, in small."""

import lzma

import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from recipes import decoder, notes
from tiny_asr.decoder import TextDecoder
from tiny_asr.hub import load_frozen
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


def test_the_decoder_is_saved_as_the_package_loads_it(language_model, tmp_path):
    decoder.save(language_model, tmp_path)
    language_model.config.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")  # the tied table
    loaded, trained = load_frozen("decoder", str(tmp_path), language_model.config, torch.float32)
    assert trained
    for name, value in language_model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value.half().float())
