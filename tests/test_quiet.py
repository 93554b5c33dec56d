"""Quiet beside speech changes nothing: before, after and between words, of zeros or of noise."""

from functools import cache

import pytest
import torch
from fixtures_models import noise

from recipes.quiet import EDGES, LEVELS, choose, conditions, quiet
from tiny_asr import ASRModel, load_audio, sample_clip, trace_clip
from tiny_asr.audio import leave_out_quiet
from tiny_asr.evaluation.score import Row, score

RATE = 16_000
NATURAL = int(0.7 * RATE)  # as much quiet as read speech has at its edges


@cache
def tiny() -> ASRModel:
    return ASRModel.from_pretrained("tiny")


@cache
def made(count: int = 9) -> tuple[list[torch.Tensor], list[str]]:
    """Bundled clips of each family of voices, and what is said in them."""
    clips = choose("made", count)
    return [clip.load() for clip in clips], [clip.text for clip in clips]


@cache
def clean() -> torch.Tensor:
    return load_audio(sample_clip())


def audible(clip: torch.Tensor) -> torch.Tensor:
    """A clip without the faint samples at its ends, which nobody could tell from quiet."""
    (loud,) = (clip.abs() > 1e-3).nonzero(as_tuple=True)
    return clip[loud[0] : loud[-1] + 1]


def lies_in(clip: torch.Tensor, sound: torch.Tensor) -> bool:
    """Whether all of a clip's samples lie in a sound, in one stretch."""
    return any(
        torch.equal(sound[start : start + len(clip)], clip)
        for start in (sound == clip[0]).nonzero().flatten().tolist()
    )


# What is cut -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", EDGES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("number", range(4))
def test_quiet_edges_are_shortened_and_no_sample_of_the_clip_is_lost(number, level, seconds):
    clip, sound = audible(made()[0][number]), quiet(level, seconds, number)
    for whole in ((sound, clip), (clip, sound), (sound, clip, sound.flip(0))):
        (part,) = leave_out_quiet(torch.cat(whole))
        assert lies_in(clip, part)
        assert len(part) < len(clip) + NATURAL


def test_clips_as_they_come_are_left_whole():
    for clip in (clean(), noise(3), *made()[0]):
        (part,) = leave_out_quiet(clip)
        assert torch.equal(part, clip)


@pytest.mark.parametrize(
    "sound",
    (
        torch.zeros(10 * RATE),
        quiet("-60 dB", 10, 0),
        quiet("-40 dB", 10, 0),
        0.3 * torch.sin(torch.arange(5 * RATE) / 10),
        torch.zeros(5 * RATE).index_fill(0, torch.tensor([40_000]), 1.0),  # one click
        torch.ones(100),
    ),
    ids=("zeros", "-60 dB", "-40 dB", "tone", "click", "short"),
)
def test_a_clip_without_contrast_is_left_whole(sound):
    (part,) = leave_out_quiet(sound)
    assert torch.equal(part, sound)


def test_soft_speech_beside_loud_is_not_quiet():
    loud, soft = made()[0][0], 0.03 * made()[0][1]  # 30 dB lower
    for order in ((loud, soft), (soft, loud)):
        assert torch.equal(torch.cat(leave_out_quiet(torch.cat(order))), torch.cat(order))


def test_one_spike_does_not_make_speech_quiet():
    whole = torch.cat((quiet("-60 dB", 2, 0), clean()))
    whole[40_000] = 1000.0
    (part,) = leave_out_quiet(whole)
    assert len(clean()) <= len(part) < len(clean()) + NATURAL


@pytest.mark.parametrize("level", LEVELS)
def test_a_pause_is_cut_at_both_ends(level):
    clips, pause = made()[0][:3], quiet(level, 3, 1)
    parts = leave_out_quiet(torch.cat((clips[0], pause, clips[1], pause, clips[2])))
    assert len(parts) == 3
    for part, clip in zip(parts, clips, strict=True):
        assert lies_in(audible(clip), part)
        assert len(part) < len(clip) + NATURAL
        assert torch.equal(torch.cat(leave_out_quiet(part)), part)  # nothing long is left


# What is heard -----------------------------------------------------------------------------------


def test_quiet_of_every_kind_and_length_changes_no_rate():
    """The longest of the table in the model cards, on few clips; the recipe measures all."""
    rates, (clips, texts) = {}, made()
    for name, files, said in conditions(clips[3:], texts[3:]):
        if not name.startswith(("clean", "4 s", "long files, pauses of 2 s")):
            continue
        heard = tiny().transcribe(files, RATE, batch_size=16)
        rows = [
            Row(str(i), text, written, 0.0)
            for i, (text, written) in enumerate(zip(said, heard, strict=True))
        ]
        result = score(rows, seconds_elapsed=None, device="cpu", dtype="float32", resamples=2)
        rates[name] = (result.wer.value, result.empty.value)
    assert len(rates) == 1 + 2 * len(LEVELS) + len(LEVELS)
    usual, empty = rates.pop("clean")
    assert empty == 0
    assert {n: r for n, r in rates.items() if r[0] > usual + 0.03 or r[1]} == {}


def test_a_clip_with_quiet_reads_the_same_in_a_batch_alone_and_streamed():
    sound = torch.cat((quiet("-60 dB", 2, 0), clean(), quiet("zeros", 2, 0), clean()))
    alone = tiny().transcribe(sound, RATE)
    assert tiny().transcribe([clean(), sound, noise(1)], RATE)[1] == alone
    assert "".join(tiny().stream(sound, RATE)) == alone


@pytest.mark.parametrize("level", LEVELS)
def test_whether_anybody_speaks_is_the_models_to_say(level):
    assert tiny().transcribe(quiet(level, 5, 0), RATE) == ""


def test_the_trace_says_what_was_left_out():
    trace = trace_clip(tiny(), torch.cat((torch.zeros(3 * RATE), clean())), RATE)
    assert trace.quiet_seconds == pytest.approx(2.8, abs=0.1)
    assert trace.seconds_of_audio + trace.quiet_seconds == pytest.approx(3 + len(clean()) / RATE)
    assert str(trace).startswith(f"quiet left out     {trace.quiet_seconds:.2f} s of 5.99 s\n")
    usual = trace_clip(tiny(), clean(), RATE)
    assert trace.text == tiny().transcribe(torch.cat((torch.zeros(3 * RATE), clean())), RATE)
    assert usual.quiet_seconds == 0
    assert not str(usual).startswith("quiet left out")
