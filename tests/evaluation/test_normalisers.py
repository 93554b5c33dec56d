"""What each normaliser levels, and what a word is where there are no spaces."""

import pytest
from test_score import scored
from written import GERMAN, GREEK, JAPANESE, MANDARIN, RUSSIAN, THAI

from tiny_asr.evaluation.normalisers import characters, is_unspaced, normalise
from tiny_asr.evaluation.score import align, check_baseline, normaliser_of, paired_bootstrap


@pytest.mark.parametrize(
    ("text", "normaliser", "words"),
    [
        ("Don't SHOUT, colour!", "english", "do not shout color"),
        ("Don't SHOUT, colour!", "basic", "don t shout colour"),
        ("Don't  SHOUT,\tcolour!", "none", "Don't SHOUT, colour!"),
        (GERMAN, "basic", "die straße ist naß 20 züge fahren über köln schön"),
        (GREEK, "basic", "πού είναι η στάση στις 7 30 φεύγω"),
        (RUSSIAN, "basic", "съешь ещё этих мягких булок да выпей чаю"),
        (MANDARIN, "basic", "我 们 坐 地 铁 2 号 线 去 北 京 大 学"),
        (MANDARIN, "none", "我 们 坐 地 铁 2 号 线 去 北 京 大 学 。"),
        ("Tokyo (東京)は", "basic", "tokyo は"),
        ("cafe\u0301", "none", "café"),
    ],
)
def test_normalisers(text, normaliser, words):
    assert normalise(text, normaliser) == words


def test_an_unknown_one_is_refused():
    with pytest.raises(ValueError, match=r"'german' came; expected one of english, basic, none"):
        normalise("x", "german")


@pytest.mark.parametrize("text", [MANDARIN, JAPANESE, THAI])
def test_characters_have_no_spaces_that_were_put_in(text):
    assert characters(normalise(text, "none")) == text
    assert is_unspaced([text])
    assert not is_unspaced([GERMAN, GREEK, RUSSIAN])


def test_mandarin_by_hand():
    wrong = MANDARIN.replace("北京", "背景").replace("线", "")
    result = scored((MANDARIN, wrong), normaliser="basic")
    assert result.normalizer == "whisper-basic"
    assert (result.words, result.substitutions, result.deletions) == (13, 2, 1)
    assert result.wer.value == pytest.approx(3 / 13) == pytest.approx(result.cer)
    pairs = [pair for pair in align(MANDARIN, wrong, "basic") if pair[0] != "equal"]
    assert pairs == [("delete", "线", ""), ("substitute", "北", "背"), ("substitute", "京", "景")]


def test_two_scripts_in_one_text_are_words_and_characters():
    result = scored(("我 有 two cats", "我没有 two cat"), normaliser="basic")
    assert (result.words, result.insertions, result.substitutions) == (4, 1, 1)


def test_case_and_punctuation_count_where_nothing_is_levelled():
    said, heard = "Die Straße, bitte!", "die straße bitte"
    rates = {n: scored((said, heard), normaliser=n).wer.value for n in ("basic", "none")}
    assert rates == {"basic": 0, "none": 1}
    assert scored((GREEK, GREEK), (RUSSIAN, RUSSIAN), normaliser="none").wer.value == 0


def test_results_of_two_normalisers_are_not_compared():
    ours = scored((RUSSIAN, RUSSIAN), ("a b", "a b"), normaliser="none")
    theirs = scored((RUSSIAN, RUSSIAN), ("a b", "a c"), normaliser="basic")
    with pytest.raises(ValueError, match="normaliser none here, whisper-basic there"):
        paired_bootstrap(ours, theirs)
    check_baseline({"0": RUSSIAN.upper(), "1": "A b"}, theirs, normaliser="basic")
    assert normaliser_of(theirs) == "basic"
