"""Targets that keep the text as it is written, and what `plain` says to those who need them."""

import unicodedata

import pytest
from fixtures_models import noise
from small_runs import encoded, write_rows
from written import GERMAN, SENTENCES

from tiny_asr.data.dataset import load_data
from tiny_asr.data.utterance import BadClip, target_of


@pytest.fixture
def speech(tmp_path):
    """Clips with a sentence of each language, in decomposed form and with odd spaces."""
    rows = [
        {
            "id": str(number),
            "text": " \t" + unicodedata.normalize("NFD", text).replace(" ", "\u00a0 "),
            "audio": encoded(noise(4.0, number)),
        }
        for number, text in enumerate(SENTENCES)
    ]
    return write_rows(tmp_path / "speech.parquet", rows)


def test_written_keeps_case_punctuation_digits_and_any_script(speech):
    data = load_data(speech, text="written")
    assert [clip.text for clip in data] == list(SENTENCES)
    assert not data.dropped


def test_plain_keeps_what_it_can_hold_and_says_how_to_keep_the_rest(speech):
    with pytest.warns(UserWarning, match=r"3 left out for letters .* \(--text written\)"):
        data = load_data(speech)
    assert [clip.text for clip in data] == ["die strasse ist nass 20 zuge fahren uber koln schon"]


def test_where_nothing_is_left_the_error_says_it(speech, tmp_path):
    rows = [{"id": "a", "text": SENTENCES[2], "audio": encoded(noise(3.0))}]
    path = write_rows(tmp_path / "russian.parquet", rows)
    with (
        pytest.warns(UserWarning, match="letters or symbols"),
        pytest.raises(ValueError, match=r"no usable clip .*letters or .* --text written"),
    ):
        load_data(path)


def test_noise_may_have_any_text(speech):
    assert len(load_data(speech, text="written", require_text=False)) == len(SENTENCES)


@pytest.mark.parametrize("text", ["caf\ufffd", "a\x00b", "\ud800", "\u0085x\x07"])
def test_a_wrong_encoding_is_no_text(text):
    with pytest.raises(BadClip, match="wrong encoding") as caught:
        target_of(text, "x", "written")
    assert caught.value.reason == "letters or symbols that a target can't hold"


@pytest.mark.parametrize("text", ["", " \u3000\n"])
def test_no_text_is_left_out_in_both(text):
    for style in ("plain", "written"):
        with pytest.raises(BadClip, match="has no text"):
            target_of(text, "x", style)


def test_another_style_is_refused():
    with pytest.raises(ValueError, match=r"text='cased' came; expected one of plain, written"):
        target_of(GERMAN, "x", "cased")
