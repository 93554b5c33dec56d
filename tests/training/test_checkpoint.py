"""Checkpoints: what was saved comes back, a damaged one is passed over, the last two are kept."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import small_run, train
from torch import nn

from tiny_asr.training.checkpoint import (
    DiskError,
    TrainingState,
    alone_in,
    has_checkpoint,
    has_run,
    load_checkpoint,
    save_checkpoint,
    save_model,
)


def a_step_on(layer: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    """Train a little, so that weights, moments and counts all change."""
    layer(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    state.step += 1
    state.utterances += 4
    state.losses.append(1 / state.step)


def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
    layer = nn.Linear(3, 2)
    return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)


@pytest.fixture
def run(tmp_path) -> tuple[Path, list[dict]]:
    """A folder with the checkpoints of steps 1, 2 and 3, and the weights after each."""
    layer, optimizer = fresh()
    state, weights = TrainingState(scaler={"scale": 512.0}), []
    for _ in range(3):
        a_step_on(layer, optimizer, state)
        save_checkpoint(tmp_path, layer, optimizer, state)
        weights.append(deepcopy(layer.state_dict()))
    return tmp_path, weights


def same(weights: dict, others: dict) -> bool:
    return all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_checkpoint_restores_everything_that_the_next_step_needs(tmp_path):
    layer, optimizer = fresh()
    state = TrainingState(epoch=2, batch=7, best=0.5, skipped=1, scaler={"scale": 512.0})
    a_step_on(layer, optimizer, state)
    save_checkpoint(tmp_path, layer, optimizer, state)
    saved = deepcopy(state)
    for _ in range(3):
        a_step_on(layer, optimizer, state)

    torch.manual_seed(99)
    other, its_optimizer = fresh()
    restored = load_checkpoint(tmp_path, other, its_optimizer)
    assert restored == saved
    for _ in range(3):  # the same random inputs, weights and moments, or these would differ
        a_step_on(other, its_optimizer, restored)
    assert same(layer.state_dict(), other.state_dict())
    assert restored == state


def test_the_last_two_are_kept_and_latest_names_the_newer(run):
    out, _ = run
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert names == ["latest", "step-2", "step-3"]
    assert (out / "checkpoints" / "latest").read_text() == "step-3"


def test_nothing_in_a_checkpoint_can_run_code(run):
    folder = run[0] / "checkpoints" / "step-3"
    files = sorted(path.name for path in folder.iterdir())
    assert files == [
        "model.safetensors",
        "optimizer.safetensors",
        "random.safetensors",
        "state.json",
    ]
    for name in files[:3]:
        assert load_file(folder / name)
    assert json.loads((folder / "state.json").read_text())["step"] == 3


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", cut),
        ("optimizer.safetensors", cut),
        ("random.safetensors", Path.unlink),
        ("state.json", cut),
        ("state.json", lambda file: file.write_text('{"steps": 3}')),
        ("model.safetensors", lambda file: file.write_bytes(b"")),
    ],
)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(run, name, damage):
    out, weights = run
    damage(out / "checkpoints" / "step-3" / name)
    layer, optimizer = fresh()
    said = []
    state = load_checkpoint(out, layer, optimizer, said.append)
    assert state.step == 2
    assert same(layer.state_dict(), weights[1])
    assert len(said) == 1
    assert "step-3 is damaged" in said[0]

    a_step_on(layer, optimizer, state)  # comes by the damaged one, and replaces it
    save_checkpoint(out, layer, optimizer, state)
    assert load_checkpoint(out, *fresh(), said.append).step == 3
    assert len(said) == 1


def test_what_a_kill_left_half_written_does_not_count(run):
    out, _ = run
    half = out / "checkpoints" / "step-4.partial"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"torn")
    said = []
    assert load_checkpoint(out, *fresh(), said.append).step == 3
    assert said == []
    (out / "checkpoints" / "latest").unlink()  # killed between the rename and this file
    assert load_checkpoint(out, *fresh(), said.append).step == 3


def test_without_a_usable_checkpoint_there_is_an_error(run, tmp_path_factory):
    out, _ = run
    for step in ("step-2", "step-3"):
        cut(out / "checkpoints" / step / "state.json")
    said = []
    with pytest.raises(ValueError, match="no usable checkpoint under"):
        load_checkpoint(out, *fresh(), said.append)
    assert len(said) == 2
    empty = tmp_path_factory.mktemp("empty")
    assert has_checkpoint(out)
    assert not has_checkpoint(empty)
    assert has_run(out)
    assert not has_run(empty)


def test_a_checkpoint_of_another_model_is_refused(run):
    layer = nn.Linear(3, 5)
    with pytest.raises(ValueError, match=r"(?s)does not fit this model.*run\.yaml"):
        load_checkpoint(run[0], layer, torch.optim.AdamW(layer.parameters()))


def test_a_folder_that_cannot_be_written_is_an_error_that_says_what_is_still_good(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(DiskError, match="There is no checkpoint yet"):
        save_checkpoint(tmp_path, *fresh(), TrainingState(step=1))

    def breaks_off(folder: Path) -> None:
        (folder / "config.json").write_text("new")
        raise OSError(28, "No space left on device")

    def refuses(folder: Path) -> None:
        raise ValueError("no such format")

    (tmp_path / "config.json").write_text("old")
    with pytest.raises(DiskError, match=r"No space left on device.*is the disk full"):
        save_model(tmp_path, breaks_off)
    with pytest.raises(ZeroDivisionError):  # a bug is not taken for a full disk
        save_model(tmp_path, lambda folder: 1 / 0)
    with pytest.raises(ValueError, match="no such format"):
        save_model(tmp_path, refuses)
    assert (tmp_path / "config.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "config.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_a_folder_holds_one_run_at_a_time_and_a_killed_one_holds_it_no_more(tmp_path):
    out, quick = tmp_path / "run", {"max_utterances": 3}
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tiny_asr.training.checkpoint import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print('held', flush=True); time.sleep(300)"
    )
    command = [sys.executable, "-c", program, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for resume in (False, True):
            with pytest.raises(ValueError, match=r"^another training writes into .*run now; exp"):
                train(small_run(out, **quick), resume)
        assert [path.name for path in out.iterdir()] == [".lock"]
        other.kill()
    train(small_run(out, **quick))
    with alone_in(out):  # the run that has ended holds it no more, either
        assert has_run(out)


def test_without_locks_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with alone_in(tmp_path), alone_in(tmp_path):
        pass
