"""Synthesised speech: the same each time, its text in its sound, voices never heard apart."""

import argparse
import io
import re
import shutil
import subprocess
import sys
from collections import Counter

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch
from conftest import REPOSITORY

from recipes import clips
from recipes.kokoro.voices import HELD_OUT
from tiny_asr.data.dataset import load_data

RATE = 16_000
DATA = REPOSITORY / "data" / "speech"
ROBOTS = ("flite rms", "espeak-ng scotland")
FAMILIES = ("kokoro heard", "kokoro never heard", *ROBOTS)
WORDS = """the old man said that he would never go back to house by river again because nobody there
had spoken with kindness of his brother since long winter when snow lay upon every field and even
children forgot how summer looked before it came at last over green hills singing""".split()  # noqa: SIM905
SILENT_WORDS = ("mr", "1848", "xiv", "mrs")  # not spoken as they are written


@pytest.fixture(scope="module")
def speech():
    """The program as a module, where both synthesisers are installed."""
    from recipes import speech, voices

    for program in (voices.FLITE, voices.ESPEAK):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; apt install flite espeak-ng, or set its name")
    return speech


@pytest.fixture(scope="module")
def voices(speech):
    from recipes import voices

    return voices


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """What text.py would write, small: two books with sentences of 1 to 46 words; one aside."""
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(1)
    lines = [" ".join(rng.choice(WORDS, length)) for length in [*range(1, 47), *[8] * 60]]
    spoiled = [f"{line} {SILENT_WORDS[i % 4]}" for i, line in enumerate(lines)]
    (folder / "text").mkdir()
    book = "\n".join(lines + spoiled)
    (folder / "text" / "train.txt").write_text(f"{book}\n\n{book}\n\n")
    heldout = [" ".join(rng.choice(WORDS, 9)) for _ in range(60)]
    table = [f"Book\t{line}\n" for line in heldout + spoiled + lines]
    (folder / "text" / "heldout.tsv").write_text("".join(table))
    (folder / "kokoro").mkdir()
    for name in ("novels", "everyday", "heldout"):
        read = [f"{name} {' '.join(rng.choice(WORDS, 3 + n % 16))}" for n in range(60)]
        rows = [f"{line.capitalize()}.\t{line}\n" for line in read]
        (folder / "kokoro" / f"{name}.txt").write_text("".join(rows))
    return folder


