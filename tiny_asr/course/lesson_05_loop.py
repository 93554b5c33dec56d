"""Notebook 05: batches for a loop, what is seen while it runs, and loops that are broken.

`train` is the course's own loop, for whoever has not written one yet, and to compare with.
"""

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch
from IPython import get_ipython
from IPython.display import display
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence

from tiny_asr.audio import pad_batch
from tiny_asr.course.lesson_05_figures import live_picture, shortened
from tiny_asr.data.batches import make_batches
from tiny_asr.data.utterance import Utterance
from tiny_asr.figures.style import many
from tiny_asr.model import ASRModel
from tiny_asr.shapes import SAMPLE_RATE

LOOKING = 0.2  # of the time may go into looking at what was learnt
RATE = 2e-3
TOO_HIGH, TOO_LOW = 50, 1 / 200  # times that


class Batches:
    """Batches of clips as `model(**batch)` takes them: encoder output, its lengths, labels.

    The encoder is frozen, so what it makes of a clip never changes: it is computed when the clip is
    first asked for, and kept.

    Args:
        data: the clips, each heard once before any is heard again.
        utterances: to be heard in all; `heard` counts them.
        seconds: of padded sound in a batch, at most.
    """

    def __init__(
        self,
        model: ASRModel,
        data: Iterable[Utterance],
        utterances: int,
        seconds: float = 48,
        seed: int = 0,
    ):
        self.model, self.data = model, list(data)
        self.utterances, self.seconds, self.seed = utterances, seconds, seed
        self.heard, self._frames = 0, {}

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        self.heard = 0
        for epoch in count():
            for places in make_batches(
                self.data, max_seconds=self.seconds, seed=self.seed, epoch=epoch
            ):
                if self.heard >= self.utterances:
                    return
                self.heard += len(places)
                yield self.batch(places)

    def batch(self, places: list[int]) -> dict[str, Tensor]:
        """Some clips side by side, on the model's device."""
        if new := [place for place in places if place not in self._frames]:
            waveforms = [self.data[place].load() for place in new]
            padded, lengths = pad_batch(waveforms, self.model.config.samples_per_embedding)
            frames, lengths = self.model.encode_batch(padded, lengths)
            for place, own, length in zip(new, frames, lengths.tolist(), strict=True):
                self._frames[place] = own[:length].clone()
        chosen = [self._frames[place] for place in places]
        labels = self.model.processor.labels([self.data[place].text for place in places])
        return {
            "encoder_output": pad_sequence(chosen, batch_first=True),
            "encoder_lengths": torch.tensor([len(frames) for frames in chosen]),
            "labels": labels.to(self.model.device),
        }


def train(model: ASRModel, batches: Iterable[dict], show: Callable[[float], None]) -> None:
    """The loop that the student writes: AdamW at 0.002, gradients clipped to a norm of 1."""
    projector = model.audio_projector
    optimizer = torch.optim.AdamW(projector.parameters(), lr=RATE)
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        show(loss.item())


# Watching ----------------------------------------------------------------------------------------


class Look(NamedTuple):
    """What a model wrote of some clips after so many utterances."""

    heard: int
    texts: list[str]


class Live:
    """Called with the loss of each step: one figure of the loss and of what is written, as it goes.

    It looks when a fifth of the time, at most, has gone into looking. Where there is no notebook it
    prints a line instead.

    Args:
        clips: title -> clip (S,) at 16 kHz, best of sentences that are not trained on.
        batches: those that are trained on; they count what was heard.
    """

    def __init__(self, model: ASRModel, clips: dict[str, Tensor], batches: Batches):
        self.model, self.clips, self.batches = model, clips, batches
        self.losses: list[tuple[int, float]] = []
        self.looks: list[Look] = []
        self.began = self.rested = time.perf_counter()
        self.took, self.handle = 0.0, None
        self._look()

    def __call__(self, loss: float) -> None:
        self.losses.append((self.batches.heard, loss))
        done = self.batches.heard >= self.batches.utterances
        if done or time.perf_counter() - self.rested > self.took * (1 / LOOKING - 1):
            self._look()

    def _look(self) -> None:
        began = time.perf_counter()
        heard = self.losses[-1][0] if self.losses else 0
        self.looks.append(
            Look(heard, self.model.transcribe(list(self.clips.values()), SAMPLE_RATE))
        )
        if get_ipython() is None:
            loss = f"loss {self.losses[-1][1]:.2f}" if self.losses else "before the first step"
            print(f"{heard:>6} utterances  {loss}  {shortened(self.looks[-1].texts[0])}")
        else:
            self._draw(heard, began - self.began)
        self.rested = time.perf_counter()
        self.took = self.rested - began

    def _draw(self, heard: int, seconds: float) -> None:
        title = f"{many(heard)} of {many(self.batches.utterances)} utterances, {seconds:.0f} s"
        texts = dict(zip(self.clips, self.looks[-1].texts, strict=True))
        figure = live_picture(self.losses, texts, self.batches.utterances, title)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)


# Loops that are broken ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A run on one batch: the loss of each step, and what is written of its first clip."""

    losses: list[float]
    text: str


def broken(mistake: str, model: ASRModel, batches: Batches) -> Case:
    """A fresh projector trained with one mistake, then asked to transcribe, the usual way.
    `mistake`: "none", "rate too high", "rate too low", "wrong weights" or "wrong texts"."""
    model.reset_projector(seed=0)
    projector, losses = model.audio_projector, []
    factor = {"rate too high": TOO_HIGH, "rate too low": TOO_LOW}.get(mistake, 1)
    held = copy.deepcopy(projector) if mistake == "wrong weights" else projector
    optimizer = torch.optim.AdamW(held.parameters(), lr=RATE * factor)
    for batch in batches:
        if mistake == "wrong texts":  # each clip has that of its neighbour
            batch["labels"] = batch["labels"].roll(1, dims=0)
        loss = model(**batch).loss
        loss.backward()
        clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        projector.zero_grad()
        losses.append(loss.item())
    return Case(losses, model.transcribe(batches.data[0].load(), SAMPLE_RATE))


PATIENTS = {"A": "wrong texts", "B": "wrong weights", "C": "rate too high", "D": "rate too low"}


def patients(model: ASRModel, data: Iterable[Utterance], steps: int = 28) -> dict[str, Case]:
    """Five runs on one batch: a healthy one, and four that have a mistake each."""
    clips = list(data)
    batches = Batches(model, clips, steps * len(clips), seconds=sum(c.seconds for c in clips) + 30)
    mistakes = {"healthy": "none"} | PATIENTS
    return {name: broken(mistake, model, batches) for name, mistake in mistakes.items()}
