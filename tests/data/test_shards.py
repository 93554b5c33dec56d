"""Tar shards: clips are read from where they lie, whole or not at all."""

import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
import torch
from small_runs import (
    Stop,
    assert_same,
    crash_at,
    encoded,
    end,
    final,
    small_run,
    some_rows,
    start,
    train,
    write_rows,
)

from tiny_asr.data.dataset import load_data
from tiny_asr.data.utterance import Member

RATE = 16_000
TONE = 0.3 * np.sin(np.arange(RATE) * 0.1)


def sound(seconds: float = 1.0, form: str = "FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, TONE[: round(seconds * RATE)], RATE, format=form)
    return file.getvalue()


def write_shard(path, members: dict[str, bytes | str], mode: str = "w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            content = content.encode() if isinstance(content, str) else content
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def shards_of(folder, rows: list[dict], each: int = 5):
    for begin in range(0, len(rows), each):
        members = {}
        for row in rows[begin : begin + each]:
            members |= {f"{row['id']}.flac": row["audio"], f"{row['id']}.txt": row["text"]}
        write_shard(folder / f"shard-{begin:03}.tar", members)
    return folder


def test_texts_and_columns_beside_the_sound(tmp_path):
    members = {
        "a/1.flac": sound(0.5),
        "a/1.txt": "one",
        "a/2.json": json.dumps({"text": "two", "speaker": "anna", "seconds": 0.75}),
        "a/2.wav": sound(0.75, "WAV"),
        "a/3.txt": "no sound",
        "a/4.flac": sound(),
    }
    clips = load_data(write_shard(tmp_path / "x.tar", members))
    assert [(c.id, c.text, c.seconds) for c in clips] == [("a/1", "one", 0.5), ("a/2", "two", 0.75)]
    assert clips[1].groups == {"speaker": "anna"}
    assert clips.dropped == {"empty audio": 1, "no text": 1}
    assert all(isinstance(clip.audio, Member) for clip in clips)
    assert torch.allclose(clips[0].load(), torch.tensor(TONE[:8000]).float(), atol=1e-4)


def test_a_folder_of_shards_is_what_its_clips_are_alone(tmp_path):
    rows = some_rows()
    clips = load_data(shards_of(tmp_path / "shards", rows))
    assert [clip.id for clip in clips] == [row["id"] for row in rows]
    for clip, row in zip(clips, rows, strict=True):
        assert clip.audio.read() == row["audio"]


@pytest.mark.parametrize("damage", ["torn", "compressed", "json", "no tar"])
def test_a_bad_shard_is_an_error_that_names_it(tmp_path, damage):
    members = {"1.flac": sound(), "1.json": "{" if damage == "json" else '{"text": "yes"}'}
    path = write_shard(tmp_path / "x.tar", members, "w:gz" if damage == "compressed" else "w")
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:2000])
    if damage == "no tar":
        path.write_bytes(b"something else" * 100)
    with pytest.raises(ValueError, match=r"x\.tar can't be read as a shard.*not compressed"):
        load_data(path)


def test_a_shard_that_shrinks_later_costs_its_clips_alone(tmp_path):
    path = write_shard(tmp_path / "x.tar", {"1.flac": sound(), "1.txt": "yes"})
    clips = load_data(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="ends after 488 bytes"):
        clips[0].load()


def test_from_shards_a_run_is_killed_and_goes_on_in_two_processes(tmp_path):
    """It ends with the same weights as one in memory that nothing disturbed."""
    rows = [
        row | {"audio": encoded(torch.tensor(TONE).float().repeat(2)[: 9000 + 1500 * n])}
        for n, row in enumerate(some_rows())
    ]
    shards = shards_of(tmp_path / "shards", rows)
    whole, broken = (small_run(tmp_path / name, data=shards) for name in ("whole", "broken"))
    train(whole)
    with pytest.raises(Stop):
        train(broken, on_log=crash_at(8))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    status, said = end(start(broken, launcher=launcher, flags=("--resume",)))
    assert status == 0 and "resumed at step" in said, said
    ours, theirs = final(tmp_path / "whole"), final(tmp_path / "broken")
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4)
    table = write_rows(tmp_path / "clips.parquet", rows)
    train(small_run(tmp_path / "in memory", data=table))
    assert_same(tmp_path / "in memory", tmp_path / "whole")
