"""The program that measures times of words: which words it compares, and clips that it makes."""

from itertools import pairwise
from shutil import which

import numpy as np
import pytest

from recipes.voices import ESPEAK, FLITE
from recipes.word_times import PAUSE, apart, clips, errors, fluent
from tiny_asr.search.words import Word


def test_only_words_that_were_written_as_they_were_said_are_compared():
    said = [Word("one", 0.1, 0.4), Word("two", 0.5, 0.9), Word("three", 1.0, 1.5)]
    found = [Word("one", 0.2, 0.4), Word(" too", 0.4, 0.8), Word(" a", 0.8, 0.9)]
    found.append(Word(" three", 0.9, 1.25))
    assert np.allclose(errors(said, found), [(0.1, 0.0), (-0.1, -0.25)])
    assert errors(said, []) == []


@pytest.mark.skipif(not (which(FLITE) and which(ESPEAK)), reason="needs flite and espeak-ng")
@pytest.mark.parametrize("make", [apart, fluent])
def test_the_borders_are_where_sound_begins_and_ends(make):
    for clip in clips(make, 2, seed=3):
        sound = clip.waveform.numpy()
        times = [time for word in clip.words for time in (word.begin, word.end)]
        assert times == sorted(times) and times[0] > 0 and times[-1] * 16_000 <= len(sound)
        for word in clip.words:
            assert np.abs(sound[int(word.begin * 16_000) : int(word.end * 16_000)]).max() > 0.02
        if make is apart:
            gaps = np.array(times[2::2]) - times[1:-1:2]
            assert (gaps > PAUSE[0] - 0.001).all() and (gaps < PAUSE[1] + 0.001).all()
            for before, after in pairwise(clip.words):
                quiet = sound[int(before.end * 16_000) + 1 : int(after.begin * 16_000)]
                assert np.abs(quiet).max() < 0.03
