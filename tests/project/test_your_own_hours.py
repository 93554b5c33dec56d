"""The page on training with recordings of one's own: its program, its YAML and its commands."""

import re
import subprocess
import sys

import numpy as np
import soundfile
import yaml
from command_runs import run_commands
from conftest import REPOSITORY

from tiny_asr.data.dataset import load_data
from tiny_asr.training.settings import TrainingSettings

PAGE = (REPOSITORY / "docs" / "your_own_hours.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_long_recordings_become_clips_with_their_own_words(tmp_path):
    """Ten bundled sentences, joined with pauses into one recording for each of two speakers."""
    clips = load_data(REPOSITORY / "data" / "speech" / "test.parquet", limit=10)
    (tmp_path / "long").mkdir()
    texts = {"anna-1": [], "bella-1": []}
    for name, chosen in zip(texts, (range(6), range(6, 10)), strict=True):
        sound = []
        for index in chosen:
            sound += [clips[index].load().numpy(), np.zeros(8000, dtype=np.float32)]
            texts[name] += clips[index].text.capitalize().split()
        soundfile.write(tmp_path / "long" / f"{name}.flac", np.concatenate(sound), 16_000)
        (tmp_path / "long" / f"{name}.txt").write_text(" ".join(texts[name]) + ".\n")
    (program,) = blocks("python")
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, text=True, capture_output=True
    )
    assert ran.returncode == 0, ran.stderr
    pieces, kept = map(int, re.match(r"(\d+) pieces, (\d+) of them", ran.stdout).groups())
    assert 3 <= kept <= pieces
    for name, speaker in (("train", "anna"), ("test", "bella")):
        data = load_data(tmp_path / "my" / f"{name}.parquet")
        whole = " ".join(texts[f"{speaker}-1"]).lower()
        for clip in data:
            assert clip.groups["speaker"] == speaker
            assert clip.text in whole and 1 < clip.seconds <= 12


def test_the_yaml_is_one_that_training_takes(tmp_path):
    recipe, small = blocks("yaml")
    (tmp_path / "small.yaml").write_text(small)
    assert TrainingSettings.load(tmp_path / "small.yaml").warmup_utterances == 100
    (tmp_path / "mine.yaml").write_text(recipe)
    settings = TrainingSettings.load(tmp_path / "mine.yaml")
    assert [item["weight"] for item in settings.data] == [2, 1]
    assert yaml.safe_load(recipe)["augment"]["time_masks"] == settings.augment.time_masks


def test_the_commands_take_their_options(tmp_path):
    lines = [line for line in PAGE.splitlines() if line.startswith("tiny-asr ")]
    names = sorted({line.split()[1] for line in lines})
    assert names == ["evaluate", "serve", "train"]
    ran = run_commands([[name, "--help"] for name in names], tmp_path)
    known = {name: out for name, (_, out, _) in zip(names, ran, strict=True)}
    for line in lines:
        options = re.findall(r"--[\w-]+", line)
        assert [option for option in options if f"{option} " not in known[line.split()[1]]] == []


def test_the_plan_on_the_page_is_the_plan_that_is_printed(tmp_path):
    command = ["train", "--config", "full", "--plan"]
    ((status, out, _),) = run_commands([command], tmp_path)
    (shown,) = blocks("text")
    assert status == 0
    assert [line for line in shown.splitlines() if line not in out.splitlines()] == []
