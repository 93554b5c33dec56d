"""Audio: every format comes in alike, bad sound is refused with a reason, log-mel is Whisper's."""

import io
import math

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor

from tiny_asr.audio import load_audio, log_mel, pad_batch, split_at_silences
from tiny_asr.hub import sample_clip
from tiny_asr.shapes import MAX_SAMPLES, SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME

EMBEDDING = 5 * SAMPLES_PER_ENCODER_FRAME  # samples behind one audio embedding
FORMATS = {
    "wav16": ("WAV", "PCM_16"),
    "wav-float": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # the format knows no others
ALL_RATES = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000)


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def encoded(samples: np.ndarray, rate: int, kind: str = "flac") -> bytes:
    container, subtype = FORMATS[kind]
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def strongest(waveform: torch.Tensor) -> tuple[float, float]:
    """Frequency in Hz and amplitude of the strongest tone, without the edges."""
    middle = waveform[1_600:-1_600]
    spectrum = torch.fft.rfft(middle * torch.hann_window(len(middle), periodic=False)).abs()
    peak = int(spectrum.argmax())
    # The Hann window spreads a tone over its neighbours; their energy is 3/8 of N x A^2 / 4.
    energy = spectrum[peak - 3 : peak + 4].square().sum()
    amplitude = math.sqrt(float(energy) / len(middle) / len(middle) * 32 / 3)
    return peak * SAMPLE_RATE / len(middle), amplitude


def whisper_features(waveform: torch.Tensor, bins: int) -> torch.Tensor:
    """The reference: (M, 3000) of the clip padded to 30 s."""
    extractor = WhisperFeatureExtractor(feature_size=bins)
    features = extractor(waveform.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
    return features.input_features[0]


def features_alone(waveform: torch.Tensor, bins: int) -> torch.Tensor:
    return log_mel(pad_batch([waveform], EMBEDDING)[0], bins)[0]


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", (1, 2))
@pytest.mark.parametrize(
    "kind, rate",
    [(k, r) for k in FORMATS for r in (OPUS_RATES if k == "opus" else ALL_RATES)],
)
def test_every_format_rate_and_channel_count(kind, rate, channels, tmp_path):
    path = tmp_path / "clip.audio"  # the ending must not matter
    mix = tone(rate)[:, None] * np.linspace(1.0, 0.5, channels)  # channels differ in loudness
    path.write_bytes(encoded(mix, rate, kind))
    waveform = load_audio(path)
    assert waveform.dtype == torch.float32 and waveform.device.type == "cpu"
    assert waveform.ndim == 1 and waveform.is_contiguous()
    assert len(waveform) == SAMPLE_RATE
    hertz, amplitude = strongest(waveform)
    assert hertz == pytest.approx(440, abs=1.5)
    assert amplitude == pytest.approx(0.5 * np.linspace(1.0, 0.5, channels).mean(), rel=0.03)


def test_at_16_khz_samples_stay_as_they_are_and_channels_are_averaged():
    samples = np.random.default_rng(0).integers(-32_768, 32_768, (4_000, 6), dtype=np.int16)
    scaled = torch.from_numpy(samples) / 32_768
    mono = load_audio(encoded(samples[:, 0], SAMPLE_RATE, "wav16"))
    assert torch.equal(mono, scaled[:, 0])
    six_channels = load_audio(encoded(samples, SAMPLE_RATE, "wav16"))
    assert torch.allclose(six_channels, scaled.mean(dim=1), atol=1e-6)


@pytest.mark.parametrize("rate", (1_000, 7_919, 16_001, 22_051, 96_000, 192_000))
def test_odd_rates_keep_the_pitch(rate):
    hertz, _ = strongest(load_audio(tone(rate, 2.0, hertz=440), sampling_rate=rate))
    assert hertz == pytest.approx(440, abs=1)


def test_what_lies_above_8_khz_is_filtered_out_not_folded_down():
    assert load_audio(tone(48_000, hertz=11_000), 48_000)[1_600:-1_600].abs().max() < 0.005


def test_every_kind_of_source_gives_the_same_waveform(tmp_path):
    samples = tone(22_050).astype(np.float32)
    data = encoded(samples, 22_050, "wav-float")
    path = tmp_path / "clip.wav"
    path.write_bytes(data)
    expected = load_audio(path)
    with path.open("rb") as file:
        from_file = load_audio(file)
    array = {"array": samples, "sampling_rate": 22_050}
    for waveform in (
        from_file,
        load_audio(str(path)),
        load_audio(io.BytesIO(data)),
        load_audio(data),
        load_audio(bytearray(data)),
        load_audio({"bytes": data, "path": None}),
        load_audio({"bytes": data, "path": "gone.wav"}),
        load_audio({"bytes": None, "path": str(path)}),
        load_audio(array),
        load_audio(array, sampling_rate=22_050),
        load_audio({"array": samples}, sampling_rate=22_050),
        load_audio(samples, 22_050),
        load_audio(samples[None], np.int64(22_050)),
        load_audio(np.stack([samples, samples]), 22_050),
        load_audio(torch.from_numpy(samples), 22_050),
        load_audio(torch.from_numpy(samples)[None], 22_050),
    ):
        assert torch.equal(waveform, expected)


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.float16, torch.bfloat16))
def test_any_float_type(dtype):
    tensor = torch.from_numpy(tone(SAMPLE_RATE)).to(dtype).requires_grad_()
    waveform = load_audio(tensor, SAMPLE_RATE)
    assert waveform.dtype == torch.float32 and not waveform.requires_grad
    assert torch.equal(waveform, tensor.detach().float())
    if dtype != torch.bfloat16:  # numpy has none
        assert torch.equal(load_audio(tensor.detach().numpy(), SAMPLE_RATE), waveform)


