"""Augmentation: drawn by (seed, epoch, id) alone, and each kind does to sound what it says."""

from dataclasses import asdict

import pytest
import torch

from tiny_asr.audio import load_audio, log_mel, pad_batch
from tiny_asr.data.augment import Augment, AugmentConfig
from tiny_asr.data.dataset import load_data, noise_utterances
from tiny_asr.shapes import MAX_SAMPLES

RATE = 16_000
NOISE = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (3_000, 40_000)]
EVERYTHING = AugmentConfig(
    speed_factors=(0.9, 1.0, 1.1),
    reverb_probability=0.7,
    noise_probability=0.7,
    band_limit_probability=0.7,
    gain_db=(-6.0, 6.0),
    time_masks=2,
    frequency_masks=2,
    frame_dropout=0.1,
)


def augment(seed: int = 0, **settings) -> Augment:
    return Augment(AugmentConfig(**settings), seed=seed, noise=NOISE)


def sound(size: int, seed: int = 0) -> torch.Tensor:
    """White noise that swells and fades, as loud as speech."""
    noise = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise * (1.2 + torch.sin(torch.arange(size) / 2_000))


def batch(count: int = 12, size: int = RATE) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    clips = [sound(size + 777 * n, n) for n in range(count)]
    return *pad_batch(clips, 1), [f"clip-{n}" for n in range(count)]


def rms(waveforms: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return (waveforms.square().sum(1) / lengths).sqrt()


def power(waveform: torch.Tensor, low: float, high: float) -> float:
    """Mean power of the frequencies between two in Hz."""
    spectrum = torch.fft.rfft(waveform).abs().square()
    hertz = torch.linspace(0, RATE / 2, len(spectrum))
    return float(spectrum[(hertz >= low) & (hertz < high)].mean())


class TestConfig:
    def test_all_is_off_by_default(self):
        off, (waveforms, lengths, ids) = augment(), batch()
        same, sizes = off.waveform(waveforms, lengths, ids, epoch=0)
        assert torch.equal(same, waveforms) and torch.equal(sizes, lengths)
        features = torch.randn(12, 80, 50)
        frames = torch.full((12,), 50)
        assert torch.equal(off.mel(features, frames, ids, 0), features)
        assert torch.equal(off.encoder(features.mT, frames, ids, 0), features.mT)
        assert not off.config.changes_waveform and not off.config.changes_encoder_input

    @pytest.mark.parametrize(
        ("settings", "waveform", "encoder_input"),
        [
            ({"speed_factors": (0.9, 1.0)}, True, True),
            ({"reverb_probability": 0.1}, True, True),
            ({"noise_probability": 0.1}, True, True),
            ({"band_limit_probability": 0.1}, True, True),
            ({"gain_db": (-3, 0)}, True, True),
            ({"time_masks": 1}, False, True),
            ({"frequency_masks": 1}, False, True),
            ({"frame_dropout": 0.1}, False, False),
        ],
    )
    def test_knows_what_a_cache_excludes(self, settings, waveform, encoder_input):
        config = AugmentConfig(**settings)
        assert config.changes_waveform == waveform
        assert config.changes_encoder_input == encoder_input

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"speed_factors": ()}, "speed_factors"),
            ({"speed_factors": (0.9, 3.0)}, "0.5 to 2"),
            ({"reverb_probability": 1.5}, "reverb_probability=1.5 came; expected 0 to 1"),
            ({"frame_dropout": float("nan")}, "frame_dropout=nan"),
            ({"noise_snr_db": (30, 5)}, r"noise_snr_db=\(30, 5\) came; expected \(lowest"),
            ({"gain_db": (1, 2, 3)}, "gain_db"),
            ({"reverb_seconds": (0, 1)}, "reverb_seconds"),
            ({"time_masks": -1}, "time_masks=-1"),
        ],
    )
    def test_what_makes_no_sense(self, settings, message):
        with pytest.raises(ValueError, match=message):
            AugmentConfig(**settings)

    def test_survives_yaml_which_has_lists_only(self):
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(EVERYTHING).items()}
        assert AugmentConfig(**plain) == EVERYTHING

    def test_noise_is_needed_for_noise(self):
        with pytest.raises(ValueError, match=r"noise_probability=0\.5 came without noise"):
            Augment(AugmentConfig(noise_probability=0.5))


