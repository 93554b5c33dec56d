"""Notebook 02: what the encoder still hears in each layer.

A *linear probe* asks whether something that we know about a clip can be computed from its frames by
one matrix product: fitted on some clips, judged on others. The control has random weights.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
import torch
from torch import Tensor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from tiny_asr.course.drawing import page
from tiny_asr.course.lesson_02_layers import mel_of
from tiny_asr.encoder import AudioEncoder
from tiny_asr.figures.style import AUDIO, ENCODER, MEL, SOUND, Picture, drawn
from tiny_asr.shapes import SAMPLE_RATE

# What does each layer hear? ----------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Clips as numbers, float64.

    places: name of a place in the encoder -> each clip's mean frame there (N, D).
    facts: what is true of the clips: name -> (N, K).
    """

    places: dict[str, Tensor]
    facts: dict[str, Tensor]


LONGER_COSTS = 0.05  # of a likeness of 1, for each octave


def pitch(waveform: Tensor) -> float:
    """The voice's pitch in Hz, 60 to 400: its median over a clip (S,); NaN if there is none. Of
    each 40 ms, the lag at which the sound is most like itself, by its autocorrelation over that of
    the window (Boersma 1993)."""
    length, size = 640, 2048
    window = torch.hann_window(length)
    parts = torch.cat([waveform.unfold(0, length, length) * window, window[None]])
    likeness = torch.fft.irfft(torch.fft.rfft(parts, size).abs().square())
    ratio = likeness[:-1] / likeness[:-1, :1].clamp(min=1e-9) / (likeness[-1] / likeness[-1, 0])
    first, last = SAMPLE_RATE // 400, SAMPLE_RATE // 60
    # Twice the period is a period too; where nearly as good, the shorter one is meant.
    longer = torch.arange(first, last).log2() * LONGER_COSTS
    best, lag = (ratio[:, first:last] - longer + longer[0]).max(dim=1)
    voiced = (best > 0.6) & (likeness[:-1, 0] > 0.03 * likeness[:-1, 0].max())
    return float((SAMPLE_RATE / (lag[voiced] + first)).median()) if voiced.any() else float("nan")


def common_words(texts: Sequence[str], count: int = 10) -> list[str]:
    """The words that occur in most texts."""
    counts = Counter(word for text in texts for word in set(text.split()))
    return [word for word, _ in counts.most_common(count)]


@torch.no_grad()
def measure(model, clips, words: Sequence[str]) -> Measured:
    """Run clips (`Utterance`s) through the encoder; keep each place's mean, and what is true."""
    whisper, means, facts = model.encoder.whisper, [], []
    for clip in clips:
        waveform = clip.load()
        mel = mel_of(model, waveform)
        hidden, _ = model.encoder.embed(mel)
        places = [mel.transpose(1, 2), hidden - whisper.embed_positions.weight[: hidden.shape[1]]]
        for layer in whisper.layers:
            hidden = layer(hidden, None)
            places.append(hidden)
        means.append([place[0].double().mean(dim=0).cpu() for place in places])
        letters = clip.text.replace(" ", "").replace("'", "")
        loudness, own = 20 * waveform.square().mean().sqrt().log10().item(), clip.text.split()
        shares = [letters.count(letter) / len(letters) for letter in ascii_lowercase]
        fact = {"loudness": [loudness], "pitch": [np.log2(pitch(waveform))], "letters": shares}
        facts.append(fact | {"words": [float(word in own) for word in words]})
    names = ["log-mel", "convolutions", *(f"layer {n + 1}" for n in range(len(whisper.layers)))]
    columns = zip(*means, strict=True)
    stacked = {name: torch.stack(rows) for name, rows in zip(names, columns, strict=True)}
    table = {key: [row[key] for row in facts] for key in facts[0]}
    return Measured(stacked, {key: torch.tensor(rows).double() for key, rows in table.items()})


