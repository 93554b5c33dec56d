"""The notebook's recorder, from the message that a browser sends to the waveform."""

import re

import numpy as np
import pytest
import torch
from fixtures_models import noise

from tiny_asr.course.recorder import VoiceRecorder
from tiny_asr.files.levels import require_sound


def receive(recorder: VoiceRecorder, samples: bytes, source: str = "the microphone") -> None:
    """Hand over what JupyterLab does when the page calls `model.send`."""
    data = {"method": "custom", "content": {"source": source}}
    recorder._handle_msg({"content": {"data": data}, "buffers": [memoryview(samples)]})


@pytest.fixture
def recorder() -> VoiceRecorder:
    return VoiceRecorder()


def test_before_a_clip_there_is_none(recorder):
    assert recorder.waveform is None
    assert "Record" in recorder.status


def test_a_clip_arrives_sample_by_sample(recorder):
    clip = noise(1.25)
    receive(recorder, clip.numpy().astype("<f4").tobytes())
    assert torch.equal(recorder.waveform, clip)
    assert recorder.waveform.dtype == torch.float32
    assert recorder.status == "1.2 s from the microphone. Now run the cells below."
    recorder.waveform[0] = 0  # it is the student's own, not a view of the message


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        (b"", "empty"),
        (b"abc", "multiple of element size"),
        (np.array([0.5, np.nan], "<f4").tobytes(), "1 NaN or Inf"),
        (np.full(16_000, 0.0009, "<f4").tobytes(), "only silence came.*muted"),
    ],
)
def test_a_bad_clip_is_explained_and_takes_the_last_one_away(recorder, samples, complaint):
    receive(recorder, noise(1).numpy().tobytes())
    receive(recorder, samples, "clip.wav")
    assert recorder.waveform is None, "the next cell would follow another clip than the last"
    assert recorder.status.startswith("clip.wav: ")
    assert re.search(complaint, recorder.status)


def test_the_page_hears_of_every_clip_even_if_the_answer_is_the_same(recorder):
    said = []
    recorder.observe(lambda change: said.append(change.new), "status")
    for _ in range(2):
        receive(recorder, noise(1).numpy().tobytes())
    assert len([words for words in said if words]) == 2


def test_a_voice_is_no_part_of_the_state_that_is_saved_with_a_notebook(recorder):
    before = recorder.get_state().keys()
    receive(recorder, noise(1).numpy().tobytes())
    state = recorder.get_state()
    assert state.keys() == before
    assert max(len(str(value)) for name, value in state.items() if name != "_esm") < 1000


def test_the_page_knows_the_rate_and_the_longest_clip(recorder):
    assert (recorder.sampling_rate, recorder.max_seconds) == (16_000, 30)
    assert "getUserMedia" in recorder.get_state()["_esm"]


def test_it_is_one_stable_line_of_text_where_nothing_runs(recorder):
    data, _ = recorder._repr_mimebundle_()
    assert data["text/plain"] == VoiceRecorder()._repr_mimebundle_()[0]["text/plain"]
    assert "microphone" in data["text/plain"]


def test_quiet_speech_is_sound_and_a_muted_microphone_is_not():
    quiet = 0.005 * noise(1) / noise(1).abs().max()
    assert require_sound(quiet) is quiet
    with pytest.raises(ValueError, match=r"16,000 samples is 0, .* at least 0\.001: .* muted"):
        require_sound(torch.zeros(16_000))
