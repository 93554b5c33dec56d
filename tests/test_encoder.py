"""The encoder: Whisper's own numbers on 30 s; at any length, a clip's own in any company."""

import logging

import pytest
import torch
from fixtures_models import ENCODER_DIM, encoder_dir, human_clips, noise, pair, some_noises
from safetensors.torch import load_file
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from tiny_asr import AudioEncoder
from tiny_asr.audio import log_mel, pad_batch
from tiny_asr.encoder import HUB_PREFIX, EncoderOfCheckpoint
from tiny_asr.shapes import MAX_SAMPLES, frame_mask

TOLERANCE = 1e-4
EMBEDDING = 1_600  # samples behind one audio embedding at the default rate


def load(directory) -> AudioEncoder:
    return AudioEncoder(EncoderOfCheckpoint.from_pretrained(directory, key_mapping=HUB_PREFIX))


def stock_output(directory, mel: torch.Tensor) -> torch.Tensor:
    """What the encoder of transformers itself makes of 3000 frames."""
    stock = WhisperEncoder.from_pretrained(directory, key_mapping=HUB_PREFIX).eval()
    with torch.no_grad():
        return stock(mel).last_hidden_state


@torch.no_grad()
def listen(encoder: AudioEncoder, clips, bins: int) -> list[torch.Tensor]:
    """Clips (S,) in one batch -> each clip's own frames."""
    padded, lengths = pad_batch(clips, EMBEDDING)
    output = encoder(log_mel(padded, bins, lengths), lengths // 160)
    return [row[: length // 320] for row, length in zip(output, lengths, strict=True)]


def furthest(rows, others) -> float:
    """The largest difference between two lists of tensors of the same shapes."""
    assert [row.shape for row in rows] == [other.shape for other in others]
    return max(float((a - b).abs().max()) for a, b in zip(rows, others, strict=True))


@pytest.fixture(scope="module")
def real(shared):
    return shared / "weights" / "whisper-tiny.en"


@pytest.mark.parametrize("bins", [80, 128])
def test_equals_the_stock_encoder_on_30_s(bins):
    directory = encoder_dir(bins)
    mel = torch.randn(2, bins, 3_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = load(directory)(mel)
    assert output.shape == (2, 1_500, ENCODER_DIM)
    torch.testing.assert_close(output, stock_output(directory, mel), atol=TOLERANCE, rtol=0)


def test_equals_the_stock_encoder_on_30_s_with_real_weights(shared, real):
    speech = torch.cat(human_clips(shared, 6)).repeat(2)[:MAX_SAMPLES]
    mel = log_mel(speech[None], 80)
    with torch.no_grad():
        output = load(real)(mel)
    assert output.shape == (1, 1_500, 384)
    torch.testing.assert_close(output, stock_output(real, mel), atol=TOLERANCE, rtol=0)


def test_every_weight_is_the_checkpoints_own():
    stored = load_file(encoder_dir() / "model.safetensors")
    weights = load(encoder_dir()).whisper.state_dict()
    assert len(weights) == sum("encoder." in key for key in stored) > 20
    for key, weight in weights.items():
        assert torch.equal(weight, stored[f"model.encoder.{key}"]), key


def test_a_whole_checkpoint_loads_without_a_word_about_its_decoder(caplog, capfd):
    with caplog.at_level(logging.WARNING, logger="transformers"):
        load(encoder_dir())
    assert "decoder" not in caplog.text + capfd.readouterr().err


def test_a_batch_of_mixed_lengths_equals_its_clips_alone():
    clips, encoder = some_noises(), pair().encoder
    alone = [listen(encoder, [clip], 80)[0] for clip in clips]
    assert furthest(listen(encoder, clips, 80), alone) < TOLERANCE
    assert furthest(listen(encoder, clips[::-1], 80)[::-1], alone) < TOLERANCE


def test_a_batch_of_mixed_lengths_equals_its_clips_alone_with_real_weights(shared, real):
    encoder = load(real)
    clips = [human_clips(shared)[0], human_clips(shared)[1][:20_001], human_clips(shared)[2]]
    alone = [listen(encoder, [clip], 80)[0] for clip in clips]
    assert furthest(listen(encoder, clips, 80), alone) < TOLERANCE


def test_without_their_lengths_padded_clips_come_out_wrong():
    """So the test above can fail: padding alone is not enough."""
    padded, lengths = pad_batch(some_noises()[:2], EMBEDDING)
    mel, encoder, own = log_mel(padded, 80, lengths), pair().encoder, int(lengths[0]) // 320
    with torch.no_grad():
        right, wrong = encoder(mel, lengths // 160)[0, :own], encoder(mel)[0, :own]
    assert (right - wrong).abs().max() > 100 * TOLERANCE


def test_what_lies_beyond_a_clips_end_does_not_matter():
    padded, lengths = pad_batch(some_noises()[:2], EMBEDDING)
    mel, encoder, own = log_mel(padded, 80, lengths), pair().encoder, int(lengths[0]) // 320
    filled = mel.clone()
    filled[0, :, 2 * own :] = -1.5  # another feature extractor's silence
    with torch.no_grad():
        expected, output = encoder(mel, lengths // 160), encoder(filled, lengths // 160)
    torch.testing.assert_close(output[0, :own], expected[0, :own], atol=TOLERANCE, rtol=0)


def test_lengths_may_be_left_out_where_no_clip_is_padded():
    mel, encoder = log_mel(noise(1).repeat(2, 1), 80), pair().encoder
    with torch.no_grad():
        assert torch.equal(encoder(mel), encoder(mel, torch.tensor([100, 100])))


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(1, 5), (1_600, 5), (1_601, 10), (47_999, 150), (48_000, 150), (48_001, 155)],
)
def test_encode_drops_no_frame(samples, frames):
    output = pair().encode(noise(3.5)[:samples], 16_000)
    assert output.shape == (1, frames, ENCODER_DIM)
    assert pair().audio_projector(output).shape[1] == frames // 5 == -(-samples // 1_600)


def test_encode_takes_up_to_30_s():
    assert pair().encode(noise(30), 16_000).shape == (1, 1_500, ENCODER_DIM)
    with pytest.raises(ValueError, match=r"30\.00 s; expected at most 30 s"):
        pair().encode(torch.zeros(MAX_SAMPLES + 1), 16_000)


def test_encode_takes_a_batch():
    rows = torch.stack([noise(1, 1), noise(1, 2)])
    together = pair().encode(rows, 16_000)
    assert together.shape == (2, 50, ENCODER_DIM)
    alone = torch.cat([pair().encode(row, 16_000) for row in rows])
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)


def test_encode_is_log_mel_and_the_encoder():
    padded, lengths = pad_batch([noise(1.05)], EMBEDDING)
    with torch.no_grad():
        expected = pair().encoder(log_mel(padded, 80, lengths))
    torch.testing.assert_close(pair().encode(noise(1.05), 16_000), expected)


def test_encode_batch_gives_each_clips_own_frames():
    padded, lengths = pad_batch(some_noises(), EMBEDDING)
    output, frames = pair().encode_batch(padded, lengths)
    assert frames.tolist() == [30, 55, 90, 120]
    assert output.shape == (4, 120, ENCODER_DIM)
    alone = [pair().encode(clip, 16_000)[0] for clip in some_noises()]
    own = [row[:n] for row, n in zip(output, frames, strict=True)]
    assert furthest(own, alone) < TOLERANCE


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-5), (torch.float16, 0.05), (torch.bfloat16, 0.3)],
)
def test_encode_takes_any_float(dtype, tolerance):
    clip = noise(1)
    output = pair().encode(clip.to(dtype), 16_000)
    assert output.dtype == torch.float32
    expected = pair().encode(clip, 16_000)
    torch.testing.assert_close(output, expected, atol=tolerance, rtol=0)