def probe(known: Tensor, truth: Tensor, strength: float = 100.0):
    """The straight line that predicts truth (N, K) from numbers (N, D) best: ridge regression.

    Returns a function that predicts (N', K) from others (N', D). Closed form, Hoerl and Kennard
    1970; the numbers are brought to mean 0 and standard deviation 1 first.
    """
    middle, spread, usual = known.mean(dim=0), known.std(dim=0) + 1e-6, truth.mean(dim=0)
    x = (known - middle) / spread
    square = x.T @ x + strength * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(square, x.T @ (truth - usual))
    return lambda others: (others - middle) / spread @ weights + usual


def explained(predicted: Tensor, truth: Tensor, usual: Tensor) -> float:
    """R2: 1 if all is predicted, 0 if no better than always saying what is `usual` (K,)."""
    missed = (truth - predicted).square().sum(dim=0)
    return float((1 - missed / (truth - usual).square().sum(dim=0)).mean())


Scores = dict[str, list[float]]  # of each fact, at each place


def probe_scores(learnt: Measured, held_out: Measured) -> Scores:
    """For each fact, how much of it can be predicted at each place, on clips not learnt from."""
    scores = {fact: [] for fact in learnt.facts}
    for fact, line in scores.items():
        # Clips without a pitch have none to be learnt or predicted, a fact that no clip tells.
        own, other = (m.facts[fact].isfinite().all(dim=1) for m in (learnt, held_out))
        truth, goal = learnt.facts[fact][own], held_out.facts[fact][other]
        told = goal.std(dim=0) > 0
        for place, known in learnt.places.items():
            guess = probe(known[own], truth)(held_out.places[place][other])
            usual = truth.mean(dim=0)
            line.append(explained(guess[:, told], goal[:, told], usual[told]))
    return scores


def untrained_twin(model, seed: int = 0):
    """The model with an encoder of the same shape that has learnt nothing: a control for probes.
    Its weights are random and depend on `seed` alone; the position table, which nobody learns, is
    the same. The decoder is the model's own, not a copy."""
    own = model.encoder.whisper
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = WhisperEncoder(copy.deepcopy(model.config.encoder_config))
    fresh.embed_positions.load_state_dict(own.embed_positions.state_dict())
    # What a deep copy finds in its memo it takes as it is.
    twin = copy.deepcopy(model, {id(part): part for part in (model.encoder, model.decoder)})
    twin.encoder = AudioEncoder(fresh.to(own.conv1.weight))
    return twin


@drawn
def probe_view(scores: Scores, places: Sequence[str], control: Scores) -> Picture:
    """How well each fact can be predicted from each place; the control's lines are dashed."""
    (figure, axes), facts = page(3.4), []
    looks = ((SOUND, "o"), (AUDIO, "s"), (ENCODER, "^"), (MEL, "D"))
    lines = zip(scores.items(), looks, strict=False)
    label = 2.0  # no label may touch the one above it
    for (name, line), (color, marker) in sorted(lines, key=lambda each: -each[0][1][-1]):
        axes.plot(line, color=color, marker=marker, markersize=5)
        label = min(line[-1], label - 0.07)
        axes.text(len(line) - 0.85, label, name, va="center", color="black")
        axes.plot(control[name], color=color, linestyle="--", linewidth=1.2)
        own, others = (", ".join(f"{score:.2f}" for score in x) for x in (line, control[name]))
        facts.append(f"{name}: {own}, untrained {others}")
    for look, name in (("-", "trained"), ("--", "untrained")):
        axes.plot([], color="black", linestyle=look, label=name)
    axes.legend(loc="center left", bbox_to_anchor=(0, 0.4))
    few = range(0, len(places), -(-len(places) // 9))
    axes.set_xticks(few, labels=[places[n] for n in few])
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(ylabel="share predicted (R\u00b2)", ylim=(-0.15, 1.05), xlim=(-0.2, len(places) - 0.4))
    axes.set_title("what one matrix product can read off the mean frame of a clip never seen")
    figure.alt = (
        f"Four lines and four dashed ones of an untrained encoder over the places "
        f"{', '.join(places)}: how much of each fact a linear probe "
        f"predicts on held-out clips, 1 being all. {'; '.join(facts)}."
    )
    return figure


def parameters_of(config) -> int:
    """Parameters of a Whisper encoder of a `WhisperConfig`; no weights are loaded for it."""
    with torch.device("meta"):
        return sum(p.numel() for p in WhisperEncoder(config).parameters())