@pytest.fixture(scope="module")
def bulk(speech, work, tmp_path_factory):
    """Three shards of 8 clips, made by the command."""
    out = tmp_path_factory.mktemp("bulk")
    hours = 2.5 * 8 * speech.MEAN_SECONDS / 3600
    command = [sys.executable, "-m", "recipes.speech", "bulk", "--work", work, "--out", out]
    command += ["--hours", str(hours), "--clips", "8", "--workers", "1", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


class Letters:
    """Stands for Kokoro's phonemes: a token a letter."""

    def tokens(self, lines: list[str], language: str) -> list[list[int]]:
        return [[1] * len(line) for line in lines]


def hums(network, utterances, breath) -> list[torch.Tensor]:
    """Stands for Kokoro: a hum as long as it would speak."""
    return [
        torch.sin(torch.arange(int(len(one.tokens) * 1100 / one.speed)) / 5) for one in utterances
    ]


@pytest.fixture(scope="module")
def bundled(speech, work, tmp_path_factory):
    """The data set with few clips, made twice: with one thread and with three."""
    from recipes import bundled
    from recipes.kokoro.voices import VOICES

    folders, styles = [], dict.fromkeys(VOICES, np.zeros((510, 4), np.float32))
    with pytest.MonkeyPatch.context() as patch:
        few = {"train": 4, "dev": 2, "test": 2}
        parts = [p._replace(clips=few[p.split], tries=p.tries and 10) for p in bundled.PARTS]
        patch.setattr(bundled, "PARTS", parts)
        patch.setattr(bundled, "READ_IN_TRAINING", 20)
        patch.setattr(bundled, "ROBOTS_SKIP", 2)
        patch.setattr(bundled, "convert", lambda folder: folder)
        patch.setattr(bundled, "speaker", lambda folder, device: (None, styles, Letters()))
        patch.setattr(bundled, "synthesise", hums)
        for workers in (1, 3):
            out = tmp_path_factory.mktemp("bundled")
            given = {"out": out, "work": work, "seed": 2, "workers": workers, "device": "cpu"}
            bundled.bundled(argparse.Namespace(**given, kokoro=None))
            folders.append(out)
    return folders


def rows_of(path) -> list[dict]:
    return pyarrow.parquet.read_table(path).to_pylist()


def samples(row: dict) -> np.ndarray:
    sound, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
    assert rate == RATE and sound.ndim == 1
    assert len(sound) / RATE == pytest.approx(row["seconds"], abs=1e-4)
    return sound


def test_heard_voices_are_never_those_kept_for_the_test(voices):
    rng = np.random.default_rng(0)
    drawn = [voices.heard_voice(rng) for _ in range(3000)]
    engines = Counter(voice.engine for voice in drawn)
    assert engines["flite"] / 3000 == pytest.approx(0.55, abs=0.03)
    families = {voice.name.partition("+")[0] for voice in drawn}
    assert len(families) == 11
    for voice in drawn:
        words = f"{voice.name} {' '.join(voice.command)}"
        assert not re.search(r"rms|scotland|mb-|mb/|whisper", words)
    for family, sign in [("flite rms", "rms"), ("espeak-ng scotland", "en-gb-scotland")]:
        kept = [voices.family_voice(family, rng) for _ in range(50)]
        assert all(sign in voice.name and sign in " ".join(voice.command) for voice in kept)


def test_synthesisers_are_complete_or_that_is_said(voices, monkeypatch):
    voices.check_synthesisers()
    monkeypatch.setattr(voices, "VARIANTS", [*voices.VARIANTS, "f99"])
    monkeypatch.setattr(voices, "UNHEARD_ESPEAK", "en-gb-nowhere")
    with pytest.raises(SystemExit, match="lack en-gb-nowhere, f99"):
        voices.check_synthesisers()
    monkeypatch.setattr(voices, "FLITE", "no-such-program")
    with pytest.raises(SystemExit, match="apt install"):
        voices.check_synthesisers()


@pytest.mark.parametrize("base", ["en-gb", "en-us-nyc", "en-gb-scotland"])
def test_a_variant_changes_the_sound(voices, base):
    """espeak-ng says the plain voice, and no word about it, where a variant does not apply."""
    name = voices.HEARD_ESPEAK.get(base, base)
    plain = voices.Voice("plain", (voices.ESPEAK, "-v", name, "-z", "--stdout"))
    other = voices.Voice("other", (voices.ESPEAK, "-v", f"{name}+f3", "-z", "--stdout"))
    one, two = (voices.speak(voice, "the sea and its waves") for voice in (plain, other))
    assert one.dtype == np.float32
    assert len(one) != len(two) or np.abs(one - two).max() > 0.05


@pytest.mark.parametrize(("voice", "low", "high"), [("awb", 90, 180), ("slt", 120, 230)])
def test_flite_takes_the_pitch_that_is_asked(voices, voice, low, high):
    def pitch(hertz):
        asked = ("--setf", f"int_f0_target_mean={hertz}", "-o", "/dev/stdout", "-t")
        sound = voices.speak(voices.Voice("", (voices.FLITE, "-voice", voice, *asked)), "you are")
        frames = np.lib.stride_tricks.sliding_window_view(sound, 800)[::400]
        frame = frames[(frames**2).mean(axis=1).argmax()]
        power = np.fft.irfft(np.abs(np.fft.rfft(frame * np.hanning(800), 3200)) ** 2)
        return RATE / (RATE // 400 + power[RATE // 400 : RATE // 60].argmax())

    assert pitch(high) / pitch(low) == pytest.approx(high / low, rel=0.25)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("they'll say it's a fine mix of civil people", True),
        ("i gave my o'clock tea to the king", True),
        ("in 1848 they came", False),
        ("chapter xiv begins", False),
        ("mr bennet was silent", False),
        ("king henry viii", False),
    ],
)
def test_texts_that_are_not_spoken_as_written_are_left_out(text, spoken):
    assert (clips.NOT_SPOKEN_AS_WRITTEN.search(text) is None) == spoken


