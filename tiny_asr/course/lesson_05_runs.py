"""Notebook 05: a run to watch, runs that are broken or killed, and what the full one costs.

The training itself is `training.trainer.Trainer`, with nothing added: `Watch` is a callback of it,
and each broken run changes the one thing that it is named after. The figures are in
`lesson_05_figures`.
"""

import copy
import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from tiny_asr.bench.flops import sizes
from tiny_asr.config import ASRConfig
from tiny_asr.decoder import token_loss
from tiny_asr.evaluation.score import evaluate
from tiny_asr.figures.tables import Table
from tiny_asr.model import ASRModel
from tiny_asr.shapes import IGNORE, SAMPLE_RATE
from tiny_asr.training.checkpoint import TrainingState
from tiny_asr.training.log import read_log
from tiny_asr.training.settings import TrainingSettings
from tiny_asr.training.trainer import Trainer

LONGEST = 62  # characters of a transcript in a line
FLOAT32 = 4  # bytes
LOUDER = 30  # times


# Watching a run ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """One clip at one moment of a training: its text, its audio embeddings (A, llm_dim)."""

    utterances: int
    loss: float
    text: str
    embeddings: Tensor


class Watch:
    """For `Trainer(on_log=...)`: after each logged interval, what does the model make of a clip?

    The clip (S,) at 16 kHz is best of a sentence that is not in the training data.
    """

    def __init__(self, clip: Tensor, say: Callable[[str], None] = print):
        self.clip, self.say = clip, say
        self.snapshots: list[Snapshot] = []

    @torch.no_grad()
    def __call__(self, state: TrainingState, model: ASRModel) -> None:
        loss = state.losses[-1] if state.losses else float("nan")
        heard = model.audio_projector(model.encode(self.clip, SAMPLE_RATE))[0].cpu()
        text = model.transcribe(self.clip, SAMPLE_RATE)
        self.snapshots.append(Snapshot(state.utterances, loss, text, heard))
        before = "before the first" if not state.losses else f"loss {loss:5.2f}"
        self.say(f"{state.utterances:>6} utterances  {before}  {shortened(text)}")

    def some(self, count: int) -> list[Snapshot]:
        """Snapshots from the first to the last, more of the early ones, when most happens."""
        last = len(self.snapshots) - 1
        places = {round(last * (i / (count - 1)) ** 1.6) for i in range(count)}
        return [self.snapshots[place] for place in sorted(places)]


def shortened(text: str) -> str:
    """A transcript in one line of at most LONGEST characters."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def gradient_table(model: ASRModel) -> Table:
    """Each part after a backward pass: what has a gradient, and what training keeps for it."""
    rows = []
    parts = {"encoder": model.encoder, "projector": model.audio_projector, "decoder": model.decoder}
    for name, part in parts.items():
        weights = sum(w.numel() for w in part.parameters())
        learnt = sum(w.grad.numel() for w in part.parameters() if w.grad is not None)
        row = {"part": name, "weights": f"{weights:,}", "with a gradient": f"{learnt:,}"}
        # AdamW keeps two moments of each gradient.
        numbers = {"weights": weights, "gradients": learnt, "AdamW": 2 * learnt}
        rows.append(row | {f"MB of {k}": f"{n * FLOAT32 / 1e6:.1f}" for k, n in numbers.items()})
    return Table(rows)


# Broken runs -------------------------------------------------------------------------------------


class Unmasked(Trainer):
    """Counts the loss at every position, not only at the text: at the audio it wants padding."""

    def _summed_loss(self, epoch: int, batch, labels: Tensor) -> Tensor:
        frames, lengths = self._encoder_output(epoch, batch)
        lengths, labels = lengths // self.model.config.audio_downsample_rate, labels.to(self.device)
        decoder, text = self.model.decoder, labels.masked_fill(labels == IGNORE, 0)
        spliced = decoder.splice(self._project(frames), lengths, text, labels != IGNORE)
        output = decoder.language_model(inputs_embeds=spliced.embeddings, use_cache=False)
        ids = torch.zeros(spliced.mask.shape, dtype=torch.int64, device=self.device)
        for row, (length, target) in enumerate(zip(lengths, text, strict=True)):
            prompt = torch.cat([decoder.prompt_after[0], target])
            begin = decoder.prompt_before.shape[1] + int(length)
            ids[row, begin : begin + len(prompt)] = prompt
        # The trainer divides by the number of text tokens; this is a mean over all positions.
        return token_loss(output.logits[:, :-1], ids[:, 1:]) * (labels != IGNORE).sum()


class StaleOptimizer(Trainer):
    """Its optimiser holds other weights than those that are trained: they get no gradient."""

    def _update(self) -> Tensor:
        norm = clip_grad_norm_(self.projector.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()  # no error, and no change
        return norm


def _no_output_scale(trainer: Trainer) -> None:
    trainer.projector.output_norm = nn.Identity()


def _loud(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.projector.output_norm.weight.mul_(LOUDER)


def _no_prompt(trainer: Trainer) -> None:
    decoder = trainer.model.decoder
    decoder.prompt_before, decoder.prompt_after = (torch.zeros(1, 0).long().to(trainer.device),) * 2


def _stale_optimizer(trainer: Trainer) -> None:
    copied = copy.deepcopy(trainer.projector)
    trainer.optimizer = torch.optim.AdamW(copied.parameters(), betas=(0.9, 0.95))


@dataclass(frozen=True)
class Ablation:
    """One change to a run that works.

    rate: the learning rate, times this.
    trainer: the class that trains.
    spoil: changes the trainer before it starts.
    """

    rate: float = 1.0
    trainer: type[Trainer] = Trainer
    spoil: Callable[[Trainer], None] = lambda trainer: None


ABLATIONS = {
    "as it should be": Ablation(),
    "no output scale": Ablation(spoil=_no_output_scale),
    "output far too loud": Ablation(spoil=_loud),
    "learning rate too high": Ablation(rate=50),
    "learning rate too low": Ablation(rate=1 / 50),
    "no prompt in training": Ablation(spoil=_no_prompt),
    "labels not masked": Ablation(trainer=Unmasked),
    "frozen by mistake": Ablation(trainer=StaleOptimizer, spoil=_stale_optimizer),
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its log, and WER and first transcript on its own training clips."""

    rows: list[dict]
    wer: float | None
    text: str = ""


