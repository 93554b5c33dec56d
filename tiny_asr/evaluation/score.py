"""How good is it? Word error rate, and what an honest report of it needs.

One number without an interval, its normaliser and a baseline says little: on 200 clips a WER moves
by points from luck alone. So a result carries a bootstrap interval over utterances, the kinds of
errors apart (a decoder that invents text shows in the insertions), the shares of clips that went
wholly wrong or gave no text (right only where nobody speaks), and the WER of the same transcripts
against other clips' references. It keeps every row, so that two systems can be compared on
identical clips, where the luck of the draw cancels.
"""

import json
import math
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Self

import jiwer
import numpy as np
import torch

from tiny_asr.data.augment import Augment, AugmentConfig
from tiny_asr.data.batches import Loader, make_batches
from tiny_asr.data.dataset import SpeechData
from tiny_asr.data.utterance import BadClip, Utterance
from tiny_asr.evaluation.normalisers import NAMES, characters, check_normaliser, normalise
from tiny_asr.search.writing import ctc_weight
from tiny_asr.shapes import MAX_SAMPLES, MAX_SECONDS, SAMPLE_RATE

if TYPE_CHECKING:  # transformers takes seconds to import, and scoring texts does not need it
    from tiny_asr.model import ASRModel

RESAMPLES = 1000  # of the bootstrap
LENGTH_BOUNDS = (2, 5, 10, 20)  # seconds; a clip of exactly 5 s belongs to "5-10 s"
LENGTH_NAMES = ("<2 s", "2-5 s", "5-10 s", "10-20 s", "20+ s")


@dataclass(frozen=True)
class Row:
    """One clip: what was said, what was heard, and the groups it counts in (`{"voice": "awb"}`).

    `score` adds the word errors (S + D + I) and the words of the normalised reference.
    """

    id: str
    reference: str
    hypothesis: str
    seconds: float
    groups: dict[str, str] = field(default_factory=dict)
    errors: int = 0
    words: int = 0

    @property
    def rate(self) -> float:
        """WER of a scored row; infinite where words were heard although none was said."""
        if self.errors and not self.words:
            return float("inf")
        return self.errors / max(self.words, 1)


@dataclass(frozen=True)
class Rate:
    """A fraction, not per cent, and its 95 % interval.

    None where it is undefined: any WER without a reference word, its interval for fewer than two
    utterances.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Group:
    """What is measured of some clips: of a whole data set, or of those with one voice."""

    wer: Rate  # its interval: bootstrap over utterances
    empty: Rate  # share of rows whose transcript is empty after the normaliser; interval: Wilson's
    words: int  # in the normalised references
    utterances: int

    @classmethod
    def from_dict(cls, content: dict) -> Self:
        """What `asdict` made of it; TypeError or KeyError where something is missing."""
        return cls(**content | {name: Rate(**content[name]) for name in ("wer", "empty")})


@dataclass(frozen=True)
class Result(Group):
    """The evaluation of one model on one data set.

    `groups` is `{field: {value: Group}}`; the clip's length is one field.
    """

    wer_shuffled: float | None  # the same transcripts against the references of other clips
    cer: float | None
    substitutions: int
    deletions: int
    insertions: int
    rows_at_100: float  # share of rows with at least as many errors as words
    rtfx: float | None  # seconds of audio per second of transcribing (audio already loaded)
    device: str
    dtype: str
    normalizer: str
    groups: dict[str, dict[str, Group]]
    rows: list[Row]
    batch_seconds: float | None = None  # padded audio in a batch, at most: RTFx depends on it
    shuffled_audio: bool = False
    noise_snr_db: float | None = None  # of the noise mixed into every clip, if any was
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> clips that were left out
    beams: int = 1  # 1: greedy
    hints: int = 0  # words to prefer, so many
    ctc_weight: float = 0.0  # of the sound's own opinion beside the decoder's

    def to_json(self) -> str:
        """One JSON object, for `--json`, `--baseline` and plots."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read a file that holds what `to_json` gave; ValueError if it is missing or is none."""
        names = {f.name for f in fields(cls)}
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if missing := sorted(names - content.keys()):
                raise ValueError(f"it lacks {', '.join(missing)}")
            content["rows"] = [Row(**row) for row in content["rows"]]
            content["groups"] = {
                field: {value: Group.from_dict(group) for value, group in values.items()}
                for field, values in content["groups"].items()
            }
            return cls.from_dict({name: content[name] for name in names})
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(
                f"{path} is not an evaluation result: {error}; write one with "
                "`tiny-asr evaluate --json > FILE`"
            ) from error


@dataclass(frozen=True)
class Comparison:
    """WER of a result minus the baseline's on the same rows: negative is better."""

    difference: float
    low: float  # 95 % paired bootstrap interval
    high: float
    probability_better: float  # share of resamples with the lower WER; a tie counts as a half


