"""The processor: transformers' conventions, on our own audio loading."""

import io

import pytest
import soundfile
import torch
from fixtures_models import (
    ARCHITECTURES,
    checkpoint_dir,
    human_clips,
    noise,
    pair,
    some_noises,
    talkative,
)
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

from tiny_asr import ASRModel, ASRProcessor
from tiny_asr.shapes import IGNORE

RATE = 16_000


def flac(waveform: torch.Tensor) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform.numpy(), RATE, format="FLAC", subtype="PCM_24")
    return file.getvalue()


# Features --------------------------------------------------------------------------------------


def assert_batch_equals_alone(clips) -> None:
    processor = pair().processor
    batch = processor(list(clips), sampling_rate=RATE)
    assert batch["input_features"].shape == (len(clips), 80, int(batch["feature_lengths"].max()))
    assert batch["input_features"].dtype == torch.float32
    for row, clip in enumerate(clips):
        alone = processor(clip, sampling_rate=RATE)
        length = int(alone["feature_lengths"][0])
        assert length == batch["feature_lengths"][row] == -(-len(clip) // 1_600) * 10
        features = batch["input_features"][row]
        torch.testing.assert_close(
            features[:, :length], alone["input_features"][0], atol=1e-5, rtol=0
        )
        assert not features[:, length:].any()


def test_the_log_mel_of_a_batch_is_that_of_its_clips_alone():
    assert_batch_equals_alone(some_noises())


def test_the_log_mel_of_a_batch_of_speech_is_that_of_its_clips_alone(shared):
    assert_batch_equals_alone(human_clips(shared))


def test_features_are_what_the_model_encodes():
    model, clips = pair(), some_noises()
    batch = model.processor(clips, sampling_rate=RATE)
    with torch.no_grad():
        output = model.encoder(batch["input_features"], batch["feature_lengths"])
    for row, clip in enumerate(clips):
        alone = model.encode(clip, RATE)[0]
        torch.testing.assert_close(output[row, : len(alone)], alone, atol=1e-4, rtol=0)


def test_it_takes_whatever_load_audio_takes(tmp_path):
    clip = noise(1)
    (tmp_path / "clip.flac").write_bytes(flac(clip))
    expected = pair().processor(clip, sampling_rate=RATE)["input_features"]
    sources = [
        tmp_path / "clip.flac",
        str(tmp_path / "clip.flac"),
        flac(clip),
        io.BytesIO(flac(clip)),
        {"bytes": flac(clip), "path": None},
        {"array": clip.numpy(), "sampling_rate": RATE},
    ]
    for source in sources:
        features = pair().processor(source)["input_features"]
        torch.testing.assert_close(features, expected, atol=1e-3, rtol=0)


def test_one_rate_serves_a_list_of_arrays():
    batch = pair().processor([noise(1)[::2].numpy(), noise(2)[::2]], sampling_rate=8_000)
    assert batch["feature_lengths"].tolist() == [100, 200]


# Labels and text -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_labels_are_the_text_and_the_end_token(architecture):
    processor = pair(architecture).processor
    texts = ["the cat sat", "", "it's 3 o'clock"]
    labels = processor(text=texts)["labels"]
    end = processor.tokenizer.convert_tokens_to_ids(processor.end_token)
    for row, text in zip(labels, texts, strict=True):
        own = row[row != IGNORE]
        assert own[-1] == end
        assert (own == end).sum() == 1
        assert processor.tokenizer.decode(own[:-1]) == text  # no begin-of-text token either
        assert processor.decode(own) == text
        assert (row[len(own) :] == IGNORE).all()
    assert labels.shape == (3, max(len(processor.tokenizer.tokenize(t)) for t in texts) + 1)


def test_one_text_is_a_batch_of_one():
    assert pair().processor(text="the cat")["labels"].shape[0] == 1


def test_audio_and_text_make_a_training_batch():
    batch = pair().processor(some_noises()[:2], ["the cat", "sat"], RATE)
    assert set(batch) == {"input_features", "feature_lengths", "labels"}
    assert pair()(**batch).loss.isfinite()


def test_batch_decode():
    processor = pair().processor
    rows = [[259, 1], torch.tensor([1]), torch.tensor([279, 280, 1])]
    assert processor.batch_decode(rows) == [processor.decode(row) for row in rows]
    assert processor.decode([1]) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither audio nor text came"),
        (
            {"audio": [torch.zeros(99)], "text": ["a", "b"], "sampling_rate": RATE},
            "1 clips.* 2 texts came",
        ),
        ({"audio": []}, "empty list"),
        ({"audio": torch.zeros(99)}, "without sampling_rate"),
        ({"audio": [0.1, 0.2], "sampling_rate": RATE}, "cannot load audio from a float"),
        ({"audio": torch.zeros(31 * RATE), "sampling_rate": RATE}, "at most 30 s"),
        ({"audio": "nowhere.wav"}, "cannot read 'nowhere.wav'"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        pair().processor(**arguments)


def test_saved_and_loaded_it_does_the_same():
    original = talkative().processor
    for loaded in (
        AutoProcessor.from_pretrained(checkpoint_dir()),
        ASRProcessor.from_pretrained(checkpoint_dir()),
    ):
        assert type(loaded) is ASRProcessor
        a, b = (p(some_noises()[:2], ["the cat", "on"], RATE) for p in (original, loaded))
        assert all(torch.equal(a[key], b[key]) for key in a)
        assert loaded.end_token == original.end_token
        assert loaded.audio_downsample_rate == original.audio_downsample_rate
        assert loaded.decode([259, 1]) == original.decode([259, 1])


def test_the_auto_class_of_the_pipelines_task():
    assert type(AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint_dir())) is ASRModel
