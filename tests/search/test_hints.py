"""Hints: the bonus by hand, given back where a word is left, and what it does to a text."""

import pytest
import torch
from fixtures_models import noise, some_noises, talkative
from transformers import AutoTokenizer

from tiny_asr import ASRModel, data_dir, load_audio, sample_clip
from tiny_asr.search.beam import beam_search
from tiny_asr.search.hints import Hints, separates

CPU = torch.device("cpu")
BONUS = 1.5


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(data_dir() / "models" / "tiny-decoder")


def total(tokenizer, text: str, *words: str) -> list[float]:
    """The bonus after each token of a text, and at last that of its end."""
    hints, sums = Hints(words, tokenizer, 1, CPU, BONUS), [0.0]
    ids = tokenizer(text, add_special_tokens=False).input_ids
    for token in [*ids, tokenizer.eos_token_id]:
        sums.append(sums[-1] + float(hints.bonus(len(tokenizer))[0, token]))
        hints.add(torch.tensor([token]))
    return sums[1:]


def pieces(tokenizer, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("siobhan", ["siobhan"]),  # the text's start, spelled without a space
        ("ask siobhan now", [" siobhan"]),
        ("siobhan ask siobhan", ["siobhan", " siobhan"]),
        ("ask siobhan", [" siobhan"]),  # the end of the text ends the word
        ("ask siobhan's mother", [" siobhan"]),
        ("ask siobhanette now", []),  # it went on as another word: all given back
        ("ask sio now", []),
        ("ask sio", []),
        ("nothing of the kind", []),
    ],
)
def test_a_whole_word_keeps_its_bonus_and_any_other_gives_it_back(tokenizer, text, found):
    sums = total(tokenizer, text, "siobhan")
    expected = BONUS * sum(pieces(tokenizer, word) for word in found)
    assert sums[-1] == pytest.approx(expected)
    assert all(value >= -1e-6 for value in sums)


def test_words_that_begin_alike_and_words_with_spaces(tokenizer):
    words = ("ann", "anna", "new york", "york")
    for text, found in (
        ("with ann there", " ann"),
        ("with anna there", " anna"),
        ("with annals there", ""),
        ("in new york there", " new york"),
        ("in york there", " york"),
        ("in new places", ""),
    ):
        count = pieces(tokenizer, found) if found else 0
        assert total(tokenizer, text, *words)[-1] == pytest.approx(BONUS * count), text


def test_a_word_counts_in_its_own_case_and_in_lower_case():
    tokenizer = talkative().processor.tokenizer  # one that keeps case
    assert tokenizer.tokenize("Anna") != tokenizer.tokenize("anna")
    for text in ("Anna", "anna"):
        assert total(tokenizer, text, "Anna")[-1] == pytest.approx(BONUS * pieces(tokenizer, text))


def test_rows_can_go_on_from_one_another(tokenizer):
    hints = Hints(["siobhan"], tokenizer, 2, CPU, BONUS)
    start = tokenizer("siobhan", add_special_tokens=False).input_ids
    hints.add(torch.tensor([start[0], tokenizer.eos_token_id]))
    hints.select(torch.tensor([1, 0]))
    bonus = hints.bonus(len(tokenizer) + 7)[:, start[1]]  # some models' tables are wider
    assert bonus.tolist() == [0.0, BONUS]


def test_which_tokens_end_a_word(tokenizer):
    ends = separates(tokenizer)
    for text, expected in ((" the", True), ("the", False), ("'", True)):
        (token,) = tokenizer(text, add_special_tokens=False).input_ids
        assert ends[token] is expected
    assert ends[tokenizer.eos_token_id]


def test_a_hint_decides_between_two_texts_that_are_nearly_as_good():
    model, clip = ASRModel.from_pretrained("tiny"), load_audio(sample_clip())
    found = beam_search(model.decoder, *model._listen([clip]), beams=8)
    rows = zip(found.ids[0], found.lengths[0].tolist(), strict=True)
    texts = [model.processor.decode(row[:length]) for row, length in rows]
    assert texts[0] == model.transcribe(clip, 16_000, beams=8)
    words = [word for text in texts[1:] for word in text.split() if word not in texts[0].split()]
    assert words[0] in model.transcribe(clip, 16_000, beams=8, hints=[words[0]]).split()
    assert model.transcribe(clip, 16_000, beams=8, hints=["zbigniew"]) == texts[0]


@pytest.mark.parametrize("beams", [1, 3])
def test_hints_in_a_batch_as_alone_and_in_a_stream(beams):
    model, words = talkative(), ["the", "cat sat"]
    together = model.generate(some_noises(), beams=beams, hints=words)
    for clip, row in zip(some_noises(), together, strict=True):
        assert row.tolist() == model.generate([clip], beams=beams, hints=words)[0].tolist()
    plain = model.generate(some_noises(), beams=beams)
    assert any(row.tolist() != ids.tolist() for row, ids in zip(together, plain, strict=True))
    text = model.transcribe(noise(3), 16_000, beams=beams, hints=words)
    assert text == "".join(model.stream(noise(3), 16_000, beams=beams, hints=words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("siobhan", "hints came as the text 'siobhan'; expected a list of words"),
        (["siobhan", " "], "a blank hint came; expected words: leave it out"),
        (["a"] * 1001, "1001 hints came; expected at most 1000"),
    ],
)
def test_hints_that_make_no_sense(words, message):
    with pytest.raises(ValueError, match=message):
        talkative().transcribe(noise(1), 16_000, hints=words)
