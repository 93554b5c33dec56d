"""The clips in which nobody speaks: the same each time, and the test's are not the training's."""

import io
from collections import Counter

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from small_runs import encoded, noise, write_rows

from recipes import no_speech
from tiny_asr.data.dataset import load_data, noise_utterances

NEVER_TRAINED = {"siren", "chirps", "bells", "plucked"}


def rows_of(path) -> list[dict]:
    return pyarrow.parquet.read_table(path).to_pylist()


def samples(row: dict) -> np.ndarray:
    sound, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
    assert rate == 16_000 and sound.ndim == 1
    return sound


def test_counts_are_the_promised_ones():
    train, test = no_speech.TRAIN_COUNTS, no_speech.TEST_COUNTS
    assert (sum(train.values()), sum(test.values())) == (1320, 200)
    assert test.keys() - train.keys() == NEVER_TRAINED and test["real"] == 80
    colours = ("silence", "near-silence", "noise", "pulses")
    music = ("melody", "chords", "arpeggio", "drums", "bells", "plucked")
    assert (sum(test[kind] for kind in colours), sum(test[kind] for kind in music)) == (30, 45)


def test_every_kind_is_sound_of_the_right_length_and_always_the_same():
    for kind in no_speech.TEST_COUNTS.keys() - {"real"}:
        row = no_speech.make_clip(kind, 1, "test", [])
        assert row == no_speech.make_clip(kind, 1, "test", [])
        others = [
            no_speech.make_clip(kind, 2, "test", []),
            no_speech.make_clip(kind, 1, "train", []),
        ]
        sound = samples(row)
        assert row["seconds"] == len(sound) / 16_000 and 1 <= row["seconds"] <= 15
        assert (row["kind"], row["text"]) == (kind, "")
        assert all(row["audio"]["bytes"] != other["audio"]["bytes"] for other in others)
        loudness = np.sqrt(np.mean(sound.astype(float) ** 2)) / 32768
        assert abs(sound.astype(int)).max() < 32_100
        if kind == "silence":
            assert not sound.any()
        elif kind == "near-silence":
            assert 0 < abs(sound).max() < 40
        else:
            assert 10 ** (-61 / 20) < loudness < 10 ** (-11 / 20), kind


@pytest.mark.parametrize(("slope", "ratio"), [(0, 1), (1, 8), (2, 64)])
def test_colours_of_noise(slope, ratio):
    """Power at 500 Hz against that at 4 kHz, three octaves above."""
    sound = no_speech.coloured(np.random.default_rng(0), 320_000, slope)
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    low, high = (spectrum[20 * f - 2000 : 20 * f + 2000].mean() for f in (500, 4000))
    assert low / high == pytest.approx(ratio, rel=0.1)


def test_a_long_recording_is_cut_and_a_short_one_repeated():
    rng = np.random.default_rng(0)
    recordings = [rng.uniform(-0.5, 0.5, size) for size in (20 * 16_000, 4_000, 32_000)]
    long, short, whole = (no_speech.make_clip("real", i, "train", recordings) for i in range(3))
    assert (long["seconds"], short["seconds"], whole["seconds"]) == (15, 1, 2)
    assert np.abs(samples(whole) / 32767 - recordings[2]).max() < 1e-4
    assert np.array_equal(samples(short), np.tile(samples(short)[:4000], 4))
    assert 1 <= no_speech.make_clip("real", 3, "train", recordings)["seconds"] <= 15


def test_recordings_are_split_by_series_and_number(tmp_path):
    names = [f"bg_noise{i}" for i in ("", *range(2, 11))] + [f"dtaps{i}" for i in range(6)]
    names += [f"doubletaps{i}" for i in range(6, 10)] + [f"noise-{i}f3e-4b" for i in range(10)]
    lengths = {name: 100 + place for place, name in enumerate(names)}  # names a recording by length
    rows = [
        {"id": name, "audio": encoded(noise(length / 16_000, length))}
        for name, length in sorted(lengths.items())
    ]
    parts = no_speech.split_recordings(write_rows(tmp_path / "noise.parquet", rows))
    named = {length: name for name, length in lengths.items()}
    train, test = ({named[len(sound)] for sound in part} for part in parts)
    assert train | test == set(names) and not train & test
    last = {"bg_noise9", "bg_noise10", "doubletaps8", "doubletaps9"}
    assert test == last | {"noise-8f3e-4b", "noise-9f3e-4b"}


def test_a_missing_recordings_file_is_one_clear_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["no_speech.py", "--noise", str(tmp_path / "none.parquet")])
    with pytest.raises(SystemExit) as stop:
        no_speech.main()
    assert stop.value.code == 2 and "set TINY_ASR_SHARED" in capsys.readouterr().err


def test_the_test_of_the_shared_recordings(shared, tmp_path):
    """The 200 clips themselves, as the commands read them; train.parquet takes 30 s to make."""
    train, test = no_speech.split_recordings(shared / "speech" / "noise.parquet")
    assert len(train) + len(test) == 374 and len(test) == no_speech.TEST_COUNTS["real"]
    assert not {s.tobytes() for s in train} & {s.tobytes() for s in test}
    no_speech.write_clips(tmp_path / "test.parquet", "test", no_speech.TEST_COUNTS, test)
    rows = rows_of(tmp_path / "test.parquet")
    assert Counter(row["kind"] for row in rows) == no_speech.TEST_COUNTS
    assert list(rows[0]) == ["id", "kind", "text", "seconds", "audio"]
    assert len({row["id"] for row in rows}) == 200
    clips = load_data(tmp_path / "test.parquet", require_text=False)
    assert len(clips) == 200 and not clips.dropped
    no_speech.write_clips(tmp_path / "noise.parquet", "test", {"real": 80}, test)
    assert rows_of(tmp_path / "noise.parquet") == rows[:80]
    assert len(noise_utterances(tmp_path / "noise.parquet")[0].load()) > 0
