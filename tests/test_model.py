"""The model whole: loss, transcripts, streaming, number formats, devices, modes."""

import warnings

import pytest
import torch
from fixtures_models import (
    ARCHITECTURES,
    ENCODER_DIM,
    LLM_DIM,
    checkpoint_dir,
    decoder_dir,
    encoder_dir,
    human_clips,
    noise,
    pair,
    pair_config,
    some_noises,
    strengthen,
    talkative,
)
from torch.nn.functional import cross_entropy

from tiny_asr import ASRConfig, ASRModel
from tiny_asr.audio import load_audio, split_at_silences
from tiny_asr.shapes import IGNORE

RATE = 16_000
TEXTS = ["the cat sat on the mat", "", "then the other one", "it sat there too"]

both = pytest.mark.parametrize("architecture", ARCHITECTURES)


def training_batch(model, rows=slice(None)):
    return model.processor(some_noises()[rows], TEXTS[rows], RATE)


# The names of the workshop's script ------------------------------------------------------------


def test_the_workshops_script():
    config = ASRConfig.from_pretrained(checkpoint_dir())
    model = ASRModel(config)
    model.eval()
    audio_input = noise(3).double().unsqueeze(0)
    with torch.no_grad():
        encoder_output = model.encode(audio_input, RATE)
        projector_output = model.audio_projector(encoder_output)
    assert encoder_output.shape == (1, 150, config.encoder_dim) == (1, 150, ENCODER_DIM)
    assert projector_output.shape == (1, 30, config.llm_dim) == (1, 30, LLM_DIM)
    assert projector_output.shape[1] == encoder_output.shape[1] // config.audio_downsample_rate
    assert model.config is config
    assert model.device == torch.device("cpu")


# The loss --------------------------------------------------------------------------------------


@both
def test_the_loss_is_over_text_and_end_only(architecture):
    model = pair(architecture)
    batch = training_batch(model)
    with torch.no_grad():
        output = model(**batch)
    labels = batch["labels"]
    assert output.logits.shape == (*labels.shape, model.config.vocab_size)
    assert [int((row != IGNORE).sum()) for row in labels] == [
        len(model.processor.tokenizer.tokenize(text)) + 1 for text in TEXTS
    ]
    by_hand = [
        cross_entropy(logits[labels[row] != IGNORE], labels[row][labels[row] != IGNORE])
        for row, logits in enumerate(output.logits)
    ]
    counts = (labels != IGNORE).sum(dim=1)
    expected = sum(loss * n for loss, n in zip(by_hand, counts, strict=True)) / counts.sum()
    torch.testing.assert_close(output.loss, expected)


def test_more_padding_changes_nothing():
    model = talkative()
    batch = training_batch(model)
    wider = dict(batch, labels=torch.nn.functional.pad(batch["labels"], (0, 5), value=IGNORE))
    with torch.no_grad():
        torch.testing.assert_close(model(**wider).loss, model(**batch).loss)


@both
def test_the_loss_and_gradients_of_a_batch_are_those_of_its_rows(architecture):
    config = talkative(architecture).config
    model, alone = strengthen(ASRModel(config)), strengthen(ASRModel(config))
    batch = training_batch(model)
    counts = (batch["labels"] != IGNORE).sum(dim=1)
    loss = model(**batch).loss
    loss.backward()
    parts = []
    for row in range(len(TEXTS)):
        part = alone(**training_batch(alone, slice(row, row + 1))).loss * counts[row] / counts.sum()
        part.backward()
        parts.append(part.detach())
    torch.testing.assert_close(loss.detach(), sum(parts), atol=1e-4, rtol=0)
    ours = dict(model.audio_projector.named_parameters())
    for name, weight in alone.audio_projector.named_parameters():
        assert weight.grad.abs().max() > 0
        scale = float(weight.grad.abs().max())
        torch.testing.assert_close(ours[name].grad, weight.grad, atol=1e-3 * scale, rtol=0)


def test_the_loss_from_a_cache_of_encoder_outputs():
    model = talkative()
    batch = training_batch(model)
    with torch.no_grad():
        expected = model(**batch)
        encoder_output = model.encoder(batch["input_features"], batch["feature_lengths"])
        output = model(
            encoder_output=encoder_output,
            encoder_lengths=batch["feature_lengths"] // 2,
            labels=batch["labels"],
        )
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(output.logits, expected.logits)


