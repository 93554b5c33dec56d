"""Where a run's log goes besides `log.csv`: TensorBoard, Trackio, Weights & Biases.

Accelerate talks to them, and to the others that it knows; a tracker's package is its own affair.
"""

from dataclasses import asdict

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType

from tiny_asr.training.settings import TrainingSettings

PROJECT = "tiny_asr"
TRACKERS = [str(kind) for kind in LoggerType if kind != LoggerType.ALL]


def check_trackers(names: list[str]) -> list[str]:
    """The names, if Accelerate knows these trackers and their packages are installed; Accelerate
    itself would leave the others out without a word. Raises ValueError."""
    if unknown := [name for name in names if name not in TRACKERS]:
        raise ValueError(
            f"trackers {', '.join(unknown)} came; expected some of {', '.join(TRACKERS)}"
        )
    here = [str(kind) for kind in get_available_trackers()]
    if missing := [name for name in names if name not in here]:
        raise ValueError(
            f"tracker {', '.join(missing)} came, whose package is not installed; expected it: "
            f"pip install {' '.join(missing)}, or leave the tracker out"
        )
    return names


def start_trackers(accelerator: Accelerator, settings: TrainingSettings, resumed: bool) -> None:
    """Begin, with the settings as hyperparameters; a resumed run has told them already."""
    flat = asdict(settings)
    flat |= {f"augment.{name}": value for name, value in flat.pop("augment").items()}
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in flat.items()}
    accelerator.trackers = []  # of an earlier call in the same process
    try:
        accelerator.init_trackers(PROJECT, config=None if resumed else plain)
    except ImportError as error:
        raise ValueError(
            f"a tracker of {settings.trackers} lacks a package: {error}; install it, or leave the "
            "tracker out"
        ) from error


def track(accelerator: Accelerator, row: dict) -> None:
    """Pass on a line of the log, by its step."""
    values = {name: value for name, value in row.items() if name != "step" and value is not None}
    accelerator.log(values, step=row["step"])
