"""The sounds of notebook 01 and their figures: measured, since a test cannot listen."""

import numpy as np
import pytest
import torch

from tiny_asr import load_audio, sample_clip
from tiny_asr.course import lesson_01_figures as figures
from tiny_asr.course import lesson_01_mel as mel_explorer
from tiny_asr.course import sounds
from tiny_asr.data.utterance import Utterance
from tiny_asr.shapes import SAMPLE_RATE


@pytest.fixture(scope="module")
def clip():
    return load_audio(sample_clip())


def tone(hertz: float, seconds: float = 1.0) -> torch.Tensor:
    time = torch.arange(int(seconds * SAMPLE_RATE), dtype=torch.float64) / SAMPLE_RATE
    return 0.5 * torch.sin(2 * torch.pi * hertz * time)


def loudest_hertz(waveform: torch.Tensor) -> float:
    power = torch.fft.rfft(waveform.double()).abs()
    return float(power.argmax()) * SAMPLE_RATE / len(waveform)


def test_a_sweep_beyond_half_the_rate_comes_down_again():
    sound = sounds.sweep(500, 15_500, 3)
    for start, hertz in ((0.4, 2_500), (1.2, 6_500), (1.8, 6_500), (2.6, 2_500)):
        first = round((start - 0.01) * SAMPLE_RATE)
        assert loudest_hertz(sound[first : first + 320]) == pytest.approx(hertz, abs=60)


@pytest.mark.parametrize("bits", [4, 8])
def test_fewer_bits_are_fewer_levels_and_6_db_each(bits):
    # 0.85 at the loudest, which is -1.4 dB and leaves the outermost levels unclipped
    noise = 1.7 * torch.rand(100_000, generator=torch.Generator().manual_seed(0)) - 0.85
    changed = sounds.quantised(noise, bits)
    assert len(changed.unique()) <= 2**bits
    assert sounds.snr_db(noise, changed) == pytest.approx(6.02 * bits - 1.4, abs=0.2)


def test_every_nth_sample_lets_a_tone_come_back_at_another_pitch():
    high = tone(3_000)
    assert loudest_hertz(sounds.every(high, 4)) == 1_000  # 4 kHz rate: mirrored at 2 kHz
    assert float(sounds.band_limited(high, 4_000).abs()[100:-100].max()) < 0.01
    low = tone(1_000)
    inside = slice(500, -500)
    assert torch.allclose(sounds.band_limited(low, 4_000)[inside], low[inside], atol=0.01)


def test_a_clip_at_another_rate_keeps_its_name_and_length(clip):
    encoded = sample_clip().read_bytes()
    utterance = Utterance("one", "some text", len(clip) / SAMPLE_RATE, {}, encoded)
    assert sounds.at_rate(utterance, SAMPLE_RATE) is utterance
    changed = sounds.at_rate(utterance, 8_000)
    assert (changed.id, changed.text) == ("one", "some text")
    assert len(changed.load()) == len(clip)
    power = torch.fft.rfft(changed.load()).abs().square()
    hertz = torch.fft.rfftfreq(len(clip), 1 / SAMPLE_RATE)
    assert power[hertz > 4_500].sum() < 1e-4 * power.sum()


def test_players_have_names_and_do_not_depend_on_the_last_digits(clip):
    html = sounds.players({"a & b": clip, "two": tone(440)}).data
    assert html.count("<audio controls") == 2 and 'aria-label="a &amp; b"' in html
    assert sounds.mp3(clip) == sounds.mp3(clip.double() * (1 + 1e-12))


@pytest.mark.parametrize(("bands", "window_ms", "top"), [(80, 25, 8000), (8, 64, 2000)])
def test_through_mel_keeps_the_loudness_of_bands(clip, bands, window_ms, top):
    before = mel_explorer.mel_power(clip, bands, window_ms, top)
    sound = mel_explorer.through_mel(clip, bands, window_ms, top)
    assert len(sound) == len(clip)
    after = mel_explorer.mel_power(sound, bands, window_ms, top)
    loud = before > 1e-3 * before.max()
    assert float((10 * (after[loud] / before[loud]).log10()).abs().mean()) < 4


def test_bands_narrower_than_the_spectrums_lines_are_reported():
    assert "empty" not in mel_explorer.about(80, 25, 8000)
    assert "13 bands are empty" in mel_explorer.about(128, 16, 8000)
    assert (mel_explorer.filters(128, 16, 8000).sum(dim=1) == 0).sum() == 13


def test_explore_mel_follows_its_sliders(clip):
    explorer = mel_explorer.explore_mel(clip[:8000])
    words, image, sound = explorer.children[3:]
    before = bytes(sound.value)
    bands, window, _ = explorer.sliders
    bands.value, window.value = 8, 64
    assert words.value.startswith("8 bands up to 8000 Hz from windows of 64 ms: 800 numbers")
    assert words.value in image.value and bytes(sound.value) != before
    assert repr(explorer) == explorer._repr_mimebundle_()[0]["text/plain"]


def test_figures_say_what_they_show(clip):
    moments = {"vowel": 0.32, "s": 0.51}
    drawings = {
        "1000 Hz; both pass": figures.aliasing(),
        "tone: 1000, 1000, 1000 Hz": figures.spectrograms({"tone": tone(1000)}),
        "8 bits: 256 levels, 37 dB": figures.bit_depths(clip, 0.32),
        "s: 99% of its power": figures.instants(clip, moments),
        "4 bell-shaped windows": figures.windows(clip, 0.3),
        "45.2 mel at 8 kHz": figures.mel_scale(),
        "eye, 0 to 1, half below 0": figures.steps({f"{n}eye": torch.eye(9) for n in "abc "}),
        "80 by 299": mel_explorer.mel_view(clip),
    }
    for words, figure in drawings.items():
        assert words in figure.alt


def test_the_mel_filters_at_the_default_are_those_of_the_model():
    from tiny_asr.audio import _spectrogram_and_filters

    _, ours = _spectrogram_and_filters(80, torch.device("cpu"))
    assert np.allclose(mel_explorer.filters(80, 25, 8000).numpy(), ours.numpy(), atol=1e-7)