class TestSeeding:
    def test_a_clip_sounds_the_same_in_any_batch(self):
        waveforms, lengths, ids = batch()
        full = Augment(EVERYTHING, seed=1, noise=NOISE)
        together, sizes = full.waveform(waveforms, lengths, ids, epoch=3)
        for rows in ([4], [11, 4, 0], list(range(0, 12, 2))):
            longest = int(lengths[rows].max())
            part, part_sizes = full.waveform(
                waveforms[rows, :longest], lengths[rows], [ids[row] for row in rows], epoch=3
            )
            assert torch.equal(part_sizes, sizes[rows])
            for clip, size, row in zip(part, part_sizes, rows, strict=True):
                torch.testing.assert_close(clip[:size], together[row, :size], atol=1e-5, rtol=0)

    def test_masks_are_the_same_in_any_batch(self):
        full = Augment(EVERYTHING, seed=1, noise=NOISE)
        features, lengths = torch.randn(3, 80, 300), torch.tensor([300, 120, 200])
        for row, own in enumerate(lengths.tolist()):
            features[row, :, own:] = 0
        ids = ["a", "b", "c"]
        masked = full.mel(features, lengths, ids, 2)
        alone = full.mel(features[1:2, :, :120], lengths[1:2], ["b"], 2)
        torch.testing.assert_close(masked[1:2, :, :120], alone, atol=1e-6, rtol=0)
        dropped = full.encoder(features.mT, lengths, ids, 2)
        alone = full.encoder(features.mT[1:2, :120], lengths[1:2], ["b"], 2)
        assert torch.equal(dropped[1:2, :120], alone)

    def test_the_epoch_the_seed_and_the_id_change_it(self):
        waveforms, lengths, ids = batch()

        def heard(seed=0, epoch=0, names=ids):
            settings = {"noise_probability": 1.0, "noise_snr_db": (5.0, 5.0)}
            return augment(seed, **settings).waveform(waveforms, lengths, names, epoch)[0]

        assert torch.equal(heard(), heard())
        for other in (heard(seed=1), heard(epoch=1), heard(names=ids[::-1])):
            assert not any(map(torch.equal, other, heard()))

    def test_switching_one_on_leaves_the_others_as_they_were(self):
        waveforms, lengths, ids = batch()
        gain = {"gain_db": (-20.0, 20.0)}
        quiet = augment(**gain).waveform(waveforms, lengths, ids, 0)[0]
        both = augment(**gain, band_limit_probability=1.0).waveform(waveforms, lengths, ids, 0)[0]
        torch.testing.assert_close(rms(both, lengths), rms(quiet, lengths), atol=0, rtol=1e-3)

    def test_what_happens_to_a_clip_is_drawn_for_each_kind_apart(self):
        waveforms, lengths, ids = batch(60)
        kinds = ("reverb_probability", "noise_probability", "band_limit_probability")
        changed = []
        for kind in kinds:
            heard, _ = augment(**{kind: 0.5}).waveform(waveforms, lengths, ids, 0)
            changed.append((heard != waveforms).any(dim=1))
        for one, other in zip(changed, [*changed[1:], changed[0]], strict=True):
            assert 15 < one.sum() < 45 and 15 < (one == other).sum() < 45


