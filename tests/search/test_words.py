"""Times of words: where they are known, in long files, around quiet, whatever is written."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from fixtures_models import noise, pair, some_noises, talkative

from tiny_asr import ASRModel, load_audio, puzzle_clip, sample_clip
from tiny_asr.audio import cut
from tiny_asr.course.story import words_of
from tiny_asr.data.dataset import load_data
from tiny_asr.evaluation.score import align
from tiny_asr.hub import data_dir
from tiny_asr.search.words import LONGEST_END, Word, in_order, joined, tokens_of_words

RATE = 16_000
CLIPS = {"sample": sample_clip, "puzzle": puzzle_clip}


@cache
def tiny() -> ASRModel:
    return ASRModel.from_pretrained("tiny")


@cache
def sentences() -> list[torch.Tensor]:
    """Natural voices of the bundled test."""
    test = load_data(data_dir() / "speech" / "test.parquet")
    return [test[i].load() for i in range(0, 480, 40)]


def check(timed, seconds: float) -> None:
    """What holds of all words, whatever was written."""
    text, words = timed
    assert "".join(word.text for word in words) == text
    times = [time for word in words for time in (word.begin, word.end)]
    assert times == sorted(times)
    assert all(0 <= time <= seconds for time in times)
    assert all(word.text.strip() and not word.text[-1].isspace() for word in words)


@pytest.mark.parametrize("name", CLIPS)
def test_words_are_where_they_were_read_off_the_waveform(name):
    clip = load_audio(CLIPS[name]())
    timed = tiny().transcribe(clip, RATE, words=True)
    check(timed, len(clip) / RATE)
    assert timed.text == tiny().transcribe(clip, RATE)
    known, off, place, other = words_of(name), [], 0, 0
    for operation, _, _ in align(" ".join(word for word, _, _ in known), timed.text):
        if operation == "equal":
            _, begin, end = known[place]
            off += [abs(timed.words[other].begin - begin), abs(timed.words[other].end - end)]
        place += operation != "insert"
        other += operation != "delete"
    assert len(off) >= 12
    assert np.median(off) < 0.05 and max(off) < 0.16


def test_times_of_a_long_file_are_those_of_the_file():
    """Sentences with pauses that are left out: each word at its time in its sentence, and later."""
    alone = tiny().transcribe(sentences(), RATE, words=True)
    parts, begins, place = [], [], 0
    for number, clip in enumerate(sentences()):
        pause = torch.zeros(int((1.2 + number % 3) * RATE))
        parts += [pause, clip]
        begins.append((place + len(pause)) / RATE)
        place += len(pause) + len(clip)
    whole = torch.cat(parts)
    timed = tiny().transcribe(whole, RATE, words=True)
    assert len(whole) > 50 * RATE and len(cut(whole, 30)) > 2
    check(timed, len(whole) / RATE)
    assert timed.text == tiny().transcribe(whole, RATE)
    expected = [
        (word.text.strip(), begin + word.begin, begin + word.end)
        for begin, (_, words) in zip(begins, alone, strict=True)
        for word in words
    ]
    off, place, other = [], 0, 0
    steps = align(" ".join(w for w, *_ in expected), timed.text, normaliser="none")
    for operation, _, _ in steps:
        if operation == "equal":
            off.append(abs(timed.words[other].begin - expected[place][1]))
            off.append(abs(timed.words[other].end - expected[place][2]))
        place += operation != "insert"
        other += operation != "delete"
    assert len(off) > 1.6 * len(expected)
    assert np.median(off) < 0.03 and np.quantile(off, 0.9) < 0.1 and max(off) < 0.7


def test_a_batch_gives_the_times_of_its_clips_alone():
    clips = sentences()[:3]
    together = tiny().transcribe(clips, RATE, words=True)
    for clip, timed in zip(clips, together, strict=True):
        alone = tiny().transcribe(clip, RATE, words=True)
        assert alone == timed and type(alone.words[0]) is Word


def test_beams_are_timed():
    clip = sentences()[0]
    timed = tiny().transcribe(clip, RATE, words=True, beams=3)
    check(timed, len(clip) / RATE)
    assert timed.text == tiny().transcribe(clip, RATE, beams=3) and len(timed.words) > 3


def test_whatever_a_random_model_writes_is_covered():
    for clip in (*some_noises(), noise(0.05), noise(33.0)):
        timed = talkative().transcribe(clip, RATE, words=True, max_new_tokens=40)
        check(timed, len(clip) / RATE)
        assert timed.text == talkative().transcribe(clip, RATE, max_new_tokens=40)
    check(pair().transcribe(noise(2), RATE, words=True), 2)


def test_nothing_written_has_no_words():
    assert talkative().transcribe(noise(1), RATE, max_new_tokens=0, words=True) == ("", [])


WRITTEN = [
    "Hello, world!",
    "it's  3 o'clock \u2013 now",
    "\u4f60\u597d\u4e16\u754c",
    "na\u00efve caf\u00e9",
    "",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_any_text_falls_into_words_and_their_tokens(text):
    """A tokenizer of bytes: a character of two or three of them belongs to one word."""
    ids = list(text.encode())

    def decode(some):
        return bytes(some).decode(errors="replace").strip()

    slices = tokens_of_words(ids, decode)
    words = [decode(ids[part]) for part in slices]
    assert words == text.split()
    assert [part.stop for part in slices][:-1] == [part.start for part in slices][1:]


def test_words_that_share_a_token_both_get_it():
    pieces = ["a", " b c", " d"]
    slices = tokens_of_words([0, 1, 2], lambda ids: "".join(pieces[i] for i in ids))
    assert slices == [slice(0, 1), slice(1, 2), slice(1, 2), slice(2, 3)]


def test_more_tokens_than_frames_still_have_an_order(monkeypatch):
    model, clip = talkative(), noise(0.1)  # five frames
    ids = model.processor.tokenizer("go on home to the sea and its waves")["input_ids"] * 2
    monkeypatch.setattr(model, "generate", lambda *_, **__: [torch.tensor(ids)])
    timed = model.transcribe(clip, RATE, words=True)
    assert len(ids) > 5 and timed.words
    check(timed, 0.1)


def test_a_word_that_ends_where_quiet_was_left_out_ends_before_it():
    sound = torch.sin(torch.arange(3 * RATE) / 5) * (1 + torch.sin(torch.arange(3 * RATE) / 900))
    clip = torch.cat((sound, torch.zeros(4 * RATE), sound))
    pieces = cut(clip, 30)
    assert sum(map(len, pieces)) < 8 * RATE
    length = len(pieces[0]) / RATE
    text, words = joined(clip, pieces, [[Word("a", 1, length)], [Word("b", 0.0, 0.5)]])
    assert text == "a b"
    assert words[0] == ("a", 1.0, pytest.approx(3.2, abs=0.05))
    assert words[1] == (" b", pytest.approx(6.8, abs=0.05), pytest.approx(7.3, abs=0.05))


def test_a_loud_sound_after_a_word_is_not_all_its_own():
    clip = torch.cat((load_audio(sample_clip()), noise(3.0)))
    words = tiny().transcribe(clip, RATE, words=True).words
    word = next(word for word in words if word.text == " words")
    assert word.end < 2.99 + 0.02 * LONGEST_END + 0.1


@pytest.mark.parametrize("size", [3, 7])
def test_the_order_of_places_is_kept(size):
    scores = np.eye(3, size)[::-1].copy() + 0.1  # the best places are in the wrong order
    found = in_order(scores)
    assert all(a < b for a, b in found)
    assert all(x[1] <= y[0] for x, y in pairwise(found))


def test_an_untrained_model_warns_and_still_answers(caplog):
    model = ASRModel(pair().config)
    assert "untrained" in caplog.text
    check(model.transcribe(noise(1.5), RATE, words=True), 1.5)
