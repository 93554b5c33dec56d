"""Keep what training made: weights in float16, and the log, in the folders of data/models.

    python -m recipes.ears.keep encoder  # tiny-encoder, and the projector of tiny
    python -m recipes.ears.keep projectors  # those of small and medium

Configs are recipes.tiny_parts' and recipes.pairs'; weights that lay beside them are replaced.
"""

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file

from recipes.steps import save_half
from recipes.text import CHECKOUT, WORK

# For each program: where in its folder the weights lie, and where they go.
KEPT = {
    "encoder": {"encoder": "tiny-encoder", "pair": "tiny-asr"},
    "projectors": {"small": "small-asr", "medium": "medium-asr"},
}


def keep(run: Path, models: Path, folders: dict[str, str]) -> None:
    """Copy the weights in these folders of a run, and its log; a pair trained along has none."""
    for source, target in folders.items():
        save_half(load_file(run / source / "model.safetensors"), models / target)
        if source != "pair":
            shutil.copy(run / "log.csv", models / target / "log.csv")
        print(f"kept {run / source} in {models / target}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep what training made.")
    parser.add_argument("program", choices=KEPT)
    parser.add_argument("--run", type=Path, help="its folder (runs/prepare/PROGRAM)")
    parser.add_argument("--models", type=Path, default=CHECKOUT / "data" / "models")
    a = parser.parse_args()
    run = a.run or WORK / a.program
    for source in KEPT[a.program]:
        if not (run / source / "model.safetensors").is_file():
            parser.error(f"no weights in {run / source}; run recipes.ears.{a.program}, or --run")
    keep(run, a.models, KEPT[a.program])


if __name__ == "__main__":
    main()