def test_silence_and_level():
    tone = np.sin(np.arange(RATE) / 3).astype(np.float32)
    clip = np.concatenate([np.zeros(2 * RATE, np.float32), 0.1 * tone, np.zeros(100, np.float32)])
    for seed in range(20):
        done = clips.finish(clip, 16, np.random.default_rng(seed))
        loud = np.flatnonzero(np.abs(done.astype(int)) > 0.02 * np.abs(done.astype(int)).max())
        before, after = loud[0] / RATE, (len(done) - 1 - loud[-1]) / RATE
        assert 0.04 < before < 0.41 and 0.04 < after < 0.41
        assert -20.1 < 20 * np.log10(np.abs(done.astype(int)).max() / 32767) < -0.9
        assert len(loud) == pytest.approx(RATE, rel=0.05)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unlike its text"):
        clips.finish(clip, 60, rng)
    with pytest.raises(ValueError, match="unlike its text"):
        clips.finish(clip, 3, rng)
    with pytest.raises(ValueError, match="too long"):
        clips.finish(np.tile(tone, 28), 300, rng)


def test_an_engine_that_fails_is_an_error(voices):
    missing = voices.Voice("", (voices.ESPEAK, "-v", "nowhere", "--stdout"))
    with pytest.raises(ValueError, match="failed"):
        voices.speak(missing, "hello")
    plain = voices.Voice("", (voices.ESPEAK, "-v", "en", "--stdout"))
    with pytest.raises(ValueError, match="no sound"):
        voices.speak(plain, "")


def test_spans_stay_inside_a_book(speech, work):
    book = speech.BookText(work / "text" / "train.txt")
    words = (work / "text" / "train.txt").read_text().split("\n\n")[0].split()
    running = f" {' '.join(words)} "
    rng = np.random.default_rng(0)
    for count in [1, 5, 30] * 20:
        span = book.span(count, rng)
        assert 1 <= len(span.split()) <= count and f" {span} " in running
        assert abs(len(book.sentence(count, rng).split()) - count) <= count / 10


def test_bulk_shards(speech, voices, bulk, work):
    out, printed = bulk
    paths = sorted(out.iterdir())
    assert [path.name for path in paths] == ["0000.parquet", "0001.parquet", "0002.parquet"]
    rows = [row for path in paths for row in rows_of(path)]
    lost = int(re.search(r"dropped (\d+)", printed)[1])
    assert 20 <= len(rows) == 24 - lost and len({row["id"] for row in rows}) == len(rows)
    texts = " ".join((work / "text" / "train.txt").read_text().split())
    for row in rows:
        sound = samples(row)
        assert row["text"] in texts and not set(row["text"].split()) & set(SILENT_WORDS)
        assert 0.03 * len(row["text"]) < len(sound) / RATE < 28
        assert not re.search("rms|scotland", row["voice"])
        assert row["voice"].startswith(f"{row['engine']}/")
    assert {row["engine"] for row in rows} == {"flite", "espeak-ng"}
    assert len(load_data(out)) == len(rows)


def test_bulk_is_the_same_again_and_another_seed_is_not(speech, bulk, work, tmp_path):
    out, _ = bulk
    text = work / "text" / "train.txt"
    speech.write_shard((text, tmp_path, 5, 8, 1))
    again = tmp_path / "0001.parquet"
    assert again.read_bytes() == (out / "0001.parquet").read_bytes()
    same, other = (speech.bulk_clip(speech.book_text(text), seed, 9) for seed in (5, 6))
    assert same[1:] != other[1:]


