"""Keep what training made: weights in float16, and the log, in the folders of data/models.

    python -m recipes.ears.keep encoder  # tiny-encoder, and the projector of tiny
    python -m recipes.ears.keep projectors  # those of small and medium

Configs are recipes.tiny_parts' and recipes.pairs'; weights that lay beside them are replaced, or
with `--before pair=0.3` become 30 % of a mean: a run that went on from them may be better with some
of them, as in a model soup (Wortsman et al. 2022).
"""

import argparse
import csv
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from safetensors.torch import load_file

from recipes.steps import save_half
from recipes.text import CHECKOUT, WORK

# For each program: where in its folder the weights lie, and where they go.
KEPT = {
    "encoder": {"encoder": "tiny-encoder", "pair": "tiny-asr"},
    "projectors": {"small": "small-asr", "medium": "medium-asr"},
}
COUNTED = ("step", "seconds", "clips", "hours")  # from the beginning of a run


def append_log(new: Path, log: Path) -> None:
    """Put a run's log after that of the run that it went on from; both counted from 0."""
    tables = [list(csv.DictReader(path.open(encoding="utf-8"))) for path in (log, new)]
    ends = {name: float(tables[0][-1][name] or 0) for name in COUNTED}
    for row in tables[1]:
        row |= {n: f"{float(row[n]) + ends[n]:.10g}" for n in COUNTED if row[n]}
    rows = [row for table in tables for row in table]
    with open(log, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, dict.fromkeys(n for r in rows for n in r), lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)


def keep(
    run: Path,
    models: Path,
    folders: dict[str, str],
    before: Mapping[str, float] = MappingProxyType({}),
    goes_on: bool = False,
) -> None:
    """Copy the weights in these folders of a run, and its log; a pair trained along has none.

    Args:
        before: by the run's folders, the share of what lay there in a mean with the run's weights.
        goes_on: the run went on from those weights, and its log from theirs.
    """
    for source, target in folders.items():
        weights = load_file(run / source / "model.safetensors")
        if share := before.get(source):
            had = load_file(models / target / "model.safetensors")
            weights = {
                name: share * had[name].float() + (1 - share) * weight.float()
                for name, weight in weights.items()
            }
        save_half(weights, models / target)
        if source != "pair":
            log = models / target / "log.csv"
            (append_log if goes_on else shutil.copy)(run / "log.csv", log)
        print(f"kept {run / source} in {models / target}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep what training made.")
    parser.add_argument("program", choices=KEPT)
    parser.add_argument("--run", type=Path, help="its folder (runs/prepare/PROGRAM)")
    parser.add_argument(
        "--before", nargs="+", default=[], metavar="FOLDER=SHARE", help="of what lay there"
    )
    parser.add_argument("--goes-on", action="store_true", help="put the log after the one there")
    parser.add_argument("--models", type=Path, default=CHECKOUT / "data" / "models")
    a = parser.parse_args()
    run = a.run or WORK / a.program
    before = {name: float(share) for name, share in (one.split("=") for one in a.before)}
    if unknown := before.keys() - KEPT[a.program]:
        parser.error(f"--before {', '.join(unknown)}; expected of {', '.join(KEPT[a.program])}")
    for source in KEPT[a.program]:
        if not (run / source / "model.safetensors").is_file():
            parser.error(f"no weights in {run / source}; run recipes.ears.{a.program}, or --run")
    keep(run, a.models, KEPT[a.program], before, a.goes_on)


if __name__ == "__main__":
    main()
