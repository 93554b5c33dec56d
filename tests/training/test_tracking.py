"""Trackers: what is in log.csv is there too, and a missing package is said before work begins."""

import struct
import time
from pathlib import Path

import pytest
from small_runs import Stop, crash_at, small_run, train

from tiny_asr import ASRModel
from tiny_asr.training import tracking
from tiny_asr.training.log import read_log
from tiny_asr.training.settings import TrainingSettings
from tiny_asr.training.tracking import TRACKERS


def events(folder: Path) -> list:
    """What TensorBoard would read: records of a length, a checksum, an event, a checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for file in sorted(folder.rglob("events.out.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[12 + length + 4 :]
    return found


def test_a_run_logs_to_tensorboard_what_its_csv_holds_also_when_resumed(tmp_path):
    pytest.importorskip("tensorboardX", reason="pip install '.[track]' in the clone")
    run = small_run(tmp_path / "run", trackers=["tensorboard"], learning_rate=0.002)
    with pytest.raises(Stop):
        train(run, on_log=crash_at(6))
    time.sleep(1.1)  # files of events are named by the second
    train(run, resume=True)
    scalars, settings = {}, []
    for event in events(tmp_path / "run"):
        settings += [value for value in event.summary.value if "hparams" in value.tag]
        for value in event.summary.value:
            scalars.setdefault(value.tag, {})[event.step] = value.simple_value
    rows = read_log(tmp_path / "run" / "log.csv")
    for name in ("loss", "learning_rate", "utterances"):
        expected = {int(row["step"]): pytest.approx(row[name], rel=1e-4) for row in rows}
        assert scalars[name] == expected
    told = [str(value) for value in settings if "session_start_info" in value.tag]
    assert len(told) == 1 and "learning_rate" in told[0]  # once, not again when resumed


def test_a_tracker_that_is_unknown_or_not_installed_is_said_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(ASRModel, "from_pretrained", lambda *_, **__: pytest.fail("work began"))
    with pytest.raises(ValueError, match=r"trackers notes came; expected some of .*tensorboard"):
        train(small_run(tmp_path / "run", trackers=["notes"]))
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [])
    with pytest.raises(ValueError, match=r"tracker wandb came, .* pip install wandb"):
        train(small_run(tmp_path / "run", trackers=["wandb"]))
    assert {"tensorboard", "trackio", "wandb"} <= set(TRACKERS)
    assert not (tmp_path / "run").exists()


def test_trackers_are_no_part_of_the_weights(tmp_path):
    TrainingSettings(data="d", out="o", trackers=["wandb"]).save(tmp_path / "run.yaml")
    assert TrainingSettings(data="d", out="o").changed_since(tmp_path / "run.yaml") == []
