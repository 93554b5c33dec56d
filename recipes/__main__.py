"""Make what is bundled in data/ again: `python -m recipes all`, or one step of it.

Each step is one program of this folder, or `tiny-asr train`, with its options as they were. It says
what it costs before it starts. What is done is noted in runs/prepare/done/, so that a chain that
was interrupted goes on where it stopped; a step whose command has changed since, and all that build
on it, are done again. (An edit of a program is not noticed: delete the step's note there.)
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Annotated

import typer

from recipes.text import CHECKOUT, SHARED, WORK, local_or_hub

DONE = WORK / "done"
TEACHER = local_or_hub(SHARED / "weights" / "whisper-tiny.en", "openai/whisper-tiny.en")
RUNS = "runs/prepare/encoder"


@dataclass(frozen=True)
class Step:
    """One command of the chain.

    name: of the step, and what it makes.
    command: after `python -m`.
    cost: time as measured once, and where.
    needs: the steps whose results it reads.
    apart: nothing bundled is made of it yet, so it is done where it is named.
    """

    name: str
    makes: str
    command: str
    cost: str
    needs: tuple[str, ...] = ()
    apart: bool = False


def encoder(run: int, steps: int, seconds: int, rate: str, warmup: int, *more: str) -> Step:
    """One of the encoder's runs, each from the weights of the one before."""
    options = ["recipes.encoder", "--no-compile", "--batch-seconds", seconds, "--steps", steps]
    options += ["--learning-rate", rate, "--warmup", warmup, "--seed", run - 1, *more]
    out = RUNS if run == 5 else f"{RUNS}-{run}"  # where run.yaml of tiny looks for the last one
    options += ["--teacher", TEACHER, "--out", out]
    options += ["--init", f"{RUNS}-{run - 1}/model.safetensors"] if run > 1 else []
    needs = ("speech", "no-speech", "long", "parts", f"encoder-{run - 1}" if run > 1 else "decoder")
    minutes, machine = (9, 7, 9, 5, 17)[run - 1], "H100" if run < 4 else "H200"
    command = shlex.join(map(str, options))
    return Step(f"encoder-{run}", out, command, f"{minutes} min on one {machine}", needs)


STEPS = (
    Step("text", "runs/prepare/text", "recipes.text", "42 s on 2 cores"),
    Step("parts", "configs and tokenizer of the tiny parts", "recipes.tiny_parts",
         "8 s on 2 cores", ("text",)),
    Step("pairs", "configs of the pairs", "recipes.pairs", "3 s on 2 cores", ("parts",)),
    Step("sample", "data/sample.flac", "recipes.sample", "20 s on 2 cores"),
    Step("speech", "runs/prepare/bulk", "recipes.speech bulk --hours 28 --clips 200 --seed 5",
         "103 s on 16 cores, 14 min on 2", ("text",)),
    Step("bundled-speech", "data/speech", "recipes.speech bundled", "8 min on 2 cores", ("text",)),
    Step("kokoro-texts", "runs/prepare/kokoro/*.txt", "recipes.kokoro.texts", "93 s on one core",
         apart=True),
    Step("kokoro", "runs/prepare/kokoro/speech",
         "recipes.kokoro.speak --hours 100 --workers 3", "8 min on one H200", ("kokoro-texts",),
         apart=True),
    Step("long", "runs/prepare/long.parquet", "recipes.long", "36 s on 2 cores"),
    Step("no-speech", "runs/prepare/no-speech", "recipes.no_speech", "17 s on 2 cores"),
    Step("decoder", "data/models/tiny-decoder", "recipes.decoder", "9 min on one H100",
         ("text", "parts")),
    encoder(1, 9851, 500, "1.5e-3", 400),
    encoder(2, 7301, 500, "1.2e-3", 300),
    encoder(3, 9142, 500, "1.2e-3", 300),
    encoder(4, 1693, 1600, "1.4e-3", 100, "--settling", "80", "--transcribe", "tiny",
            "--transcription", "2"),
    encoder(5, 6325, 1200, "1.3e-3", 100, "--settling", "80", "--transcribe", "tiny",
            "--transcription", "3", "--real-share", "0.36", "--keep"),
    Step("train-tiny", "runs/tiny", "tiny_asr.cli train --config data/models/tiny-asr/run.yaml",
         "86 s on one H200", ("encoder-5", "bundled-speech")),
    Step("tiny", "data/models/tiny-asr", "recipes.projector runs/tiny tiny", "1 s",
         ("train-tiny", "pairs")),
    Step("first-small", "runs/prepare/first/pair", f"recipes.first_projector small --fresh "
         f"--encoder {TEACHER} --steps 16176 --batch-seconds 400 --learning-rate 1.5e-3 "
         "--real-share 0.5 --seed 4", "17 min on one H200",
         ("speech", "no-speech", "long", "decoder", "pairs")),
    Step("train-small", "runs/small", f"tiny_asr.cli train --config data/models/small-asr/run.yaml "
         f"--encoder {TEACHER}", "90 s on one H200", ("first-small", "bundled-speech")),
    Step("small", "data/models/small-asr", "recipes.projector runs/small small", "1 s",
         ("train-small",)),
    Step("measure-tiny", "data/models/tiny-asr/results.csv", "recipes.measure tiny",
         "12 min on 2 cores", ("tiny",)),
    Step("measure-small", "data/models/small-asr/results.csv",
         f"recipes.measure small --encoder {TEACHER}", "12 min on 2 cores", ("small",)),
    Step("curves", "pictures of the logs", "recipes.curves", "4 s", ("tiny", "small", "decoder")),
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
    waiting = to_do(with_needs(steps or [step.name for step in STEPS if not step.apart]))
    for number, step in enumerate(waiting, 1):
        command = [sys.executable, "-m", *shlex.split(step.command)]
        print(f"[{number}/{len(waiting)}] {step.name}: makes {step.makes}; took {step.cost}")
        print(f"    python -m {step.command}", flush=True)
        if dry_run:
            continue
        if step.command.startswith("tiny_asr.cli train"):  # refuses a folder that holds a run
            shutil.rmtree(CHECKOUT / step.makes, ignore_errors=True)
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
