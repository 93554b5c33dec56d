"""Two GPUs against one: the same training, with the same batch on each GPU.

Every run is a process of its own, started as a user would start it, and its speed is read from its
log. The first half of the log is left out: in it memory is taken, and layers are compiled, again
for some lengths that come late. Of the other half's intervals the median counts.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

from tiny_asr.training.log import read_log
from tiny_asr.training.settings import TrainingSettings

INTERVALS = 8  # of the log, half of them to warm up


def measure_scaling(settings: TrainingSettings, processes: int, utterances: int) -> dict:
    """Train on one GPU, then on several (on processes, where there is no GPU).

    Args:
        settings: of the run on one GPU; `out` is a folder for both.
        processes: how many GPUs.
        utterances: clips of each GPU in each interval.
    Returns:
        Utterances per second of both, and the efficiency: the gain over what is possible. The
        `intervals` are the measurements whose medians these are.
    """
    rates: dict[int, list[float]] = {}
    for count in (1, processes):
        out = Path(settings.out) / str(count)
        recipe = Path(settings.out) / f"{count}.yaml"
        recipe.parent.mkdir(parents=True, exist_ok=True)
        replace(
            settings,
            out=str(out),
            batch_seconds=settings.batch_seconds * count,
            max_utterances=INTERVALS * utterances * count,
            log_every=utterances * count,
        ).save(recipe)
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command = [*launch, "-m", "tiny_asr.cli", "train", "--config", str(recipe)]
        ended = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        if ended.returncode:
            said = [line for line in ended.stderr.splitlines() if "Error" in line or "asr:" in line]
            raise ValueError(f"training in {count} processes failed: {' '.join(said[:3])}")
        speeds = [row["utterances_per_second"] for row in read_log(out / "log.csv")]
        rates[count] = speeds[len(speeds) // 2 :]
    alone, together = median(rates[1]), median(rates[processes])
    gain = together / alone
    return {
        "processes": processes,
        "batch_seconds_each": settings.batch_seconds,
        "per_second_1": alone,
        f"per_second_{processes}": together,
        "intervals": {str(count): each for count, each in rates.items()},
        "gain": gain,
        "efficiency": gain / processes,
    }