def test_lengths_may_be_left_out_where_no_clip_is_padded():
    model = talkative()
    batch = model.processor([noise(1, 1), noise(1, 2)], ["the cat", "on"], RATE)
    features, labels = batch["input_features"], batch["labels"]
    with torch.no_grad():
        expected = model(**batch).loss
        assert torch.equal(model(input_features=features, labels=labels).loss, expected)
        output = model.encoder(features)
        torch.testing.assert_close(model(encoder_output=output, labels=labels).loss, expected)


def test_forward_needs_labels_and_one_kind_of_sound():
    batch = dict(training_batch(pair()))
    labels = batch.pop("labels")
    for arguments in (
        batch,
        {"labels": labels},
        {"labels": labels, "encoder_output": torch.zeros(4, 5, ENCODER_DIM), **batch},
    ):
        with pytest.raises(ValueError, match="either input_features or encoder_output"):
            pair()(**arguments)


# Transcripts -----------------------------------------------------------------------------------


@both
def test_one_clip_and_many(architecture):
    model = talkative(architecture)
    texts = model.transcribe(some_noises(), RATE)
    assert texts == [model.transcribe(clip, RATE) for clip in some_noises()]
    assert all(isinstance(text, str) and text for text in texts)
    assert len(set(texts)) == 4
    assert model.transcribe(some_noises()[::-1], RATE, batch_size=3) == texts[::-1]
    assert model.transcribe(some_noises()[:1], RATE) == texts[:1]
    assert model.transcribe([]) == []


def test_a_batch_of_speech_is_transcribed_as_its_clips_alone(shared):
    encoder = shared / "weights" / "whisper-tiny.en"
    config = ASRConfig(encoder=encoder, decoder=talkative().config.decoder)
    model = strengthen(ASRModel(config))
    clips = list(human_clips(shared))
    texts = model.transcribe(clips, RATE)
    assert texts == [model.transcribe(clip, RATE) for clip in clips]
    assert len(set(texts)) == len(clips)


