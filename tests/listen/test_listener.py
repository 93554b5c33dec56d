"""A recording that goes on: text comes before its end, and in the end it is `transcribe`'s."""

from functools import cache
from itertools import pairwise

import pytest
import torch
from fixtures_models import noise, talkative

from tiny_asr import ASRModel, load_audio, sample_clip
from tiny_asr.audio import timed_pieces
from tiny_asr.hub import data_dir
from tiny_asr.listen import listener as module
from tiny_asr.listen.listener import Heard, Listener

RATE = 16_000


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """A machine on which no step takes any time, however busy this one is."""
    monkeypatch.setattr(module.time, "perf_counter", lambda: 0.0)


@cache
def tiny() -> ASRModel:
    return ASRModel.from_pretrained("tiny")


@cache
def sample() -> torch.Tensor:
    return load_audio(sample_clip())


def quiet(seconds: float) -> torch.Tensor:
    return 1e-3 * torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(0))


def pauses(*seconds: float) -> torch.Tensor:
    """The sample, again after each pause."""
    return torch.cat([sample(), *(torch.cat([quiet(pause), sample()]) for pause in seconds)])


RECORDINGS = {
    "the sample": sample,
    "the puzzle": lambda: load_audio(data_dir() / "puzzle.flac"),
    "digital silence": lambda: torch.zeros(3 * RATE),
    "a moment": lambda: sample()[8000:8100],
    "long pauses": lambda: pauses(1.5, 4.0, 1.0),
    "a short answer after a pause": lambda: torch.cat([sample(), quiet(2), sample()[: RATE // 2]]),
    "louder in the end": lambda: torch.cat([0.01 * pauses(1.5, 2.0), torch.zeros(RATE), sample()]),
}


def heard(waveform: torch.Tensor, size: int, model: ASRModel) -> tuple[list[Heard], str]:
    listener = Listener(model)
    return [listener.hear(block) for block in waveform.split(size)], listener.finish()


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_text_is_that_of_the_whole_recording(name):
    waveform = RECORDINGS[name]()
    steps, text = heard(waveform, 11_111, tiny())
    assert text == tiny().transcribe(waveform, RATE)
    assert all(after.final.startswith(before.final) for before, after in pairwise(steps))


@pytest.mark.parametrize("size", [1_777, 4_801, 10**6])
def test_blocks_of_any_size_give_the_same_text(size):
    waveform = pauses(1.2, 0.9)
    steps, text = heard(waveform, size, talkative())
    assert text == talkative().transcribe(waveform, RATE) != ""
    assert steps[-1].seconds <= len(waveform) / RATE


def test_words_come_before_the_end_and_may_change():
    steps, text = heard(sample(), 1_600, tiny())
    texts = [step.tentative for step in steps]
    assert texts[9].startswith("she listen")  # after a second
    assert not any(step.final for step in steps) and len(set(texts)) > 3
    assert any(not text.startswith(tentative) for tentative in texts)


def test_what_is_final_before_the_end_is_so_in_the_end():
    waveform = pauses(1.5, 4.0, 1.0)
    steps, text = heard(waveform, 4_000, tiny())
    assert text.startswith(steps[-1].final) and len(steps[-1].final.split()) >= 22
    first = next(step for step in steps if step.final)
    (_, _, end), (_, begin, _), *_ = timed_pieces(waveform, 30)
    assert end < begin + 2 < first.seconds < begin + 4  # until 2 s more, what comes may be joined


def test_without_a_pause_what_fills_a_piece_becomes_final():
    waveform = torch.cat([sample()[:45_000]] * 12)  # 33 s, 3.75 s a block
    steps, text = heard(waveform, 60_000, tiny())
    assert tiny().config.max_seconds == 15 and steps[3].seconds == 15
    assert not steps[3].final and steps[4].final
    assert text == tiny().transcribe(waveform, RATE)


def test_sound_that_came_during_a_step_is_read_at_once_by_the_next(monkeypatch):
    """A clock in which each step takes a second: steps are left out, sound is not."""
    clock = iter(range(10**6))
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    steps, text = heard(pauses(1.0), 1_600, talkative())
    seconds = sorted({step.seconds for step in steps} - {0})
    assert seconds[0] == pytest.approx(0.3)
    assert all(after - before == pytest.approx(1, abs=0.11) for before, after in pairwise(seconds))
    assert text == talkative().transcribe(pauses(1.0), RATE)


def test_memory_holds_what_is_open_and_nothing_is_read_twice(monkeypatch):
    """Half an hour with a sentence a minute: what a step cuts is short."""
    cut = []
    monkeypatch.setattr(
        module, "timed_pieces", lambda sound, *a: cut.append(len(sound)) or timed_pieces(sound, *a)
    )
    monkeypatch.setattr(module, "STEP", 20.0)
    listener = Listener(talkative())
    minute = torch.cat([noise(3.0), quiet(57)])
    for _ in range(30):
        for block in minute.split(20 * RATE):
            listener.hear(block)
    assert max(cut) <= 150 * RATE
    assert len(listener._texts) <= 40


def test_without_sound_there_is_no_text():
    assert Listener(talkative()).finish() == ""
    assert Listener(talkative()).hear(torch.zeros(0)) == Heard()


@pytest.mark.parametrize(
    ("block", "complaint"),
    [(torch.zeros(2, 8), r"of shape \(2, 8\)"), (torch.tensor([0.0, torch.nan]), "NaN or Inf")],
)
def test_a_wrong_block_is_refused(block, complaint):
    with pytest.raises(ValueError, match=f"{complaint}.* came; expected finite samples"):
        Listener(talkative()).hear(block)


def test_beams_and_hints_are_those_of_transcribe():
    waveform, search = noise(1.5), {"beams": 3, "hints": ["the cat"]}
    listener = Listener(talkative(), **search)
    listener.hear(waveform)
    assert listener.finish() == talkative().transcribe(waveform, RATE, **search)
    assert listener.finish() != talkative().transcribe(waveform, RATE)
