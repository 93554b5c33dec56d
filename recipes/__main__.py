"""Make what is bundled in data/ again: `python -m recipes all`, or one step of it.

Each step is one program of this folder with its options as they were. It says what it costs before
it starts. What is done is noted in runs/prepare/done/, so that a chain that was interrupted goes on
where it stopped; a step whose command has changed since, and all that build on it, are done again.
(An edit of a program is not noticed: delete the step's note there.)
"""

import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import typer

from recipes.text import CHECKOUT, SHARED, WORK, local_or_hub

DONE = WORK / "done"
REAL = SHARED / "weights"
WHISPER = local_or_hub(REAL / "whisper-base", "openai/whisper-base")
SMOLLM2 = local_or_hub(REAL / "smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct")


@dataclass(frozen=True)
class Step:
    """One command of the chain.

    name: of the step, and what it makes.
    command: after `python -m`.
    cost: time as measured once, and where.
    needs: the steps whose results it reads.
    """

    name: str
    makes: str
    command: str
    cost: str
    needs: tuple[str, ...] = ()


STEPS = (
    Step("text", "runs/prepare/text", "recipes.text", "42 s on 2 cores"),
    Step("parts", "configs and tokenizer of the tiny parts", "recipes.tiny_parts",
         "8 s on 2 cores", ("text",)),
    Step("pairs", "configs of the pairs", "recipes.pairs", "3 s on 2 cores", ("parts",)),
    Step("sample", "data/sample.flac", "recipes.sample", "20 s on 2 cores"),
    Step("kokoro-texts", "runs/prepare/kokoro/*.txt", "recipes.kokoro.texts", "93 s on one core"),
    Step("kokoro", "runs/prepare/kokoro/speech", "recipes.kokoro.speak --hours 60 --workers 12",
         "105 s on two H200", ("kokoro-texts",)),
    Step("robots", "runs/prepare/bulk", "recipes.speech bulk --hours 35 --seed 5",
         "2 min on 16 cores, 18 on 2", ("text",)),
    Step("bundled-speech", "data/speech", "recipes.speech bundled", "not measured whole",
         ("text", "kokoro-texts")),
    Step("no-speech", "runs/prepare/no-speech", "recipes.no_speech", "17 s on 2 cores"),
    Step("pack", "runs/prepare/packs, and packs of made speech", "recipes.ears.pack",
         "not measured whole", ("kokoro", "robots", "bundled-speech", "no-speech")),
    Step("decoder", "data/models/tiny-decoder", "recipes.decoder", "9 min on one H100",
         ("text", "parts")),
    Step("encoder", "runs/prepare/encoder", f"recipes.ears.encoder --teacher {WHISPER} "
         "--out runs/prepare/encoder --minutes 8.6 --batch-seconds 1200 --apart 0.06",
         "9 min on one H200", ("pack", "decoder", "pairs")),
    Step("tiny", "data/models/tiny-encoder, tiny-asr", "recipes.ears.keep encoder "
         "--before encoder=0.5 pair=0.5 --goes-on", "1 s", ("encoder",)),
    Step("projectors", "runs/prepare/projectors", f"recipes.ears.projectors small medium={SMOLLM2} "
         "--init small=data/models/small-asr medium=data/models/medium-asr "
         f"--encoder {WHISPER} --out runs/prepare/projectors --minutes 10.3 --batch-seconds 900",
         "11 min on one H200", ("pack", "decoder", "pairs")),
    Step("small-medium", "data/models/small-asr, medium-asr", "recipes.ears.keep projectors "
         "--before small=0.5 medium=0.5 --goes-on", "1 s", ("projectors",)),
    Step("ctc-tiny", "ctc.safetensors of tiny", "recipes.ears.blank tiny", "4 min on one core",
         ("tiny",)),
    Step("ctc-small", "ctc.safetensors of small", f"recipes.ears.blank small --encoder {WHISPER}",
         "4 min on one core", ("small-medium",)),
    Step("ctc-medium", "ctc.safetensors of medium", "recipes.ears.blank medium --batch 4 "
         f"--encoder {WHISPER} --decoder {SMOLLM2}", "9 min on one core", ("small-medium",)),
    Step("measure-tiny", "data/models/tiny-asr/results.csv", "recipes.measure tiny",
         "6 min on one core", ("ctc-tiny",)),
    Step("measure-small", "data/models/small-asr/results.csv",
         f"recipes.measure small --brief --encoder {WHISPER}", "12 min on 2 cores",
         ("ctc-small",)),
    Step("measure-medium", "data/models/medium-asr/results.csv",
         f"recipes.measure medium --brief --encoder {WHISPER} --decoder {SMOLLM2}",
         "not measured whole", ("ctc-medium",)),
    Step("curves", "pictures of the logs", "recipes.curves", "4 s",
         ("tiny", "small-medium", "decoder")),
)  # fmt: skip

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def with_needs(names: list[str]) -> list[Step]:
    """The named steps and all that they need, in order."""
    known = {step.name: step for step in STEPS}
    if unknown := sorted(set(names) - known.keys()):
        raise ValueError(f"no step {', '.join(unknown)}; expected some of: {', '.join(known)}")
    wanted = set(names)
    for step in reversed(STEPS):  # a step stands behind all that it needs
        if step.name in wanted:
            wanted.update(step.needs)
    return [step for step in STEPS if step.name in wanted]


def to_do(steps: list[Step]) -> list[Step]:
    """Those of the steps that were not done with this command, or build on one that was not."""
    again: dict[str, Step] = {}
    for step in steps:
        note = DONE / f"{step.name}.json"
        before = json.loads(note.read_text("utf-8"))["command"] if note.is_file() else None
        if before != step.command or any(name in again for name in step.needs):
            again[step.name] = step
    return list(again.values())


@app.command()
def show() -> None:
    """List the steps: what each makes and costs, and whether it is done."""
    waiting = {step.name for step in to_do(list(STEPS))}
    for step in STEPS:
        mark = " " if step.name in waiting else "✓"
        print(f"{mark} {step.name:<15} {step.cost:<31} {step.makes}")


@app.command("all")
def run(
    steps: Annotated[list[str] | None, typer.Argument(help="these and what they need")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the commands only")] = False,
) -> None:
    """Do all steps that are not done yet, or the named ones and what they need."""
    waiting = to_do(with_needs(steps or [step.name for step in STEPS]))
    for number, step in enumerate(waiting, 1):
        command = [sys.executable, "-m", *shlex.split(step.command)]
        print(f"[{number}/{len(waiting)}] {step.name}: makes {step.makes}; took {step.cost}")
        print(f"    python -m {step.command}", flush=True)
        if dry_run:
            continue
        began = time.time()
        done = subprocess.run(command, cwd=CHECKOUT, check=False)
        if done.returncode:
            raise ValueError(
                f"{step.name} failed with status {done.returncode}; what it said is above. Steps "
                "before it are kept: mend the cause, then give the same command again"
            )
        DONE.mkdir(parents=True, exist_ok=True)
        note = {"command": step.command, "seconds": round(time.time() - began, 1)}
        (DONE / f"{step.name}.json").write_text(json.dumps(note), encoding="utf-8")
    if not waiting:
        print("nothing to do: `python -m recipes show` lists what is done")


def main() -> None:
    """Runs a command; a user's mistake is one line and exit status 2."""
    try:
        app()
    except ValueError as error:
        print(f"recipes: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
