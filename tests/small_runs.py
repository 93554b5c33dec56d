"""What the tests of training share: a few clips, settings of a run that takes a second, its result.

The models are the random ones of `fixtures_models.py`; clips are noise, encoded as FLAC.
"""

import io
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import soundfile
import torch
from fixtures_models import encoder_dir, folder, noise, once, talkative_decoder_dir
from safetensors.torch import load_file

from tiny_asr.training.settings import TrainingSettings
from tiny_asr.training.trainer import Trainer

TEXT = "the cat sat on the mat and then the other one sat there too"
WORDS = TEXT.split()
SECONDS = (0.53, 1.01, 1.77, 2.38, 0.8, 0.8, 1.4, 2.0, 0.6, 1.2, 1.6, 0.9)


def encoded(waveform: torch.Tensor, file_format: str = "FLAC", subtype: str = "PCM_16") -> bytes:
    """A waveform (S,) at 16 kHz as an audio file."""
    file = io.BytesIO()
    soundfile.write(file, waveform.numpy(), 16_000, format=file_format, subtype=subtype)
    return file.getvalue()


def write_rows(path: Path, rows: list[dict]) -> Path:
    """A parquet file of `{id, text, audio: bytes, ...}`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = [row | {"audio": {"bytes": row["audio"], "path": None}} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)
    return path


def some_rows(count: int = len(SECONDS), seed: int = 0) -> list[dict]:
    """Clips of 0.5 to 2.4 s with texts of two to five words."""
    return [
        {
            "id": f"clip-{seed}-{number}",
            "text": " ".join(WORDS[number % 9 : number % 9 + 2 + number % 4]),
            "audio": encoded(noise(SECONDS[number % len(SECONDS)], 100 * seed + number)),
        }
        for number in range(count)
    ]


@once
def clips(count: int = len(SECONDS), seed: int = 0) -> Path:
    """A parquet file of `some_rows`."""
    return write_rows(folder(f"clips-{count}-{seed}.parquet"), some_rows(count, seed))


def small_run(out: Path, **changes) -> TrainingSettings:
    """A run of some 16 steps, 3 clips each: 4 epochs."""
    settings = {
        "data": clips(),
        "encoder": encoder_dir(),
        "decoder": talkative_decoder_dir(),
        "max_utterances": 48,
        "batch_seconds": 6.0,
        "warmup_utterances": 8,
        "log_every": 6,
        "eval_every": 24,
        "save_every": 12,
        "device": "cpu",
    }
    return TrainingSettings(out=out, **settings | changes)


def train(settings: TrainingSettings, resume: bool = False, on_log=None) -> tuple[Trainer, str]:
    """Run it here; returns the trainer and what it said."""
    lines = []
    trainer = Trainer(settings, say=lines.append, on_log=on_log)
    trainer.train(resume)
    return trainer, "\n".join(lines)


@once
def whole_run() -> Path:
    """The folder of a plain run that nothing interrupted. Nobody may change it."""
    train(small_run(folder("whole-run")))
    return folder("whole-run")


class Stop(Exception):
    """Raised by a test in the middle of a run, where a crash may come."""


def crash_at(step: int):
    """An `on_log` that breaks the run off at its first logged step from this one on."""

    def on_log(state, model):
        if state.step >= step:
            raise Stop

    return on_log


def checkpoints(out: Path) -> list[str]:
    """Everything in the folder of checkpoints."""
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def final(out: Path) -> dict[str, torch.Tensor]:
    """Weights and optimiser moments of the checkpoint that `latest` names."""
    directory = out / "checkpoints" / (out / "checkpoints" / "latest").read_text()
    files = {name: load_file(directory / f"{name}.safetensors") for name in ("model", "optimizer")}
    return {f"{name}.{key}": value for name, file in files.items() for key, value in file.items()}


def assert_same(out: Path, other: Path) -> None:
    """Two runs ended with bitwise the same tensors, after as many steps."""
    ours, theirs = final(out), final(other)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 10
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    latest = [(folder / "checkpoints" / "latest").read_text() for folder in (out, other)]
    assert latest[0] == latest[1]


def start(*settings: TrainingSettings, flags: tuple[str, ...] = (), launcher: tuple[str, ...] = ()):
    """Train in another process, or in those of a launcher; its lines come through a pipe."""
    recipes = []
    for one in settings:
        recipes.append(f"{one.out}.yaml")
        one.save(recipes[-1])
    script = str(Path(__file__).with_name("run_training.py"))
    return subprocess.Popen(
        [sys.executable, *launcher, script, *recipes, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )


def read_until(process: subprocess.Popen, text: str) -> str:
    """Read the process's lines up to the first that holds the text; all of them if none does."""
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            break
    return said


def end(process: subprocess.Popen, number: signal.Signals | None = None) -> tuple[int, str]:
    """Signal the process, wait for its end; its status and its last lines."""
    if number is not None:
        process.send_signal(number)
    try:
        said, _ = process.communicate(timeout=240)
    finally:
        process.kill()  # does nothing to one that has ended
    return process.returncode, said
