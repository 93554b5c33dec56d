"""Keep what training made: weights in float16, and the log, in the folders of data/models.

    python -m recipes.ears.keep encoder  # tiny-encoder, and the projector of tiny
    python -m recipes.ears.keep projectors  # those of small and medium; --only small

Configs are recipes.tiny_parts' and recipes.pairs'; weights that lay beside them are replaced, or
with `--before 0.3` become 30 % of a mean: a run that went on from them is better with a part of
them, as in a model soup (Wortsman et al. 2022).
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


def keep(run: Path, models: Path, folders: dict[str, str], before: float = 0.0) -> None:
    """Copy the weights in these folders of a run, and its log; a pair trained along has none.

    Args:
        before: share of the weights that lay there, in the mean with the run's.
    """
    for source, target in folders.items():
        weights = load_file(run / source / "model.safetensors")
        if before:
            had = load_file(models / target / "model.safetensors")
            weights = {
                name: before * had[name].float() + (1 - before) * weight.float()
                for name, weight in weights.items()
            }
        save_half(weights, models / target)
        if source != "pair":
            shutil.copy(run / "log.csv", models / target / "log.csv")
        print(f"kept {run / source} in {models / target}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep what training made.")
    parser.add_argument("program", choices=KEPT)
    parser.add_argument("--run", type=Path, help="its folder (runs/prepare/PROGRAM)")
    parser.add_argument("--only", help="one of the run's folders")
    parser.add_argument("--before", type=float, default=0.0, help="share of what lay there")
    parser.add_argument("--models", type=Path, default=CHECKOUT / "data" / "models")
    a = parser.parse_args()
    run = a.run or WORK / a.program
    kept = {name: to for name, to in KEPT[a.program].items() if a.only in (None, name)}
    for source in kept:
        if not (run / source / "model.safetensors").is_file():
            parser.error(f"no weights in {run / source}; run recipes.ears.{a.program}, or --run")
    keep(run, a.models, kept, a.before)


if __name__ == "__main__":
    main()
