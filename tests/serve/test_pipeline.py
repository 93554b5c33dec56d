"""`pipeline("automatic-speech-recognition", ...)` with our class: what others know of it, works."""

import io

import pytest
import soundfile
import torch
from fixtures_models import checkpoint_dir, noise, some_noises, talkative
from transformers import pipeline

from tiny_asr import ASRModel, ASRPipeline, puzzle_clip, sample_clip
from tiny_asr.hub import data_dir

RATE = 16_000


def flac(waveform: torch.Tensor) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform.numpy(), RATE, format="FLAC", subtype="PCM_24")
    return file.getvalue()


@pytest.fixture(scope="module")
def pipe():
    return pipeline(
        "automatic-speech-recognition", model=str(checkpoint_dir()), pipeline_class=ASRPipeline
    )


def test_the_pipeline_gives_transcribes_text(pipe, tmp_path):
    clip = noise(1.3)
    (tmp_path / "clip.flac").write_bytes(flac(clip))
    expected = talkative().transcribe(tmp_path / "clip.flac")
    assert expected
    for source in (
        str(tmp_path / "clip.flac"),
        tmp_path / "clip.flac",
        flac(clip),
        {"bytes": flac(clip), "path": None},
    ):
        assert pipe(source) == {"text": expected}


def test_the_pipeline_takes_arrays(pipe):
    clip = noise(1.3)
    expected = {"text": talkative().transcribe(clip, RATE)}
    assert pipe({"array": clip.numpy(), "sampling_rate": RATE}) == expected
    assert pipe(clip.numpy(), sampling_rate=RATE) == expected
    with pytest.raises(ValueError, match="without sampling_rate"):
        pipe(clip.numpy())


def test_the_pipeline_takes_many(pipe):
    clips = [{"array": clip.numpy(), "sampling_rate": RATE} for clip in some_noises()[:3]]
    texts = [result["text"] for result in pipe(clips)]
    assert texts == talkative().transcribe(clips)
    assert len(set(texts)) == 3


def test_the_pipelines_options(pipe):
    clip = {"array": noise(1.3), "sampling_rate": RATE}
    short = talkative().transcribe(clip, max_new_tokens=4)
    assert pipe(clip, max_new_tokens=4) == {"text": short} != pipe(clip)


def test_options_that_are_set_when_the_pipeline_is_made_stay_set():
    pipe = pipeline(
        "automatic-speech-recognition",
        model=talkative(),
        pipeline_class=ASRPipeline,
        sampling_rate=RATE,
        max_new_tokens=4,
    )
    expected = talkative().transcribe(noise(1.3), RATE, max_new_tokens=4)
    assert pipe(noise(1.3).numpy()) == {"text": expected}


def test_the_pipeline_takes_long_audio(pipe):
    clip = {"array": noise(31.0), "sampling_rate": RATE}
    text = talkative().transcribe(clip, max_new_tokens=3)
    assert pipe(clip, max_new_tokens=3) == {"text": text}


def test_clips_come_as_dicts_of_both_kinds_and_from_generators(pipe):
    clips = [noise(1.3), noise(2.1), noise(1.7)]
    expected = [{"text": text} for text in talkative().transcribe(clips, RATE)]
    for name in ("raw", "array"):
        rows = [{name: clip.numpy(), "sampling_rate": RATE} for clip in clips]
        for batch_size in (1, 2, 8):
            assert pipe(rows, batch_size=batch_size) == expected
        assert list(pipe((row for row in rows), batch_size=2)) == expected


def test_beams_and_hints_by_name_and_as_generation_options(pipe):
    clip, options = noise(1.3), {"beams": 3, "hints": ["the cat", "on"]}
    text = talkative().transcribe(clip, RATE, **options)
    assert text != talkative().transcribe(clip, RATE)
    assert pipe(clip.numpy(), sampling_rate=RATE, **options) == {"text": text}
    assert pipe(clip.numpy(), sampling_rate=RATE, generate_kwargs=options) == {"text": text}


def test_times_of_words_as_transformers_gives_them():
    model = ASRModel.from_pretrained("tiny")
    pipe = pipeline("automatic-speech-recognition", model=model, pipeline_class=ASRPipeline)
    files = [str(sample_clip()), str(puzzle_clip())]
    expected = model.transcribe(files, words=True)
    for batch_size in (1, 2):
        answers = pipe(files, batch_size=batch_size, return_timestamps="word")
        for answer, (text, words) in zip(answers, expected, strict=True):
            assert answer.keys() == {"text", "chunks"} and answer["text"] == text
            assert [(c["text"], *c["timestamp"]) for c in answer["chunks"]] == words
            assert isinstance(answer["chunks"][0]["timestamp"], tuple)
    assert pipe(files[0], return_timestamps="word") == answers[0]
    assert pipe(files[0]) == pipe(files[0], return_timestamps=False) == {"text": expected[0].text}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"return_timestamps": True}, "return_timestamps True came; expected 'word' or False"),
        ({"chunk_length_s": 30}, "chunk_length_s came; expected .*generate_kwargs"),
        ({"generate_kwargs": {"num_beams": 2}}, "num_beams came; expected .*beams"),
    ],
)
def test_an_option_that_is_not_here_is_refused(pipe, options, says):
    with pytest.raises(ValueError, match=says):
        pipe(noise(1).numpy(), sampling_rate=RATE, **options)


def test_the_stock_pipeline_says_which_class_to_name(tmp_path):
    """It takes models that it does not know for CTC. (Of a model instead of a folder it asks for a
    tokenizer before any code of ours runs.)"""
    talkative().save_pretrained(tmp_path)
    for place in (tmp_path, data_dir() / "models" / "tiny-asr"):
        with pytest.raises(ValueError, match="pass pipeline_class=tiny_asr"):
            pipeline("automatic-speech-recognition", model=str(place))
