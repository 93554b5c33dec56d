"""The prompt: the right one for each kind of decoder, with the marker in it exactly once."""

import json

import pytest
from fixtures_models import decoder_dir
from transformers import AutoTokenizer

from tiny_asr.hub import data_dir, resolve_source
from tiny_asr.prompt import AUDIO_MARKER, default_end_token, default_prompt, split_prompt

SMOLLM3_PROMPT = (
    "<|im_start|>system\n/no_think<|im_end|>\n"
    "<|im_start|>user\n<audio>Transcribe the speech.<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n"
)
CHATML_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def smollm3():
    return AutoTokenizer.from_pretrained(decoder_dir("smollm3"))


@pytest.fixture
def llama():
    return AutoTokenizer.from_pretrained(decoder_dir("llama"))


def rendered(tokenizer, *messages: tuple[str, str]) -> str:
    """What the tokenizer's own chat template makes of the messages."""
    chat = [{"role": role, "content": content} for role, content in messages]
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def test_smollm3_gets_its_template_with_thinking_off(smollm3):
    user = ("user", f"{AUDIO_MARKER}Transcribe the speech.")
    assert default_prompt(smollm3) == SMOLLM3_PROMPT
    assert default_prompt(smollm3) == rendered(smollm3, ("system", "/no_think"), user)


def test_other_chatml_models_get_one_user_turn(smollm3):
    smollm3.chat_template = CHATML_TEMPLATE
    expected = rendered(smollm3, ("user", f"{AUDIO_MARKER}Transcribe the speech."))
    assert default_prompt(smollm3) == expected
    assert "think" not in expected


def test_models_without_a_chat_template_get_a_caption(llama):
    assert default_prompt(llama) == "<s><audio>Transcript: "


def test_the_begin_token_stands_only_where_the_tokenizer_puts_one(smollm3):
    smollm3.chat_template = None
    smollm3.bos_token = "<|im_start|>"  # declared, but not put before every text
    assert default_prompt(smollm3) == "<audio>Transcript: "


def test_the_bundled_pair_has_the_prompt_that_its_decoder_asks_for():
    config = json.loads((data_dir() / "models" / "tiny-asr" / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(resolve_source(config["decoder"], "decoder"))
    assert config["prompt"] == default_prompt(tokenizer)
    assert config["end_token"] == default_end_token(tokenizer)


def test_the_end_token(smollm3, llama):
    assert default_end_token(smollm3) == "<|im_end|>"
    assert default_end_token(llama) == "</s>"
    llama.eos_token = None
    with pytest.raises(ValueError, match=r"no end-of-text token.*set end_token"):
        default_end_token(llama)


def test_split_prompt():
    assert split_prompt("a <audio> b") == ("a ", " b")
    assert split_prompt("<audio>") == ("", "")
    assert "".join(split_prompt(SMOLLM3_PROMPT)) == SMOLLM3_PROMPT.replace(AUDIO_MARKER, "")


@pytest.mark.parametrize(
    ("prompt", "times"), [("", 0), ("Transcribe:", 0), ("<audio><audio>", 2), ("<AUDIO>", 0)]
)
def test_the_marker_must_stand_there_once(prompt, times):
    with pytest.raises(ValueError, match=rf"{times}\s+times.*exactly once"):
        split_prompt(prompt)