def test_encode_resamples():
    assert pair().encode(noise(3)[::2], 8_000).shape == (1, 150, ENCODER_DIM)


def test_it_is_frozen_and_stays_in_eval_mode():
    encoder = load(encoder_dir()).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert not encoder(torch.zeros(1, 80, 10)).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_batch_and_alone_together(dtype):
    encoder = load(encoder_dir()).to(dtype)
    assert encoder.dtype == dtype
    clips = some_noises()[:2]
    alone = [listen(encoder, [clip], 80)[0] for clip in clips]
    rows = listen(encoder, clips, 80)
    assert rows[0].dtype == dtype
    assert furthest([row.float() for row in rows], [row.float() for row in alone]) < 0.1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((80, 100), r"\(80, 100\) came; expected \(B, 80, F\)"),
        ((1, 128, 100), r"\(1, 128, 100\) came; expected \(B, 80, F\).*80 mel bins"),
        ((1, 80, 101), "101 mel frames came; expected an even number up to 3000"),
        ((1, 80, 3_002), "3002 mel frames came; expected an even number up to 3000"),
        ((1, 80, 0), "0 mel frames came"),
    ],
)
def test_a_wrong_log_mel_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        pair().encoder(torch.zeros(shape))


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(1, 2, 16_000), r"\(1, 2, 16000\) came; expected \(S,\) or \(B, S\)"),
        (torch.tensor(0.5), r"shape \(\) came"),
        (torch.zeros(0), "empty"),
        (torch.zeros(2, 0), "empty"),
        (torch.zeros(0, 16_000), "empty list"),
        (torch.full((16_000,), float("nan")), "16000 NaN or Inf"),
    ],
)
def test_encode_refuses_what_is_not_a_clip(audio, message):
    with pytest.raises(ValueError, match=message):
        pair().encode(audio, 16_000)


def test_frame_mask():
    expected = [[True, False, False], [True, True, True], [False, False, False]]
    assert frame_mask(torch.tensor([1, 3, 0]), 3).tolist() == expected