def evaluate(
    model: "ASRModel",
    dataset: SpeechData,
    *,
    limit: int | None = None,
    batch_seconds: float = 120.0,
    shuffled_audio: bool = False,
    noise: Sequence[torch.Tensor] = (),
    snr_db: float | None = None,
    normaliser: str = "english",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    beams: int = 1,
    hints: Sequence[str] = (),
) -> Result:
    """Transcribe a data set and score it. A clip that can't be decoded is dropped and counted.

    Args:
        model: is put into eval mode.
        limit: the first so many clips only.
        batch_seconds: padded audio in one batch, at most; see `make_batches`.
        shuffled_audio: put another clip's audio in each one's place (see `derangement`). A model
            that listens scores near 100 % WER; one that only guesses scores as before.
        noise: waveforms (S,) at 16 kHz. If `snr_db` is given, a stretch of one of them, drawn from
            the seed and the clip's id, is mixed into each clip at that signal-to-noise ratio; so
            it is the same stretch at every ratio. Digital silence among them is left out.
        normaliser: see `normalise`; `FOR_TEXT` has what goes with a model's text.
        progress: called with clips done and clips in all, after each batch.
        beams, hints: see `ASRModel.transcribe`.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit} came; expected at least 1, or None for all clips")
    check_normaliser(normaliser)
    items = list(dataset)[:limit]
    places = list(range(len(items)))
    if shuffled_audio:
        places = derangement([normalise(item.text, normaliser) for item in items], seed)
    if places is None:
        raise ValueError("can't shuffle: over half of the clips have the same text; take more")
    mixer = None
    if snr_db is not None:
        mixing = AugmentConfig(noise_probability=1.0, noise_snr_db=(snr_db, snr_db))
        mixer = Augment(mixing, seed=seed, noise=[sound for sound in noise if sound.any()])
    model.eval()
    texts, elapsed, done = {}, 0.0, 0
    at_once = int(max(1, batch_seconds // MAX_SECONDS))  # pieces of a long clip
    for ids, clips, count in _sounds(dataset, items, batch_seconds, mixer):
        started = time.perf_counter()
        written = model.transcribe(
            clips, SAMPLE_RATE, batch_size=max(count, at_once), beams=beams, hints=hints
        )
        elapsed += time.perf_counter() - started
        texts |= zip(ids, written, strict=True)
        done += count
        if progress is not None:
            progress(done, len(items))
    device = str(model.device)
    if model.device.type == "cuda":
        device += f" ({torch.cuda.get_device_name(model.device)})"
    rows = [
        Row(item.id, item.text, texts[items[place].id], item.seconds, item.groups)
        for item, place in zip(items, places, strict=True)
        if items[place].id in texts
    ]
    dtype = str(model.dtype).removeprefix("torch.")
    about = {"device": device, "dtype": dtype, "normaliser": normaliser, "seed": seed}
    result = score(rows, seconds_elapsed=elapsed, **about)
    about = {"shuffled_audio": shuffled_audio, "dropped": dict(dataset.dropped)}
    weight = ctc_weight(model.decoder) if hasattr(model, "decoder") else 0.0
    about |= {"beams": beams, "hints": len(hints), "ctc_weight": weight}
    return replace(result, batch_seconds=batch_seconds, noise_snr_db=snr_db, **about)


def _sounds(
    dataset: SpeechData, items: list[Utterance], batch_seconds: float, mixer: Augment | None
) -> Iterator[tuple[list[str], list[torch.Tensor], int]]:
    """Ids, waveforms (S,) and how many clips they were, in batches; long clips come one by one."""
    fits = [i for i, item in enumerate(items) if item.seconds <= MAX_SECONDS]
    batches = []
    if fits:
        short, order = [items[i] for i in fits], {"seed": 0, "epoch": 0, "shuffle": False}
        batches = make_batches(short, max_seconds=batch_seconds, **order)
        batches = [[fits[i] for i in batch] for batch in batches]
    for indices, batch in zip(batches, Loader(dataset, batches), strict=True):
        waveforms, lengths = batch.waveforms, batch.lengths
        if mixer is not None and len(batch):
            waveforms, lengths = mixer.waveform(waveforms, lengths, batch.ids, epoch=0)
        clips = [w[:n] for w, n in zip(waveforms, lengths.tolist(), strict=True)]
        yield batch.ids, clips, len(indices)
    for index in sorted(set(range(len(items))) - set(fits)):
        item = items[index]
        try:
            parts = item.load(max_seconds=None).split(MAX_SAMPLES)
        except BadClip as bad:
            dataset.drop(index, bad)
            yield [], [], 1
            continue
        if mixer is not None:
            parts = [
                mixer.waveform(part[None], torch.tensor([len(part)]), [f"{item.id}/{k}"], 0)[0][0]
                for k, part in enumerate(parts)
            ]
        yield [item.id], [torch.cat(list(parts))], 1


def score(
    rows: Sequence[Row],
    *,
    seconds_elapsed: float | None,
    device: str,
    dtype: str,
    normaliser: str = "english",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Result:
    """Corpus WER (sum of errors over sum of words) and everything beside it.

    A row whose normalised reference is empty (noise, nobody speaks) has 0 words: each word heard
    there is an insertion, so it raises the WER but never divides by zero. Where nobody speaks in
    any row there is no WER, and `empty` says how good the model is.

    Args:
        rows: at least one, each id once.
        seconds_elapsed: wall time of the transcription, for the RTFx; None if it was not timed.
        normaliser: see `normalise`, which also says what a word is where there are no spaces.
        seed, resamples: of the bootstrap.
    """
    twice = sorted(i for i, count in Counter(row.id for row in rows).items() if count > 1)
    if not rows or twice:
        raise ValueError(
            f"{len(rows)} rows came, {_some(twice)} twice; expected at least one, and each id once"
        )
    references = [normalise(row.reference, normaliser) for row in rows]
    hypotheses = [normalise(row.hypothesis, normaliser) for row in rows]
    edits = _edits(references, hypotheses)  # (rows, 3): S, D, I
    errors = edits.sum(axis=1)
    words = np.array([len(text.split()) for text in references])
    empty = np.array([not text for text in hypotheses])
    swap = derangement(references, seed) if words.any() else None
    strangers = _edits(references, [hypotheses[i] for i in swap or range(len(rows))])

    def measured(i) -> dict:
        """What `Group` holds, of some rows."""
        count, of = int(empty[i].sum()), len(empty[i])
        return {
            "wer": _wer(errors[i], words[i], seed, resamples),
            "empty": Rate(count / of, *wilson_interval(count, of)),
            "words": int(words[i].sum()),
            "utterances": of,
        }

    members: dict[str, dict[str, list[int]]] = {}  # field -> value -> rows, the shortest first
    for i in sorted(range(len(rows)), key=lambda i: rows[i].seconds):
        length = LENGTH_NAMES[bisect_right(LENGTH_BOUNDS, rows[i].seconds)]
        for name, value in {"length": length, **rows[i].groups}.items():
            members.setdefault(name, {}).setdefault(value, []).append(i)
    return Result(
        **measured(slice(None)),
        wer_shuffled=float(strangers.sum() / words.sum()) if swap else None,
        cer=_cer(references, hypotheses) if words.any() else None,
        substitutions=int(edits[:, 0].sum()),
        deletions=int(edits[:, 1].sum()),
        insertions=int(edits[:, 2].sum()),
        rows_at_100=float(np.mean((errors > 0) & (errors >= words))),
        rtfx=sum(row.seconds for row in rows) / seconds_elapsed if seconds_elapsed else None,
        device=device,
        dtype=dtype,
        normalizer=NAMES[normaliser],
        groups={
            name: {value: Group(**measured(i)) for value, i in values.items()}
            for name, values in members.items()
        },
        rows=[
            replace(row, errors=e, words=w)
            for row, e, w in zip(rows, errors.tolist(), words.tolist(), strict=True)
        ],
    )


def paired_bootstrap(result: Result, baseline: Result, *, seed: int = 0) -> Comparison:
    """Is `result` better than `baseline`, or was it luck? Both are resampled with the same clips.

    After Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation" (2004). ValueError if ids, their references or the normalisers differ.
    """
    references = {row.id: row.reference for row in result.rows}
    check_baseline(references, baseline, normaliser=normaliser_of(result))
    theirs = {row.id: row.errors for row in baseline.rows}
    words = np.array([row.words for row in result.rows])
    errors = np.array([(row.errors, theirs[row.id]) for row in result.rows])
    gaps = _bootstrap(errors, words, seed, RESAMPLES) @ [1, -1]
    low, high = np.percentile(gaps, [2.5, 97.5]).tolist()
    return Comparison(
        difference=float((errors @ [1, -1]).sum() / words.sum()),
        low=low,
        high=high,
        probability_better=float(np.mean(gaps < 0) + np.mean(gaps == 0) / 2),
    )


def check_baseline(
    references: dict[str, str], baseline: Result, left_out: int = 0, normaliser: str = "english"
) -> None:
    """Refuse, with a ValueError, a baseline that was measured on other rows than these.

    Args:
        references: id -> text of the clips that are, or will be, measured.
        left_out: so many of them may not be in the baseline, because they can't be decoded.
        normaliser: that they are measured with.
    """
    normalizer, level = NAMES[normaliser], partial(normalise, normaliser=normaliser)
    theirs = {row.id: row.reference for row in baseline.rows}
    here, there = references.keys() - theirs.keys(), theirs.keys() - references.keys()
    differ = [i for i in theirs.keys() - there if level(theirs[i]) != level(references[i])]
    if len(here) > left_out or there or differ or normalizer != baseline.normalizer:
        raise ValueError(
            f"the baseline was not measured on the same rows: {_some(here)} only here, "
            f"{_some(there)} only in the baseline, {_some(differ)} with another reference; "
            f"normaliser {normalizer} here, {baseline.normalizer} there: evaluate both on the same "
            "data with the same limit"
        )
    if not baseline.words:
        raise ValueError("no reference holds a word, so there is no WER to compare")


def wilson_interval(count: int, total: int) -> tuple[float, float]:
    """95 % interval of the share `count / total`: Wilson (1927), "Probable inference".

    Where all clips agree, as is hoped for in silence, a bootstrap would say that there is no doubt.
    """
    z = 1.96  # 95 % of a normal distribution lie within so many standard deviations
    middle = count + z**2 / 2
    half = z * math.sqrt(count * (total - count) / total + z**2 / 4)
    low, high = (middle - half) / (total + z**2), (middle + half) / (total + z**2)
    return max(low, 0.0), min(high, 1.0)


def percent(rate: float | None) -> str:
    """`12.3 %`, for people."""
    return "n/a" if rate is None else f"{100 * rate:.1f} %"


def normaliser_of(result: Result) -> str:
    """The normaliser of a result by the name that `normalise` takes; ValueError if unknown."""
    for normaliser, name in NAMES.items():
        if name == result.normalizer:
            return normaliser
    raise ValueError(
        f"the result was normalised by {result.normalizer!r}; expected {', '.join(NAMES.values())}"
    )


def align(
    reference: str, hypothesis: str, normaliser: str = "english"
) -> list[tuple[str, str, str]]:
    """The word alignment behind the error count: `(op, reference word, hypothesis word)`.

    op is `equal`, `substitute`, `delete` or `insert`; the side that has no word is "".
    """
    said, heard = normalise(reference, normaliser), normalise(hypothesis, normaliser)
    output = jiwer.process_words(said, heard)
    pairs = []
    for chunk in output.alignments[0]:
        said = output.references[0][chunk.ref_start_idx : chunk.ref_end_idx]
        heard = output.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx]
        pairs += [(chunk.type, *pair) for pair in zip_longest(said, heard, fillvalue="")]
    return pairs


def derangement(texts: Sequence[str], seed: int = 0) -> list[int] | None:
    """A seeded order in which no position gets an equal text: the shuffled-audio control.

    Two voices may read the same sentence, so moving every clip is not enough: equal texts are put
    side by side, in random order otherwise, and all move on by the longest such run. None if more
    than half of the texts are the same.
    """
    run = max(Counter(texts).values())
    if 2 * run > len(texts):
        return None
    rng = np.random.default_rng(seed)
    rank = {text: rng.random() for text in sorted(set(texts))}
    order = sorted(range(len(texts)), key=lambda i: rank[texts[i]])
    return [j for _, j in sorted(zip(order, order[run:] + order[:run], strict=True))]


def _edits(references: list[str], hypotheses: list[str]) -> np.ndarray:
    """Substitutions, deletions and insertions of each row: (rows, 3)."""
    column = {"substitute": 0, "delete": 1, "insert": 2}
    counts = np.zeros((len(references), 3), dtype=np.int64)
    for row, chunks in enumerate(jiwer.process_words(references, hypotheses).alignments):
        for c in chunks:
            if c.type != "equal":
                size = max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx)
                counts[row, column[c.type]] += size
    return counts


def _cer(references: list[str], hypotheses: list[str]) -> float:
    said, heard = (list(map(characters, texts)) for texts in (references, hypotheses))
    return jiwer.process_characters(said, heard).cer


def _wer(errors: np.ndarray, words: np.ndarray, seed: int, resamples: int) -> Rate:
    low = high = None
    if len(words) > 1 and words.any():
        draws = _bootstrap(errors[:, None], words, seed, resamples)
        low, high = np.percentile(draws, [2.5, 97.5]).tolist()
    return Rate(float(errors.sum() / words.sum()) if words.any() else None, low, high)


def _bootstrap(errors: np.ndarray, words: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """WERs of resampled utterances: errors (N, K) and words (N,) -> at most (resamples, K)."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(words), size=len(words)) for _ in range(resamples))
    # a draw of noise-only clips has no WER
    return np.array([errors[d].sum(axis=0) / words[d].sum() for d in draws if words[d].any()])


def _some(ids: Iterable[str]) -> str:
    ids = sorted(ids)
    return f"{len(ids)} ids ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})"