class TestWaveform:
    def test_everything_at_once_stays_finite_and_as_loud(self):
        waveforms, lengths, ids = batch(24)
        full = Augment(EVERYTHING, noise=NOISE)
        for epoch in range(3):
            heard, sizes = full.waveform(waveforms, lengths, ids, epoch, multiple=1600)
            assert torch.isfinite(heard).all()
            assert not (sizes % 1600).any() and heard.shape == (24, sizes.max())
            change = rms(heard, sizes) / rms(waveforms, lengths)
            assert change.min() > 0.4 and change.max() < 2.5, "6 dB of gain, 5 dB of noise"
            for row, size in zip(heard, sizes, strict=True):
                assert not row[size:].any()

    def test_silent_and_tiny_clips(self):
        clips = [torch.zeros(RATE), torch.ones(1), torch.zeros(3), sound(100)]
        waveforms, lengths = pad_batch(clips, 1)
        full = Augment(EVERYTHING, noise=[*NOISE, torch.zeros(500)])
        for epoch in range(10):
            heard, sizes = full.waveform(waveforms, lengths, ["a", "b", "c", "d"], epoch)
            assert torch.isfinite(heard).all() and (sizes > 0).all()
            assert not heard[0].any(), "silence stays silent"

    @pytest.mark.parametrize("factor", [0.9, 1.1, 0.95])
    def test_speed_changes_length_and_pitch(self, factor):
        tone = torch.sin(2 * torch.pi * 1000 * torch.arange(2 * RATE) / RATE)
        waveforms, lengths = pad_batch([tone, tone[:RATE]], 1)
        speed = augment(speed_factors=(factor,))
        heard, sizes = speed.waveform(waveforms, lengths, ["a", "b"], 0)
        assert sizes.tolist() == [-int(-2 * RATE // factor), -int(-RATE // factor)]
        for clip, size in zip(heard, sizes, strict=True):
            spectrum = torch.fft.rfft(clip[:size]).abs()
            peak = spectrum.argmax().item() * RATE / size.item()
            assert peak == pytest.approx(1000 * factor, abs=2)

    def test_speeds_are_all_drawn(self):
        waveforms, lengths, ids = batch(30)
        _, sizes = augment(speed_factors=(0.9, 1.0, 1.1)).waveform(waveforms, lengths, ids, 0)
        assert {round(ratio, 1) for ratio in (lengths / sizes).tolist()} == {0.9, 1.0, 1.1}

    def test_no_clip_gets_longer_than_the_encoder_takes(self):
        slow = augment(speed_factors=(0.9,))
        lengths = torch.tensor([MAX_SAMPLES - 100, RATE])
        _, sizes = slow.waveform(torch.zeros(2, MAX_SAMPLES - 100), lengths, ["a", "b"], 0, 1600)
        assert sizes.tolist() == [MAX_SAMPLES, 19_200]  # 16 000 / 0.9, rounded up

    def test_reverb_rings_on_and_keeps_the_loudness(self):
        click = torch.zeros(RATE)
        click[1000] = 1.0
        waveforms, lengths = pad_batch([click, sound(RATE)], 1)
        room = augment(reverb_probability=1.0, reverb_seconds=(0.3, 0.3))
        heard, _ = room.waveform(waveforms, lengths, ["a", "b"], 0)
        assert heard[0].argmax() == 1000 and heard[0, :1000].abs().max() < 1e-6
        early, late = heard[0, 1001:2600].square().sum(), heard[0, 5801:].square().sum()
        assert early > 1e-2 and late < 1e-5, "60 dB down after 0.3 s"
        torch.testing.assert_close(rms(heard, lengths), rms(waveforms, lengths), atol=0, rtol=1e-3)

    @pytest.mark.parametrize("snr_db", [0.0, 10.0, 25.0])
    def test_noise_has_the_ratio_asked_for(self, snr_db):
        waveforms, lengths, ids = batch()
        noisy = augment(noise_probability=1.0, noise_snr_db=(snr_db, snr_db))
        heard, _ = noisy.waveform(waveforms, lengths, ids, 0)
        measured = 20 * torch.log10(rms(waveforms, lengths) / rms(heard - waveforms, lengths))
        torch.testing.assert_close(measured, torch.full((12,), snr_db), atol=0.01, rtol=0)

    def test_band_limits(self):
        waveforms, lengths, ids = batch(40)
        heard, _ = augment(band_limit_probability=1.0).waveform(waveforms, lengths, ids, 0)
        telephones = 0
        for before, after, size in zip(waveforms, heard, lengths, strict=True):
            before, after = before[:size], after[:size]
            kept = power(before, 500, 1900) / power(after, 500, 1900)
            assert kept * power(after, 7200, 8000) < 1e-3 * power(before, 7200, 8000)
            if kept * power(after, 0, 200) < 1e-3 * power(before, 0, 200):
                telephones += 1
                assert kept * power(after, 3600, 8000) < 1e-3 * power(before, 3600, 8000)
                assert kept * power(after, 450, 3250) == pytest.approx(
                    power(before, 450, 3250), rel=0.05
                )
        assert 10 <= telephones <= 30, "half of them"
        torch.testing.assert_close(rms(heard, lengths), rms(waveforms, lengths), atol=0, rtol=1e-3)

    def test_band_limit_does_not_blow_up_what_is_left(self):
        hum = 0.1 * torch.sin(2 * torch.pi * 50 * torch.arange(RATE) / RATE)
        ids = [str(n) for n in range(20)]
        limit = augment(band_limit_probability=1.0)
        heard, _ = limit.waveform(hum.repeat(20, 1), torch.full((20,), RATE), ids, 0)
        assert heard.abs().max() < 0.2

    def test_gain(self):
        waveforms, lengths, ids = batch()
        heard, _ = augment(gain_db=(6.0, 6.0)).waveform(waveforms, lengths, ids, 0)
        torch.testing.assert_close(heard, waveforms * 10 ** (6 / 20))

    def test_not_under_autocast(self):
        waveforms, lengths, ids = batch()
        full = Augment(EVERYTHING, noise=NOISE)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            heard, _ = full.waveform(waveforms, lengths, ids, 0)
        assert torch.equal(heard, full.waveform(waveforms, lengths, ids, 0)[0])

    def test_mismatched_batch(self):
        with pytest.raises(ValueError, match=r"shape \(16000,\), 1 lengths, 1 ids came; expected"):
            augment().waveform(torch.zeros(RATE), torch.tensor([RATE]), ["a"], 0)
        with pytest.raises(ValueError, match=r"2 lengths, 1 ids"):
            augment().mel(torch.zeros(2, 80, 9), torch.tensor([9, 9]), ["a"], 0)

    def test_on_a_gpu(self):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        waveforms, lengths, ids = batch()
        full = Augment(EVERYTHING, noise=NOISE)
        expected, sizes = full.waveform(waveforms, lengths, ids, 0)
        heard, gpu_sizes = full.waveform(waveforms.cuda(), lengths, ids, 0)
        assert heard.is_cuda and torch.equal(gpu_sizes.cpu(), sizes)
        torch.testing.assert_close(heard.cpu(), expected, atol=1e-4, rtol=0)
        mel, frames = torch.randn(12, 80, 100), torch.full((12,), 100)
        same = full.mel(mel.cuda(), frames.cuda(), ids, 0).cpu()
        torch.testing.assert_close(same, full.mel(mel, frames, ids, 0), atol=1e-5, rtol=0)
        same = full.encoder(mel.mT.cuda(), frames.cuda(), ids, 0).cpu()
        assert torch.equal(same, full.encoder(mel.mT, frames, ids, 0))


class TestMasks:
    @pytest.fixture
    def features(self):
        features = torch.randn(8, 80, 400, generator=torch.Generator().manual_seed(0))
        lengths = torch.tensor([400, 60, 300, 10, 1, 200, 399, 100])
        for row, own in enumerate(lengths.tolist()):
            features[row, :, own:] = 0
        return features, lengths, [str(n) for n in range(8)]

    def test_over_time(self, features):
        mel, lengths, ids = features
        drawn = set()
        for epoch in range(20):
            config = {"time_masks": 1, "time_mask_frames": 40, "time_mask_share": 0.2}
            masked = augment(**config).mel(mel, lengths, ids, epoch)
            hidden = (masked != mel).all(dim=1)  # (B, F)
            assert torch.equal(hidden, (masked != mel).any(dim=1)), "all bins or none"
            for row, own in zip(hidden, lengths.tolist(), strict=True):
                assert not row[own:].any() and row.sum() <= min(40, 0.2 * own)
                places = row.nonzero().flatten()
                assert len(places) == 0 or places[-1] - places[0] + 1 == len(places), "one span"
                drawn.add(len(places))
        assert len(drawn) > 20 and max(drawn) > 30

    def test_over_frequency(self, features):
        mel, lengths, ids = features
        drawn = set()
        for epoch in range(20):
            masks = augment(frequency_masks=1, frequency_mask_bins=20)
            masked = masks.mel(mel, lengths, ids, epoch)
            hidden = (masked != mel)[:, :, 0]  # (B, M)
            assert hidden.sum(dim=1).max() <= 20
            for row, own in zip((masked != mel), lengths.tolist(), strict=True):
                assert torch.equal(row.any(dim=1), row[:, :own].all(dim=1))
                assert not row[:, own:].any(), "what is padding stays 0"
            drawn |= set(hidden.sum(dim=1).tolist())
        assert len(drawn) > 15

    def test_hide_by_the_clips_own_mean(self, features):
        mel, lengths, ids = features
        masked = augment(time_masks=3, frequency_masks=3).mel(mel, lengths, ids, 0)
        for before, after, own in zip(mel, masked, lengths.tolist(), strict=True):
            filled = after[before != after]
            mean = before[:, :own].mean()
            torch.testing.assert_close(filled, mean.expand(len(filled)), atol=1e-5, rtol=0)

    def test_frames_of_the_encoder_drop_out(self, features):
        outputs, lengths, ids = features[0].mT, features[1], features[2]
        dropped = augment(frame_dropout=0.25).encoder(outputs, lengths, ids, 0)
        gone = (dropped == 0).all(dim=2)
        assert torch.equal(dropped[~gone], outputs[~gone]), "whole frames, the others unscaled"
        own = torch.arange(400) < lengths[:, None]
        assert 0.2 < gone[own].float().mean() < 0.3
        assert not augment(frame_dropout=1.0).encoder(outputs, lengths, ids, 0).any()

    def test_keep_the_dtype(self, features):
        mel, lengths, ids = features
        full = Augment(EVERYTHING, noise=NOISE)
        assert full.mel(mel.bfloat16(), lengths, ids, 0).dtype == torch.bfloat16
        assert full.encoder(mel.mT.half(), lengths, ids, 0).dtype == torch.float16


def test_real_speech_with_real_noise(shared):
    clips = load_data(shared / "speech" / "dev.parquet", limit=6)
    noise = [item.load() for item in noise_utterances(shared / "speech" / "noise.parquet")[:20]]
    waveforms, lengths = pad_batch([item.load() for item in clips], 1)
    ids = [item.id for item in clips]
    full = Augment(EVERYTHING, noise=noise)
    heard, sizes = full.waveform(waveforms, lengths, ids, 0, multiple=1600)
    mel = full.mel(log_mel(heard, 80, sizes), sizes // 160, ids, 0)
    assert torch.isfinite(mel).all() and mel.abs().max() < 4
    assert not torch.equal(mel, full.mel(log_mel(heard, 80, sizes), sizes // 160, ids, 1))
    assert load_audio(heard[0], RATE).shape == heard[0].shape