@both
def test_a_batch_gives_the_same_tokens_as_its_clips_alone(architecture):
    model = talkative(architecture)
    for clip, row in zip(some_noises(), model.generate(some_noises()), strict=True):
        assert row.tolist() == model.generate([clip])[0].tolist()
        assert len(row) <= -(-len(clip) // 1_600) + 8


def test_the_end_token_is_there_where_it_was_written():
    model = talkative()
    tokens = model.generate(some_noises())
    end_token = model.processor.tokenizer.convert_ids_to_tokens(int(tokens[1][6]))
    config = ASRConfig(encoder=encoder_dir(), decoder=model.config.decoder, end_token=end_token)
    stopping = strengthen(ASRModel(config))
    end = stopping.decoder.end_id
    for before, after in zip(tokens, stopping.generate(some_noises()), strict=True):
        before = before.tolist()
        expected = before[: before.index(end) + 1] if end in before else before
        assert after.tolist() == expected
    assert len(stopping.generate(some_noises())[1]) <= 7


def test_limits_of_the_text():
    model = talkative()
    for row in model.generate(some_noises(), max_new_tokens=3):
        assert len(row) == 3
    assert model.transcribe(noise(1), RATE, max_new_tokens=0) == ""


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": -1}, {"max_new_tokens": -1}])
def test_a_count_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        talkative().transcribe(noise(1), RATE, **options)


def test_sampling():
    def sample(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        rows = talkative().generate(some_noises(), temperature=1.5, generator=generator)
        return [row.tolist() for row in rows]

    assert sample(1) == sample(1) != sample(2)


def test_long_audio_is_the_text_of_its_pieces_joined():
    model, clip = talkative(), torch.cat([noise(20, 1), torch.zeros(8_000), noise(14, 2)])
    pieces = split_at_silences(clip)
    assert len(pieces) == 2
    texts = model.transcribe(pieces, RATE, max_new_tokens=12)
    assert all(texts)
    assert model.transcribe(clip, RATE, max_new_tokens=12) == " ".join(texts)
    many = model.transcribe([noise(1), clip, noise(2)], RATE, max_new_tokens=12)
    assert many[1] == " ".join(texts)


def test_a_checkpoint_can_ask_for_shorter_pieces():
    model = ASRModel.from_pretrained(checkpoint_dir())
    clip = torch.cat([noise(3, 1), torch.zeros(8_000), noise(2, 2)])
    model.config.piece_seconds = 4.0
    pieces = split_at_silences(clip, 4.0)
    assert len(pieces) == 2
    texts = model.transcribe(pieces, RATE, max_new_tokens=12)
    assert model.transcribe(clip, RATE, max_new_tokens=12) == " ".join(texts)
    assert len(model.transcribe(clip, RATE, max_new_tokens=1).split()) <= 2


def test_audio_that_just_does_not_fit_a_rate_is_split_too():
    config = ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(), audio_downsample_rate=7)
    assert isinstance(ASRModel(config).transcribe(noise(29.99), RATE, max_new_tokens=1), str)


@both
@pytest.mark.parametrize("clip", range(4))
def test_a_stream_joined_is_the_transcript(architecture, clip):
    model = talkative(architecture)
    parts = list(model.stream(some_noises()[clip], RATE))
    assert "".join(parts) == model.transcribe(some_noises()[clip], RATE)
    assert len(parts) > 3
    assert all(parts)


def test_a_stream_leaves_gradients_on_between_its_parts():
    stream = talkative().stream(noise(1), RATE)
    next(stream)
    assert torch.is_grad_enabled()
    list(stream)


def test_a_stream_of_long_audio_joined_is_the_transcript():
    model, clip = talkative(), torch.cat([noise(20, 1), torch.zeros(8_000), noise(10, 2)])
    assert "".join(model.stream(clip, RATE)) == model.transcribe(clip, RATE, batch_size=1)


# Number formats, devices, modes ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("auto", torch.float32),
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_number_formats(dtype, expected):
    model = ASRModel.from_pretrained(checkpoint_dir(), dtype=dtype)
    assert model.encoder.dtype == model.decoder.token_embeddings.dtype == expected
    assert all(weight.dtype == torch.float32 for weight in model.audio_projector.parameters())
    assert model.encode(noise(1), RATE).dtype == expected
    assert model.transcribe(some_noises()[:2], RATE)[0]
    assert model(**training_batch(model)).loss.isfinite()


@pytest.mark.parametrize("dtype", ["float8", "int64", "nn", ""])
def test_an_unknown_number_format_is_refused(dtype):
    with pytest.raises(ValueError, match=rf"dtype {dtype!r}; expected .*bfloat16"):
        ASRModel.from_pretrained(checkpoint_dir(), dtype=dtype)


def test_bfloat16_autocast():
    model = strengthen(ASRModel(talkative().config)).train()
    batch = training_batch(model)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
        texts = model.transcribe(some_noises(), RATE)
    loss.backward()
    assert loss.dtype == torch.float32
    with torch.no_grad():
        assert float(loss) == pytest.approx(float(model(**batch).loss), rel=0.1)
    for weight in model.audio_projector.parameters():
        assert weight.grad.dtype == torch.float32
        assert weight.grad.isfinite().all()
    assert all(texts)


def test_everything_moves_to_another_device():
    model = ASRModel(pair_config()).to("meta")
    assert model.device.type == "meta"
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_a_gpu_writes_what_the_cpu_writes():
    model = ASRModel.from_pretrained(checkpoint_dir(), device="cuda", dtype="float32")
    assert model.transcribe(some_noises(), RATE) == talkative().transcribe(some_noises(), RATE)


def test_training_mode_reaches_the_projector_only():
    model = ASRModel(pair_config())
    assert not any(module.training for module in model.modules())
    model.train()
    training = {name for name, module in model.named_modules() if module.training}
    assert training == {"", *(n for n, _ in model.named_modules() if "audio_projector" in n)}
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {n for n, _ in model.named_parameters() if n.startswith("audio_projector.")}


def test_what_may_be_doubted_in_a_sound_is_told_when_it_is_loaded_and_not_again():
    silence = torch.zeros(16_000)
    with pytest.warns(UserWarning, match="digital silence"):
        loaded = load_audio(silence.numpy(), 16_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair().transcribe(loaded, 16_000, max_new_tokens=1)
    with pytest.warns(UserWarning, match="digital silence"):
        pair().transcribe(silence.numpy(), 16_000, max_new_tokens=1)
