"""The cache of encoder outputs: it holds what the encoder says, and is never used when it is wrong.

A training run with a cache is tested in test_training.py.
"""

import json
import re
import shutil
import zlib
from pathlib import Path

import psutil
import pytest
import soundfile
import torch
from checkpoints import write_whisper
from fixtures_models import decoder_dir, encoder_dir, folder, noise, pair
from small_runs import SECONDS, clips, end, small_run, some_rows, start, write_rows

from tiny_asr import ASRConfig, ASRModel, load_audio
from tiny_asr.data.dataset import load_data
from tiny_asr.data.utterance import Utterance
from tiny_asr.training.cache import CacheError, EncoderCache, build_cache, cache_keys
from tiny_asr.training.settings import TrainingSettings


@pytest.fixture
def built(tmp_path) -> Path:
    """The folder of a complete cache of the clips, in `tmp_path / caches`."""
    return build(tmp_path / "caches")[0].directory


def build(caches: Path, data=None, say=None) -> tuple[EncoderCache, str]:
    said, data = [], data or load_data(clips())
    cache = build_cache(pair(), data, caches, *cache_keys(pair(), data), say=say or said.append)
    return cache, "\n".join(said)


def test_it_holds_what_the_encoder_says_of_each_clip_alone(built):
    cache, data, model = EncoderCache(built), load_data(clips()), pair()
    assert len(cache) == len(data) == 12
    for clip in data:
        expected = model.encode(load_audio(clip.audio), 16_000)[0]
        assert cache[clip.id].dtype == expected.dtype
        torch.testing.assert_close(cache[clip.id], expected, rtol=1e-4, atol=1e-5)
    ids = [data[3].id, data[0].id]
    frames, lengths = cache.batch(ids)
    assert lengths.tolist() == [len(cache[name]) for name in ids]
    assert frames.shape == (2, max(lengths), 48)
    assert torch.equal(frames[1, : lengths[1]], cache[ids[1]])
    assert not frames[1, lengths[1] :].any()


def test_a_whole_cache_is_used_again(built):
    before = {path.name: path.stat().st_mtime_ns for path in built.iterdir()}
    cache, said = build(built.parent)
    assert cache.directory == built
    assert {path.name: path.stat().st_mtime_ns for path in built.iterdir()} == before
    assert said == f"cache: 12 clips in {built}"


def key_of(seed: int = 0, rate: int = 5, file: Path | None = None) -> str:
    """The key with an encoder of this seed, this downsample rate, these clips."""
    encoder = encoder_dir() if seed == 0 else write_whisper(folder(f"whisper-{seed}"), 80, seed)
    config = ASRConfig(encoder=encoder, decoder=decoder_dir(), audio_downsample_rate=rate)
    (key,) = cache_keys(ASRModel(config), load_data(file or clips()))
    return key


def test_the_key_depends_on_encoder_padding_and_audio_alone(tmp_path):
    rows = some_rows()
    for row in rows:
        row["text"] = "other words"
    assert key_of(file=write_rows(tmp_path / "texts.parquet", rows)) == key_of()
    rows[5]["audio"] = some_rows(seed=1)[5]["audio"]  # the id stays
    others = [key_of(seed=1), key_of(rate=4), key_of(file=write_rows(tmp_path / "a.parquet", rows))]
    assert len({key_of(), *others}) == 4


def test_nothing_is_read_again_but_what_has_changed(tmp_path, monkeypatch):
    folder = tmp_path / "clips"
    folder.mkdir()
    for row in some_rows(3):
        (folder / f"{row['id']}.flac").write_bytes(row["audio"])
        (folder / f"{row['id']}.txt").write_text(row["text"])
    first, _ = build(tmp_path / "caches", load_data(folder))
    with monkeypatch.context() as patch:
        for kind, method in ((Utterance, "fingerprint"), (EncoderCache, "__getitem__")):
            patch.setattr(kind, method, lambda *_: pytest.fail("it was read again"))
        again, said = build(tmp_path / "caches", load_data(folder))
    assert again.directory == first.directory and said.startswith("cache: 3 clips in ")
    place = folder / "clip-0-1.flac"
    place.write_bytes(some_rows(2, seed=1)[1]["audio"])  # as long, and with the same name
    other, said = build(tmp_path / "caches", load_data(folder))
    assert other.directory != first.directory and "will take about" in said
    assert torch.equal(other["clip-0-0"], first["clip-0-0"])
    assert not torch.equal(other["clip-0-1"], first["clip-0-1"])


def test_stretches_of_one_long_file_are_cached_each(tmp_path):
    """As Kaldi's `segments` name them."""
    folder = tmp_path / "kaldi"
    folder.mkdir()
    soundfile.write(folder / "long.wav", noise(4).numpy(), 16_000)
    (folder / "wav.scp").write_text("r long.wav\n")
    (folder / "segments").write_text("a r 0.0 2.0\nb r 2.0 4.0\n")
    (folder / "text").write_text("a one two three\nb four five six\n")
    cache, _ = build(tmp_path / "caches", load_data(folder))
    assert cache["a"].shape == cache["b"].shape and not torch.equal(cache["a"], cache["b"])


def test_what_was_damaged_after_it_was_found_good_is_found_damaged(built):
    EncoderCache(built).verify()
    flip(built)
    with pytest.raises(CacheError, match="are damaged"):
        EncoderCache(built).verify()
    shutil.copytree(built, built.parent / "copy", copy_function=shutil.copyfile)
    with pytest.raises(CacheError, match="are damaged"):
        EncoderCache(built.parent / "copy").verify()


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in ("index.json", "encoder_output.bin")}