@pytest.mark.parametrize("dtype", ("int8", "int16", "int32", "int64", "uint8", "uint16"))
def test_integers_are_scaled_from_their_range(dtype):
    info = np.iinfo(dtype)
    middle = (int(info.min) + int(info.max) + 1) // 2
    samples = np.array([info.min, middle, info.max], dtype)
    waveform = load_audio(samples, SAMPLE_RATE)
    assert waveform.tolist() == pytest.approx([-1.0, 0.0, 1.0], abs=0.01)
    assert torch.equal(load_audio(torch.from_numpy(samples), SAMPLE_RATE), waveform)


def test_backward_big_endian_and_long_arrays():
    samples = tone(SAMPLE_RATE, 75.0).astype(np.float32)
    assert load_audio(samples[::-1], SAMPLE_RATE).tolist() == samples[::-1].tolist()
    waveform = load_audio(samples.astype(">f4"), SAMPLE_RATE)
    assert waveform.tolist() == samples.tolist()
    load_audio(samples, SAMPLE_RATE).zero_()
    assert waveform.tolist() == samples.tolist()  # the caller's array is left alone


GOOD = tone(SAMPLE_RATE).astype(np.float32)
BAD_ARRAYS = {
    "nan": (np.append(GOOD, np.nan), SAMPLE_RATE, "1 NaN or Inf"),
    "inf": (torch.tensor([0.0, -torch.inf, torch.inf]), SAMPLE_RATE, "2 NaN or Inf"),
    "no samples": (np.zeros(0), SAMPLE_RATE, "0 samples"),
    "no samples in one channel": (torch.zeros(1, 0), SAMPLE_RATE, "0 samples"),
    "scalar": (np.float32(1)[...], SAMPLE_RATE, r"shape \(\).*expected \(S,\)"),
    "rank 3": (torch.zeros(1, 2, 9), SAMPLE_RATE, r"shape \(1, 2, 9\).*expected \(S,\)"),
    "channels last": (np.zeros((900, 2)), SAMPLE_RATE, r"shape \(900, 2\).*transpose"),
    "bool": (np.ones(9, bool), SAMPLE_RATE, "type bool.*floats or integers"),
    "complex": (torch.zeros(9, dtype=torch.complex64), SAMPLE_RATE, "type complex64"),
    "text array": (np.array(["a", "b"]), SAMPLE_RATE, "floats or integers"),
    "no rate": (GOOD, None, "without sampling_rate"),
    "no rate in dict": ({"array": GOOD}, None, "without sampling_rate"),
    "rate 0": (GOOD, 0, "sampling_rate=0;"),
    "negative rate": (torch.from_numpy(GOOD), -16_000, "sampling_rate=-16000;"),
    "fractional rate": (GOOD, 16_000.5, "sampling_rate=16000.5;"),
    "rate in kHz": (GOOD, 16, "sampling_rate=16;"),
    "two rates": ({"array": GOOD, "sampling_rate": 8_000}, 16_000, "8000 Hz.*16000"),
    "wrong rate for bytes": (encoded(GOOD, SAMPLE_RATE), 44_100, "16000 Hz.*44100"),
    "empty dict": ({}, None, "without sound"),
    "dict of None": ({"bytes": None, "path": None}, None, "'bytes', 'path'.*without sound"),
    "no bytes": (b"", None, "0 bytes"),
    "empty file object": (io.BytesIO(), None, "0 bytes"),
    "text file object": (io.StringIO("RIFF"), None, "gave text.*mode 'rb'"),
    "not audio": (b"to be or not to be " * 99, None, "cannot be decoded.*WAV"),
    "a WAV of no samples": (encoded(GOOD[:0], SAMPLE_RATE, "wav16"), None, "0 samples"),
    "a WAV with NaN": (encoded(np.append(GOOD, np.nan), 8_000, "wav-float"), None, "NaN or Inf"),
    "None": (None, None, "a NoneType"),
    "number": (3, None, "a int"),
    "list": ([0.0, 0.1], SAMPLE_RATE, "a list"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_sound_is_refused_with_a_reason(name):
    source, rate, message = BAD_ARRAYS[name]
    with pytest.raises(ValueError, match=message) as caught:
        load_audio(source, sampling_rate=rate)
    assert "expected" in str(caught.value)


def test_bad_files_are_refused_by_name(tmp_path):
    empty, text = tmp_path / "empty.wav", tmp_path / "text.mp3"
    empty.touch()
    text.write_text("not a sound\n" * 50)
    for path, message in (
        (tmp_path / "gone.wav", "gone.wav' .No such file"),
        (tmp_path, "directory"),
        (empty, "empty.wav is empty: 0 bytes"),
        (text, "text.mp3 cannot be decoded"),
    ):
        for source in (path, str(path), {"bytes": None, "path": str(path)}):
            with pytest.raises(ValueError, match=message):
                load_audio(source)


def test_a_torn_file_is_read_with_a_warning():
    data = encoded(tone(SAMPLE_RATE, 4.0), SAMPLE_RATE, "mp3")
    with pytest.warns(UserWarning, match="before its header says"):
        waveform = load_audio(data[: len(data) // 2])
    assert 1.5 < len(waveform) / SAMPLE_RATE < 2.5


@pytest.mark.parametrize("seconds", (0.5, 29.99, 30.0, 30.01, 61.3, 100.0))
def test_pieces_fit_and_join_to_the_waveform(seconds):
    waveform = noise(int(seconds * SAMPLE_RATE))
    pieces = split_at_silences(waveform)
    assert torch.equal(torch.cat(pieces), waveform)
    assert all(0 < len(piece) <= MAX_SAMPLES for piece in pieces)
    assert (len(pieces) == 1) == (seconds <= 30)


def test_cuts_lie_in_the_pauses_and_limits_are_kept():
    waveform = noise(70 * SAMPLE_RATE)
    for start in (7.0, 24.0, 45.0):  # 0.3 s of near silence; the first comes too early to use
        waveform[int(start * SAMPLE_RATE) : int((start + 0.3) * SAMPLE_RATE)] *= 0.01
    cuts = np.cumsum([len(piece) / SAMPLE_RATE for piece in split_at_silences(waveform)])
    assert len(cuts) == 3 and cuts[-1] == 70
    assert 24.04 < cuts[0] < 24.26 and 45.04 < cuts[1] < 45.26
    pieces = split_at_silences(torch.zeros(10 * SAMPLE_RATE), max_seconds=2)
    assert sum(map(len, pieces)) == 10 * SAMPLE_RATE
    assert max(map(len, pieces)) <= 2 * SAMPLE_RATE
    for limit in (0, -1, 0.5, math.nan):
        with pytest.raises(ValueError, match="max_seconds"):
            split_at_silences(noise(999), max_seconds=limit)


@pytest.mark.parametrize("shape", ((1, 16_000), (0,), ()))
def test_only_one_clip_is_split_or_padded(shape):
    with pytest.raises(ValueError, match=r"expected \(S,\)"):
        split_at_silences(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"clip 1 has shape.*expected \(S,\)"):
        pad_batch([torch.zeros(9), torch.zeros(shape)], EMBEDDING)


def test_a_batch_is_padded_with_zeros_to_whole_embeddings():
    clips = [noise(1), noise(1_600), noise(1_601), noise(4_000)]
    batch, lengths = pad_batch(clips, EMBEDDING)
    assert lengths.tolist() == [1_600, 1_600, 3_200, 4_800]
    assert lengths.dtype == torch.int64
    assert batch.shape == (4, 4_800) and batch.dtype == torch.float32
    for row, clip in zip(batch, clips, strict=True):
        assert torch.equal(row[: len(clip)], clip)
        assert row[len(clip) :].abs().sum() == 0


def test_bad_batches_are_refused():
    with pytest.raises(ValueError, match="empty list"):
        pad_batch([], EMBEDDING)
    with pytest.raises(ValueError, match=r"clip 1 lasts 31.00 s.*30 s.*split_at_silences"):
        pad_batch([noise(9), noise(31 * SAMPLE_RATE)], EMBEDDING)
    # A stride of 7 encoder frames does not divide 30 s: padding up must not pass the limit.
    with pytest.raises(ValueError, match=r"clip 0 lasts 30.00 s.*29.96 s"):
        pad_batch([noise(MAX_SAMPLES)], 7 * SAMPLES_PER_ENCODER_FRAME)


@pytest.mark.parametrize("bins", (80, 128))
def test_log_mel_is_whisper_s_on_20_real_clips(bins, shared):
    rows = pyarrow.parquet.read_table(shared / "speech" / "dev.parquet", columns=["audio"])
    for row in rows.slice(0, 20).to_pylist():
        waveform = load_audio(row["audio"])
        features = features_alone(waveform, bins)
        expected = whisper_features(waveform, bins)[:, : features.shape[1]]
        assert (features - expected).abs().max() < 1e-4


@pytest.mark.parametrize("bins", (80, 128))
def test_log_mel_is_whisper_s_at_every_length_and_loudness(bins):
    clips = [load_audio(sample_clip()), torch.zeros(16_000), torch.ones(1), 1e-6 * noise(16_000)]
    clips += [noise(samples) for samples in (54_321, MAX_SAMPLES - EMBEDDING, MAX_SAMPLES)]
    for waveform in clips:
        features = features_alone(waveform, bins)
        frames = 10 * math.ceil(len(waveform) / EMBEDDING)
        assert features.shape == (bins, frames) and features.dtype == torch.float32
        assert (features - whisper_features(waveform, bins)[:, :frames]).abs().max() < 1e-4


@pytest.mark.parametrize("longest", (80_000, MAX_SAMPLES))
def test_a_clip_has_the_same_features_in_a_batch_as_alone(longest):
    # The loudest comes last: its maximum must not raise the floor of the others.
    clips = [1e-3 * noise(1), load_audio(sample_clip()), 10 * noise(longest, seed=1)]
    batch, lengths = pad_batch(clips, EMBEDDING)
    assert lengths.tolist() == [1_600, 48_000, longest]  # the sample is 3 s
    together = log_mel(batch, 80, lengths)
    for clip, features in zip(clips, together, strict=True):
        alone = features_alone(clip, 80)
        frames = alone.shape[1]
        assert (features[:, :frames] - alone).abs().max() < 1e-5
        assert features[:, frames:].abs().sum() == 0
    batch[0, 1_600:] = math.nan  # whatever lies beyond a clip is ignored
    assert torch.equal(log_mel(batch, 80, lengths), together)


def test_the_result_is_float32_whatever_the_surroundings():
    batch = noise(16_000)[None]
    expected = log_mel(batch, 80)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(batch, 80), expected)
    assert torch.equal(log_mel(batch.double(), 80), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_agrees_with_the_cpu():
    batch, lengths = pad_batch([noise(4_000), load_audio(sample_clip())], EMBEDDING)
    features = log_mel(batch.cuda(), 128, lengths)
    assert features.device.type == "cuda"
    assert (features.cpu() - log_mel(batch, 128, lengths)).abs().max() < 1e-4


def test_shapes_and_lengths_that_do_not_fit_are_refused():
    for shape in ((16_000,), (1, 16_001), (1, 0), (1, 1, 16_000)):
        with pytest.raises(ValueError, match=r"expected \(B, S\), S a multiple of 160"):
            log_mel(torch.zeros(shape), 80)
    for lengths in ([1_600], [0, 1_600], [1_600, 3_200], [1_600, 1_599]):
        with pytest.raises(ValueError, match="got lengths"):
            log_mel(torch.zeros(2, 1_600), 80, torch.tensor(lengths))
