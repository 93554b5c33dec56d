"""Short clips joined into long ones: of one speaker, whole, in order, none twice."""

import io
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from small_runs import encoded, noise, write_rows

from recipes import long
from tiny_asr.data.utterance import Utterance


def clips(*seconds: float) -> list[Utterance]:
    return [Utterance(str(n), f"text {n}", length, {}, b"") for n, length in enumerate(seconds)]


def test_groups_keep_the_order_and_use_no_clip_twice():
    lengths = np.random.default_rng(0).uniform(1, 20, 300)
    found = list(long.groups(clips(*lengths)))
    ids = [int(clip.id) for group in found for clip in group]
    assert ids == sorted(set(ids)) and len(ids) > 200
    totals = [sum(clip.seconds for clip in group) for group in found]
    assert all(len(group) > 1 for group in found)
    assert min(totals) >= long.SHORTEST and max(totals) <= max(long.TARGETS)
    assert len({round(total / 4) for total in totals}) >= 4  # short ones and long ones


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ((4, 4, 4, 4, 4), [[0, 1, 2, 3]]),  # 16 s are aimed at; the last is too short alone
        ((29, 6, 7), [[1, 2]]),  # what fits beside nothing is left out
        ((13, 4), [[0, 1]]),  # one clip is no group, so it takes another
        ((5, 5), []),
    ],
)
def test_small_groups(lengths, groups):
    assert [[int(c.id) for c in group] for group in long.groups(clips(*lengths))] == groups


def test_the_sound_and_the_texts_are_joined(tmp_path):
    rows = [
        {"id": str(n), "speaker": "ab"[n % 2], "text": f"word {n}", "audio": encoded(noise(7, n))}
        for n in range(4)
    ]
    write_rows(tmp_path / "short.parquet", rows)
    out = tmp_path / "long.parquet"
    command = [
        sys.executable,
        "-m",
        "recipes.long",
        "--real",
        tmp_path / "short.parquet",
        "--out",
        out,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = pyarrow.parquet.read_table(out).to_pylist()
    assert [(row["id"], row["speaker"], row["text"]) for row in made] == [
        ("long-0", "a", "word 0 word 2"),
        ("long-1", "b", "word 1 word 3"),
    ]
    sound, rate = soundfile.read(io.BytesIO(made[0]["audio"]["bytes"]), dtype="float32")
    assert rate == 16_000 and made[0]["seconds"] == pytest.approx(14, abs=0.01)
    expected = np.concatenate([noise(7, 0), noise(7, 2)])
    assert np.abs(sound - expected[: len(sound)]).max() < 0.01