def cut(directory: Path) -> None:
    file = directory / "encoder_output.bin"
    file.write_bytes(file.read_bytes()[:-4])


def flip(directory: Path) -> None:
    file = directory / "encoder_output.bin"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)


def change_index(directory: Path, **values) -> None:
    index = json.loads((directory / "index.json").read_text())
    (directory / "index.json").write_text(json.dumps(index | values))


def swap_lengths(directory: Path) -> None:
    clips = json.loads((directory / "index.json").read_text())["clips"]
    first, second, *_ = clips
    clips[first], clips[second] = clips[second], clips[first]
    change_index(directory, clips=clips)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "bytes; expected"),
        (flip, r"the frames of clip 'clip-0-\d+' are damaged"),
        (lambda directory: (directory / "index.json").unlink(), "holds no complete cache"),
        (lambda directory: (directory / "encoder_output.bin").unlink(), "holds no complete cache"),
        (lambda directory: (directory / "index.json").write_text("[]"), "holds no complete cache"),
        (swap_lengths, "its index is damaged"),
        (lambda directory: change_index(directory, key="of another"), "other models or data"),
        (lambda directory: change_index(directory, dtype="int9"), "holds no complete cache"),
    ],
)
def test_a_wrong_cache_is_found_and_made_again(built, damage, message):
    whole = contents(built)
    damage(built)
    if "other models" not in message:
        with pytest.raises(CacheError, match=message):
            EncoderCache(built).verify()
    cache, said = build(built.parent)
    cache.verify()
    assert re.search(f"^cache: made again, because .*{message}", said)
    assert contents(built) == whole
    assert [path.name for path in built.parent.iterdir()] == [built.name]


def test_what_a_kill_left_half_written_is_replaced(built):
    partial = built.with_name(f"{built.name}.partial")
    shutil.copytree(built, partial)
    (partial / "index.json").unlink()
    shutil.rmtree(built)
    cache, said = build(built.parent)
    cache.verify()
    assert "will take about" in said
    assert [path.name for path in built.parent.iterdir()] == [built.name]


def test_a_cache_larger_than_the_memory_is_opened_and_read(built):
    """Nothing is read on opening, and the map takes no memory of its own."""
    frame_bytes = 48 * 4
    frames = 3 * psutil.virtual_memory().total // frame_bytes
    with open(built / "encoder_output.bin", "r+b") as file:
        try:
            file.truncate(frames * frame_bytes)  # a hole: it takes no space on the disk
        except OSError as error:
            pytest.skip(f"no file of this size here: {error}")
    clips = {"first": [10, 0], "rest": [frames - 10, 0]}
    change_index(built, clips=clips, checksum=zlib.crc32(json.dumps(clips).encode()))
    cache = EncoderCache(built)
    assert cache["rest"].shape == (frames - 10, 48)
    assert not cache["rest"][-1].any()
    assert cache["first"].any()


def test_its_size_is_said_before_anything_is_written(tmp_path):
    sizes = []

    def say(line: str) -> None:
        if "will take about" in line:
            sizes.append((line, list(tmp_path.rglob("*.bin"))))

    build(tmp_path / "caches", say=say)
    ((line, written),) = sizes
    assert written == []
    assert "12 clips" in line
    assert "GB free" in line


def test_a_cache_that_does_not_fit_the_disk_is_refused_before_anything_is_written(
    tmp_path, monkeypatch
):
    size = round(sum(clip.seconds for clip in load_data(clips())) * 50 * 48 * 4)
    usage = shutil.disk_usage(tmp_path)
    for free in (size - 1000, size + 1000):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        if free > size:
            build(tmp_path / "enough")
            continue
        expected = r"the cache needs about .* GB at .*choose another folder"
        with pytest.raises(ValueError, match=expected):
            build(tmp_path / "caches")
    assert list((tmp_path / "caches").iterdir()) == []


def test_clips_that_cannot_be_decoded_are_left_out_and_counted(tmp_path):
    rows = some_rows(3)
    for row, seconds in zip(rows, SECONDS, strict=False):
        row["seconds"] = seconds  # stated: the header is not looked at when the table is read
    rows[2]["audio"] = b"no sound"
    data = load_data(write_rows(tmp_path / "clips.parquet", rows))
    cache, said = build(tmp_path / "caches", data)
    assert list(cache.clips) == ["clip-0-1", "clip-0-0"]  # the longest comes first
    assert said.endswith("; 1 that can't be decoded are left out")
    (batch,) = cache.batches(data, [[0, 1, 2]], rank=0, num_processes=1)
    assert batch.ids == ["clip-0-0", "clip-0-1"]
    again = load_data(tmp_path / "clips.parquet")
    build(tmp_path / "caches", again)  # nothing is decoded, yet the clip can be named
    for each, reason in ((data, "unreadable audio"), (again, "not in the cache")):
        assert [(clip.id, clip.reason) for clip in each.left_out] == [("clip-0-2", reason)]


def test_a_cache_and_augmentation_of_its_input_exclude_each_other():
    for change in ({"gain_db": (-3, 3)}, {"time_masks": 1}, {"speed_factors": (0.9, 1.0)}):
        with pytest.raises(ValueError, match="they exclude each other"):
            TrainingSettings(data="d", out="o", cache="c", augment=change)
    TrainingSettings(data="d", out="o", cache="c", augment={"frame_dropout": 0.1})


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(tmp_path):
    settings = small_run(tmp_path / "run", cache=tmp_path / "caches")
    status, said = end(start(settings, flags=("--largest-file", "50000")))
    assert status == 1
    assert "could not be written" in said
    assert "nothing of it was kept" in said
    assert list((tmp_path / "caches").iterdir()) == []