def test_opus_is_the_same_each_time_and_whole():
    noise = np.random.default_rng(0).normal(0, 3000, 3 * RATE).astype(np.int16)
    one, two = clips.opus(noise, 77), clips.opus(noise, 77)
    assert one == two != clips.opus(noise, 78)
    decoded, _ = soundfile.read(io.BytesIO(one))
    assert len(decoded) == len(noise)
    torn = bytearray(one)
    torn[len(one) // 2] ^= 1  # libogg drops a page whose check sum is wrong
    short, _ = soundfile.read(io.BytesIO(bytes(torn)))
    assert not np.array_equal(decoded, short)


def test_bundled_is_the_same_again(bundled):
    for split in ("train", "dev", "test"):
        one, two = (folder / f"{split}.parquet" for folder in bundled)
        assert one.read_bytes() == two.read_bytes()


def test_bundled_loads_as_it_lies(bundled, tmp_path):
    folder = bundled[0]
    data = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in data.items()} == {
        "train": 4, "validation": 2, "test": 8,
    }  # fmt: skip
    assert data["test"][0]["audio"]["bytes"][:4] == b"OggS"  # encoded: nothing else is needed
    for split, count in {"train": 4, "dev": 2, "test": 8}.items():
        loaded = load_data(folder, split=split)
        assert len(loaded) == count and not loaded.dropped
        assert loaded[0].load().ndim == 1


def test_bundled_keeps_its_sentences_and_voices_apart(bundled, work):
    splits = {split: rows_of(bundled[0] / f"{split}.parquet") for split in ("train", "dev", "test")}
    everything = [row for rows in splits.values() for row in rows]
    assert len({row["text"] for row in everything}) == len(everything)
    assert len({row["id"] for row in everything}) == len(everything)
    aside = (work / "kokoro" / "heldout.txt").read_text() + (work / "text/heldout.tsv").read_text()
    aside = {line.partition("\t")[2] for line in aside.splitlines()}
    assert all((row["text"] in aside) == (row in splits["test"]) for row in everything)
    families = Counter(row["family"] for row in splits["test"])
    assert families == dict.fromkeys(FAMILIES, 2)
    for row in everything:
        assert row["heard"] == (row["family"] == "kokoro heard")
        held_out = any(name in row["voice"] for name in HELD_OUT)
        assert held_out == (row["family"] == "kokoro never heard")
        assert ("rms" in row["voice"] or "scotland" in row["voice"]) == (row["family"] in ROBOTS)
        assert 2 <= len(samples(row)) / RATE <= (4 if row in splits["train"] else 6)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_data_set_that_travels_is_as_its_card_says(split):
    from recipes.bundled import PARTS

    rows = rows_of(DATA / f"{split}.parquet")
    parts = {part.family: part for part in PARTS if part.split == split}
    assert Counter(row["family"] for row in rows) == {n: p.clips for n, p in parts.items()}
    for natural in (True, False):  # robots read some of the sentences, too
        texts = [row["text"] for row in rows if (row["engine"] == "kokoro") == natural]
        assert len(set(texts)) == len(texts)
    for row in rows:
        shortest, longest = parts[row["family"]].seconds
        assert shortest <= row["seconds"] <= longest
        held_out = any(name in row["voice"] for name in HELD_OUT)
        assert held_out == (row["family"] == "kokoro never heard")


@pytest.mark.parametrize("family", ["flite rms", "espeak-ng scotland"])
def test_a_robots_clip_that_travels_can_be_made_again(voices, family):
    """From the seed, its number and its text; Opus of another machine may differ in a bit."""
    from recipes.bundled import PARTS, robot_clip

    part = next(part for part in PARTS if part.family == family)
    for row in [row for row in rows_of(DATA / "test.parquet") if row["family"] == family][:3]:
        made = robot_clip(part, 0, int(row["id"][-4:]), row["text"])
        assert made["voice"] == row["voice"] and made["id"] == row["id"]
        assert np.abs(samples(made).astype(int) - samples(row)).max() < 300


def test_missing_text_is_said(speech, tmp_path):
    command = [sys.executable, "-m", "recipes.speech", "bulk", "--work", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "train.txt" in done.stderr and "text.py" in done.stderr
