"""New sentences of old ones: every word of theirs is heard, in order, in one voice."""

import itertools

import numpy as np
import soundfile
from conftest import REPOSITORY

from recipes.ears import pack, splice
from recipes.ears.bank import read_pack
from tiny_asr.model import ASRModel

WORD, GAP = 3200, 800  # samples of a word, and of the quiet behind it


def spoken(words: list[int]) -> np.ndarray:
    """Each word is a tone of its own; quiet between them."""
    time = np.arange(WORD) / 16_000
    tones = [9000 * np.sin(2 * np.pi * 100 * word * time) for word in words]
    return np.concatenate([np.pad(one, (0, GAP)) for one in tones]).astype(np.int16)


def heard(sound: np.ndarray) -> list[str]:
    """Which tones a sound has, one after the other."""
    loud = np.convolve(np.abs(sound) > 60, np.ones(160), "same") > 0
    ends = np.flatnonzero(np.diff(loud.astype(int), prepend=0, append=0))
    found = []
    for begin, end in ends.reshape(-1, 2):
        power = np.abs(np.fft.rfft(sound[begin:end], 16_000))
        found.append(str(round(power.argmax() / 100)))
    return found


def test_a_new_sentence_is_what_it_says_in_one_voice():
    lines = [[3, 5, 7, 9], [4, 6, 8], [21, 23, 25], [22], []]
    speakers = ["ann", "ann", "ben", "ben", ""]
    clips = [spoken(line) if line else np.zeros(900, np.int16) for line in lines]
    places = [[((WORD + GAP) * n, n) for n in range(len(line) + 1)] for line in lines]
    texts = [" ".join(map(str, line)) for line in lines]
    made = list(splice.spliced(clips, texts, speakers, places, 60, np.random.default_rng(0)))
    new = 0
    for text, sound in made:
        words = text.split()
        assert sound.dtype == np.int16 and heard(sound) == words
        assert len({int(word) > 20 for word in words}) == 1  # Ben's words are those above 20
        new += not any(text in known for known in texts)
    assert len(made) == 60 and new > 40
    ann = sum(int(text.split()[0]) < 20 for text, _ in made)
    assert 20 < ann < 55  # of whom there are two clips that can be cut, of Ben one
    assert not [*splice.spliced(clips[4:], texts[4:], speakers[4:], places[4:], 9, None)]


def test_cuts_are_quiet_places_between_the_right_words():
    model = ASRModel.from_pretrained("tiny")
    sound, _ = soundfile.read(REPOSITORY / "data" / "sample.flac", dtype="float32")
    text = "she listens to the sea and its waves turn into words"
    found = splice.cuts(model, sound, text)
    assert found[0] == (0, 0) and found[-1] == (len(sound), 11) and len(found) > 3
    assert all(a.sample < b.sample and a.words < b.words for a, b in itertools.pairwise(found))
    for cut in found[1:-1]:
        near = sound[cut.sample - 80 : cut.sample + 80]
        assert np.abs(near).mean() < 0.2 * np.abs(sound).mean()
    pause = next(cut for cut in found if cut.words == 5)  # the comma behind "sea"
    first = model.transcribe(sound[: pause.sample], 16_000)
    assert first.startswith("she listens") and first.endswith("sea")
    assert model.transcribe(sound[pause.sample :], 16_000).startswith("and")


def test_a_pack_of_people_is_read_with_new_sentences(tmp_path):
    rows = pack.table(REPOSITORY / "data" / "speech" / "dev.parquet")[:6]
    for row in rows:
        row["speaker"] = "one"
    pack.people(tmp_path / "people", rows, ASRModel.from_pretrained("tiny"))
    texts, clips = read_pack(tmp_path / "people.json", 1)
    assert texts == [row["text"] for row in rows] and len(clips) == 6
    more, sounds = read_pack(tmp_path / "people.json", 1, new=2.0)
    assert more[:6] == texts and len(more) == len(sounds) == 18
    known = {word for text in texts for word in text.split()}
    assert known.issuperset(word for text in more for word in text.split())
    assert more == read_pack(tmp_path / "people.json", 1, new=2.0)[0]
    pack.people(tmp_path / "plain", rows, None)
    assert read_pack(tmp_path / "plain.json", 1, new=2.0)[0] == texts
