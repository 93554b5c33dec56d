"""Keep a finished training run as a pair's projector: data/models/NAME-asr.

    tiny-asr train --config data/models/tiny-asr/run.yaml
    python -m recipes.projector runs/tiny tiny

Copies the projector's weights as float16 (half the size; the card's WER is measured with them), the
run's log and its recipe. The pair's config is that of pairs.py and stays.
"""

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file

from recipes.steps import save_half
from recipes.text import CHECKOUT

RECIPE = (
    "# The recipe of this projector, from the checkout:\n"
    "# tiny-asr train --config data/models/{name}-asr/run.yaml\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep a run as a pair's projector.")
    parser.add_argument("run", type=Path, help="the folder of a finished `tiny-asr train`")
    parser.add_argument("name", help="tiny or small")
    parser.add_argument("--out", type=Path, help="the pair's folder, data/models/NAME-asr")
    a = parser.parse_args()
    out = a.out or CHECKOUT / "data" / "models" / f"{a.name}-asr"
    needed = ("model.safetensors", "log.csv", "run.yaml")
    if missing := [name for name in needed if not (a.run / name).is_file()]:
        parser.error(f"{a.run} has no {', '.join(missing)}; expected a finished run")
    save_half(load_file(a.run / "model.safetensors"), out)
    shutil.copyfile(a.run / "log.csv", out / "log.csv")
    recipe = (a.run / "run.yaml").read_text(encoding="utf-8")
    (out / "run.yaml").write_text(RECIPE.format(name=a.name) + recipe, encoding="utf-8")
    print(f"wrote {out}: {', '.join(needed)}")


if __name__ == "__main__":
    main()
