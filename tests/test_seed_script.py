"""The class text's own script runs, with the few edits that the design allows and no other.

The script is taken out of the text when the test runs, so it can't drift from it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from fixtures_models import folder

from tiny_asr import ASRConfig

CLIP = "1272-128104-0000"  # the first clip of the data set that the script names
EMBEDDINGS = 59  # its 93 680 samples in steps of 1600, the last one padded
HUB_CLIP = (
    'dataset = load_dataset("hf-internal-testing/librispeech_asr_dummy", "clean", '
    'split="validation")\naudio_sample = dataset[0]["audio"]'
)
LOCAL_CLIP = 'audio_sample = {"array": load_audio("clip").numpy(), "sampling_rate": 16_000}'
EDITS = {
    "encoder_outpu t": "encoder_output",  # its typo
    "from src.asr_config import": "from tiny_asr import",
    "from src.asr_modeling import": "from tiny_asr import",
    '"mazesmazes/tiny-audio", trust_remote_code=True': '"tiny"',
    "from datasets import load_dataset": "from tiny_asr import load_audio",
    HUB_CLIP: LOCAL_CLIP,
    "~30ms": "20 ms",
}


@pytest.fixture(scope="module")
def seed_script(shared) -> str:
    """The first Python block of the class text."""
    (text,) = shared.glob("seed/*.txt")
    return re.search(r"```python\n(.*?)```", text.read_text(encoding="utf-8"), re.DOTALL)[1]


@pytest.fixture(scope="module")
def run(shared, seed_script) -> tuple[str, Path]:
    """The edited script, run as a student would run it: what it prints, and where it ran."""
    directory = folder("seed_script")
    directory.mkdir()
    table = pyarrow.parquet.read_table(shared / "speech" / "dev.parquet", columns=["id", "audio"])
    audio = table["audio"][table["id"].to_pylist().index(CLIP)].as_py()
    (directory / "clip").write_bytes(audio["bytes"])
    for old, new in EDITS.items():
        seed_script = seed_script.replace(old, new)
    (directory / "trace_data.py").write_text(seed_script, encoding="utf-8")
    finished = subprocess.run(
        [sys.executable, "trace_data.py"],
        cwd=directory,
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, directory


@pytest.mark.parametrize("old", EDITS)
def test_each_edit_changes_exactly_one_place(seed_script, old):
    assert seed_script.count(old) == 1


def test_nothing_is_left_to_edit(seed_script):
    for old, new in EDITS.items():
        seed_script = seed_script.replace(old, new)
    assert not re.search(r"src\.|remote|datasets|dataset\b", seed_script)


def test_the_shapes_it_prints(run):
    printed, _ = run
    config = ASRConfig.from_pretrained("tiny")
    for line in (
        "Audio loaded. Shape: torch.Size([1, 93680]), Rate: 16000 Hz",
        f"Encoder output shape: torch.Size([1, {5 * EMBEDDINGS}, {config.encoder_dim}])",
        f"Time steps: {5 * EMBEDDINGS} (Each step is 20 ms of audio)",
        f"Projector output shape: torch.Size([1, {EMBEDDINGS}, {config.llm_dim}])",
        f"Time steps: {EMBEDDINGS} (Downsampled by 5x)",
        f"(Projected from {config.encoder_dim} to {config.llm_dim})",
    ):
        assert line in printed


@pytest.mark.parametrize("picture", ["encoder_output.png", "projector_output.png"])
def test_the_pictures_it_draws(run, picture):
    _, directory = run
    assert (directory / picture).read_bytes().startswith(b"\x89PNG")
    assert (directory / picture).stat().st_size > 10_000  # more than axes around nothing
