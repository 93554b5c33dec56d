"""Notebook 02: what the encoder still hears in each layer, how it keeps time, what it costs.

A layer's frames are numbers that nobody can read. A *linear probe* asks whether something that we
know about a clip can be computed from them by one matrix product: fitted on some clips, judged on
others. An encoder with random weights is the control: what it keeps and loses, nobody has learnt.
Beside them three measurements of the encoder as a whole: sound that comes later, half a minute of
silence behind it, and what training it would keep in memory.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor
from torch.nn import functional as F
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from tiny_asr.course.drawing import over_time, page, write_cells
from tiny_asr.course.lesson_02_layers import FRAME, SHOWN, mel_of
from tiny_asr.encoder import AudioEncoder
from tiny_asr.fast.activations import kept_for_backward
from tiny_asr.figures.style import AUDIO, ENCODER, MARK, MEL, SOUND, WIDTH, Picture, drawn
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
    """The voice's pitch in Hz, 60 to 400: its median over a clip (S,); NaN if there is none.

    Of each 40 ms, the lag at which the sound is most like itself, by its autocorrelation over that
    of the window (Boersma 1993).
    """
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
    the same. The decoder is the model's own, not a copy.
    """
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
def probe_view(scores: Scores, places: Sequence[str], control: Scores | None = None) -> Picture:
    """How well each fact can be predicted from each place; the control's lines are dashed."""
    (figure, axes), facts = page(3.4), []
    looks = ((SOUND, "o"), (AUDIO, "s"), (ENCODER, "^"), (MEL, "D"))
    lines = zip(scores.items(), looks, strict=False)
    label = 2.0  # no label may touch the one above it
    for (name, line), (color, marker) in sorted(lines, key=lambda each: -each[0][1][-1]):
        axes.plot(line, color=color, marker=marker, markersize=5)
        label = min(line[-1], label - 0.07)
        axes.text(len(line) - 0.85, label, name, va="center", color="black")
        facts.append(f"{name}: {', '.join(f'{score:.2f}' for score in line)}")
        if control:
            axes.plot(control[name], color=color, linestyle="--", linewidth=1.2)
            facts[-1] += f", untrained {', '.join(f'{score:.2f}' for score in control[name])}"
    if control:
        for look, name in (("-", "trained"), ("--", "untrained")):
            axes.plot([], color="black", linestyle=look, label=name)
        axes.legend(loc="center left", bbox_to_anchor=(0, 0.4))
    few = range(0, len(places), -(-len(places) // 9))
    axes.set_xticks(few, labels=[places[n] for n in few])
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(ylabel="share predicted (R\u00b2)", ylim=(-0.15, 1.05), xlim=(-0.2, len(places) - 0.4))
    axes.set_title("what one matrix product can read off the mean frame of a clip never seen")
    lines = "Four lines and four dashed ones of an untrained encoder" if control else "Four lines"
    figure.alt = (
        f"{lines} over the places {', '.join(places)}: how much of each fact a linear probe "
        f"predicts on held-out clips, 1 being all. {'; '.join(facts)}."
    )
    return figure


# Time, padding, memory ---------------------------------------------------------------------------


@torch.no_grad()
def shifted(model, waveform: Tensor, shifts_ms: Sequence[int], most: int = 6) -> list[Tensor]:
    """Silence before a clip (S,): how alike are its frames to those of the clip alone, later ones?

    Returns mean cosines (shifts, most + 1) after the convolutions, without positions, and at the
    output; column n compares frame t of the clip alone with frame t + n. The clip's mean frame is
    taken off, the first and last 0.2 s are left out.
    """
    table = model.encoder.whisper.embed_positions.weight

    def both(sound: Tensor) -> list[Tensor]:
        hidden, _ = model.encoder.embed(mel_of(model, sound))
        output = model.encoder(mel_of(model, sound))
        return [x[0].float().cpu() for x in (hidden - table[: hidden.shape[1]], output)]

    alone, found = both(waveform), [[], []]
    for ms in shifts_ms:
        later = both(torch.cat([torch.zeros(ms * SAMPLE_RATE // 1000), waveform]))
        for rows, first, second in zip(found, alone, later, strict=True):
            size = min(len(first), len(second) - most) - 20
            own = first[10 : 10 + size] - first.mean(dim=0)
            others = [second[10 + n : 10 + n + size] - first.mean(dim=0) for n in range(most + 1)]
            rows.append(torch.stack([F.cosine_similarity(own, x, dim=1).mean() for x in others]))
    return [torch.stack(rows) for rows in found]


@drawn
def shift_view(shifts_ms: Sequence[int], found: list[Tensor]) -> Picture:
    """What `shifted` found: by how many frames does the encoder's answer move?"""
    (figure, panels), facts = page(3.4, 1, 2), []
    titles = "after the two convolutions", "the encoder's output"
    for axes, rows, title in zip(panels, found, titles, strict=True):
        axes.imshow(rows, cmap="Greens", vmin=0, vmax=1, aspect="auto")
        write_cells(axes, rows, "{:.2f}".format, 0.6, size=7.5)
        axes.set_yticks(range(len(shifts_ms)), labels=shifts_ms)
        axes.set(xlabel="frames later", title=f"{title}: cosine")
        best = [int(row.argmax()) for row in rows]
        listed = zip(shifts_ms, best, strict=True)
        facts.append(f"{title}: {', '.join(f'{ms} ms {n}' for ms, n in listed)}")
    panels[0].set(ylabel="sound shifted by, ms")
    figure.alt = (
        f"Two tables of cosines between the frames of a clip and of the same clip after "
        f"{shifts_ms[0]} to {shifts_ms[-1]} ms of silence. The largest lies at so many frames "
        f"later: {'; '.join(facts)}."
    )
    return figure


@drawn
def padding_view(alone: Tensor, padded: Tensor) -> Picture:
    """Outputs of a clip without padding (T, D) and padded to 30 s (1500, D), and their cosines."""
    alone, padded = alone.float().cpu(), padded.float().cpu()
    alike = F.cosine_similarity(alone, padded[: len(alone)], dim=1)
    figure = Picture(figsize=(WIDTH, 4.2), layout="constrained")
    panels = figure.subplot_mosaic([["alone", "alike"], ["padded", "padded"]])
    low, high = np.percentile(alone.numpy(), (1, 99))
    look = {"cmap": colormaps["viridis"].resampled(10), "vmin": low, "vmax": high}
    for name, frames in (("alone", alone), ("padded", padded)):
        over_time(panels[name], frames[:, :SHOWN].T, len(frames) * FRAME, **look)
        panels[name].set(xlabel="time in s", ylabel="dimension")
    panels["alone"].set_title(f"not padded: {len(alone)} frames")
    panels["padded"].set_title(f"padded to 30 s: {len(padded)} frames")
    panels["padded"].axvline(len(alone) * FRAME, color=MARK)
    panels["alike"].plot((np.arange(len(alone)) + 0.5) * FRAME, alike, color=ENCODER)
    panels["alike"].set(xlabel="time in s", ylabel="cosine", ylim=(min(0, alike.min()), 1.02))
    panels["alike"].set_title("the same frame, with and without padding")
    figure.alt = (
        f"The encoder's output for {len(alone) * FRAME:.2f} s alone, {len(alone)} frames, and "
        f"padded to 30 s, {len(padded)} frames, of which all but the first {len(alone)} are "
        f"padding. The cosine of the same frame in both is {alike.mean():.2f} on average and "
        f"{alike.min():.2f} at least."
    )
    return figure


def parameters_of(config) -> int:
    """Parameters of a Whisper encoder of a `WhisperConfig`; no weights are loaded for it."""
    with torch.device("meta"):
        return sum(p.numel() for p in WhisperEncoder(config).parameters())


def kept_bytes(model, mel: Tensor, trained: bool) -> int:
    """Bytes of intermediate results that one pass of a mel (1, M, F) keeps for a backward pass."""
    encoder = copy.deepcopy(model.encoder) if trained else model.encoder
    encoder.requires_grad_(trained)
    return kept_for_backward(encoder, lambda: encoder(mel))[1]