def run_ablation(name: str, settings: TrainingSettings, eval_limit: int = 20) -> Outcome:
    """Train with one thing broken, then transcribe clips of its training data the usual way.

    Args:
        name: in ABLATIONS.
        settings: of the run that works; its `out` gets a sub-folder for this one.
        eval_limit: how many clips to transcribe.
    """
    ablation = ABLATIONS[name]
    out = unused(Path(settings.out) / name.replace(" ", "-"))
    settings = replace(settings, out=out, learning_rate=settings.learning_rate * ablation.rate)
    trainer = ablation.trainer(settings, say=lambda line: None)
    decoder = trainer.model.decoder
    prompt = decoder.prompt_before, decoder.prompt_after
    ablation.spoil(trainer)
    try:
        trainer.train()
    except ValueError as error:  # ten steps in a row that were not finite
        print(f"{name}: {error}")
    decoder.prompt_before, decoder.prompt_after = prompt
    wer = evaluate(trainer.model, trainer.data, limit=eval_limit).wer.value
    text = trainer.model.transcribe(trainer.data[0].load(), SAMPLE_RATE)
    return Outcome(read_log(out / "log.csv"), wer, text)


def write_outcomes(path: Path, outcomes: dict[str, Outcome]) -> None:
    """Store how runs went: a line each logged interval, with the WER at the end of the run."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "utterances", "loss", "wer"])
        for name, outcome in outcomes.items():
            for row in outcome.rows:
                values = int(row["utterances"]), f"{row['loss']:.4g}", f"{outcome.wer:.4g}"
                writer.writerow([name, *values])


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """What `write_outcomes` stored."""
    outcomes: dict[str, Outcome] = {}
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            outcome = outcomes.setdefault(line["run"], Outcome([], float(line["wer"])))
            outcome.rows.append({key: float(line[key]) for key in ("utterances", "loss")})
    return outcomes


def unused(folder: Path) -> Path:
    """The folder, or with a number behind its name where a run lies in it already."""
    taken = (Path(f"{folder}-{number}") for number in count(2))
    return next(place for place in chain([folder], taken) if not place.exists())


# A run that is killed ----------------------------------------------------------------------------


def kill_at(step: int, settings: TrainingSettings) -> str:
    """Train in another process and kill it, without warning, when it says that it did `step`.

    Returns the last line that it said.
    """
    recipe = Path(settings.out).with_suffix(".yaml")
    settings.save(recipe)
    command = [sys.executable, "-m", "tiny_asr.cli", "train", "--config", str(recipe)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=os.environ | threads, **pipe)
    said = ""
    for line in process.stdout:
        said += line
        found = re.match(r"step +(\d+) ", line)
        if found and int(found[1]) >= step:
            process.kill()  # SIGKILL: no handler runs, nothing can be saved any more
            break
    process.communicate()
    if process.returncode == 0 or not said:
        raise RuntimeError(f"the run was not killed at step {step}; it said: {said}")
    return said.splitlines()[-1]


# What the full run costs -------------------------------------------------------------------------


def training_bytes(config: ASRConfig, all_trained: bool = False) -> float:
    """What stays in memory through a training: weights, gradients, AdamW; activations come on top.

    Frozen weights take 2 bytes each. A trained one takes 16: itself, its gradient, two moments.
    """
    n = sizes(config)
    frozen = n["encoder"] + n["decoder"]
    return 4 * FLOAT32 * (n["projector"] + frozen * all_trained) + 2 * frozen * (not all_trained)
