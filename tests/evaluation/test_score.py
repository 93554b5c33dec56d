"""Error rates against numbers worked out by hand, and the statistics against known truths."""

import io
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from small_runs import encoded

from recipes.measure import COLUMNS, lines
from tiny_asr.data.augment import Augment
from tiny_asr.data.dataset import LeftOut, SpeechData, Utterance
from tiny_asr.evaluation.score import (
    Group,
    Rate,
    Result,
    Row,
    align,
    derangement,
    evaluate,
    normalise,
    paired_bootstrap,
    score,
    wilson_interval,
)


def scored(*texts: tuple[str, str], seconds: float = 3.0, **options) -> Result:
    """(reference, hypothesis) pairs -> Result, with ids 0, 1, ..."""
    rows = [Row(str(i), said, heard, seconds) for i, (said, heard) in enumerate(texts)]
    return score(rows, seconds_elapsed=None, device="cpu", dtype="float32", **options)


def system(error_rate: float, clips: int = 300, seed: int = 0, resamples: int = 1000) -> Result:
    """A recogniser that gets each of ten words wrong with a known probability."""
    rng = np.random.default_rng(seed)
    words = "red blue green house tree river stone cloud bird fish"
    heard = [["x" if rng.random() < error_rate else w for w in words.split()] for _ in range(clips)]
    return scored(*((words, " ".join(line)) for line in heard), resamples=resamples)


def test_normaliser_is_whispers_with_its_spelling_table():
    assert scored(("a", "a")).normalizer == "whisper-english"
    assert normalise("Mr. Smith's colour, isn't it?") == "mister smith is color is not it"
    assert normalise("twenty-one dollars") == normalise("$21")


def test_word_errors_by_hand():
    result = scored(
        ("the cat sat", "the cat sat"),  # right
        ("the cat sat on", "the dog sat"),  # 1 S, 1 D
        ("hello", "oh hello there"),  # 2 I: more errors than words
        ("good morning", ""),  # 2 D
    )
    assert (result.substitutions, result.deletions, result.insertions) == (1, 3, 2)
    assert (result.words, result.utterances) == (10, 4)
    assert result.wer.value == pytest.approx(6 / 10)
    assert result.rows_at_100 == pytest.approx(2 / 4)
    assert [(row.errors, row.words) for row in result.rows] == [(0, 3), (2, 4), (2, 1), (2, 2)]
    assert [row.rate for row in result.rows] == [0, 0.5, 2, 1]


def test_rates_are_of_the_corpus_not_means_of_the_rows():
    assert scored(("a b c d e f g h", "a b c d e f g h"), ("no", "yes")).wer.value == pytest.approx(
        1 / 9
    )
    assert scored(("cat sat", "car sat"), ("abc", "abc")).cer == pytest.approx(1 / 10)


def test_words_heard_where_nobody_speaks_are_insertions():
    result = scored(("", "thanks for watching"), ("[noise]", ""), ("a b", "a b"))
    assert (result.insertions, result.words) == (3, 2)
    assert result.wer.value == pytest.approx(3 / 2)
    assert result.rows_at_100 == pytest.approx(1 / 3)
    assert [row.rate for row in result.rows] == [float("inf"), 0, 0]


def test_rates_without_a_single_word_are_undefined_and_json_stays_valid():
    result = scored(("", "boo"), ("", ""))
    assert (result.wer.value, result.wer.low, result.cer, result.wer_shuffled) == (None,) * 4
    assert result.insertions == 1
    assert "NaN" not in result.to_json() and "Infinity" not in result.to_json()


def test_empty_is_what_the_normaliser_leaves_nothing_of():
    result = scored(("", "[noise] Hmm."), ("a b", " "), ("c", "boo"), ("a", "a"))
    assert result.empty.value == 2 / 4
    assert (result.empty.low, result.empty.high) == wilson_interval(2, 4)
    silent = scored(*[("", "")] * 200)
    assert silent.empty.value == 1 and silent.empty.high == pytest.approx(1)
    assert 0.975 < silent.empty.low < 0.985  # not 1: 200 clips can't show that it never invents


def test_wilson_interval_against_published_values():
    """Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I."""
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611)}
    for share, interval in published.items():
        assert wilson_interval(*share) == pytest.approx(interval, abs=5e-5)
    assert wilson_interval(20, 20)[1] == 1


def test_one_utterance_has_no_interval():
    result = scored(("a b", "a c"))
    assert (result.wer.value, result.wer.low, result.wer.high) == (0.5, None, None)


@pytest.mark.parametrize("rows", [[], [Row("a", "x", "x", 1.0), Row("a", "y", "y", 1.0)]])
def test_no_rows_or_repeated_ids_are_refused(rows):
    with pytest.raises(ValueError, match="expected at least one, and each id once"):
        score(rows, seconds_elapsed=None, device="cpu", dtype="float32")


def test_interval_is_deterministic_and_covers_the_truth():
    assert system(0.2) == system(0.2)
    covered = 0
    for seed in range(40):
        result = system(0.2, clips=60, seed=seed, resamples=300)
        assert result.wer.low < result.wer.value < result.wer.high
        covered += result.wer.low <= 0.2 <= result.wer.high
    assert covered >= 34  # 95 % of 40 is 38; fewer than 34 has a chance of 1 %


def test_interval_shrinks_with_the_square_root_of_the_clips():
    few, many = system(0.3, clips=100), system(0.3, clips=1600)
    ratio = (few.wer.high - few.wer.low) / (many.wer.high - many.wer.low)
    assert 3 < ratio < 5.3


def test_seed_and_resamples_change_the_interval_only():
    one = scored(*[("a b", "a c"), ("a", "a")] * 10)
    other = scored(*[("a b", "a c"), ("a", "a")] * 10, seed=5, resamples=200)
    assert one.wer.value == other.wer.value
    assert (one.wer.low, one.wer.high) != (other.wer.low, other.wer.high)


def test_groups_and_lengths():
    rows = [
        Row("1", "a b", "a b", 1.0, {"voice": "awb"}),
        Row("2", "a b", "a c", 2.0, {"voice": "awb"}),
        Row("3", "a b c", "", 30.0, {"voice": "slt"}),
        Row("4", "a", "a", 5.0, {}),
    ]
    groups = score(rows, seconds_elapsed=None, device="cpu", dtype="float32").groups
    assert set(groups) == {"voice", "length"}
    assert groups["voice"]["awb"].wer.value == pytest.approx(1 / 4)
    assert groups["voice"]["awb"].utterances == 2
    empty = Rate(1.0, *wilson_interval(1, 1))
    assert groups["voice"]["slt"] == Group(Rate(1.0, None, None), empty, words=3, utterances=1)
    assert list(groups["length"]) == ["<2 s", "2-5 s", "5-10 s", "20+ s"]
    assert sum(group.wer.value * group.words for group in groups["length"].values()) == 4


def test_paired_bootstrap_sees_a_better_system_and_its_mirror_image():
    good, bad = system(0.15, seed=1), system(0.3, seed=2)
    better, worse = paired_bootstrap(good, bad), paired_bootstrap(bad, good)
    assert better.difference == pytest.approx(good.wer.value - bad.wer.value)
    assert better.high < 0 < worse.low
    assert (better.probability_better, worse.probability_better) == (1, 0)
    assert better.low == pytest.approx(-worse.high)


def test_paired_bootstrap_of_equals_is_undecided():
    same = paired_bootstrap(system(0.2), system(0.2))
    assert (same.difference, same.low, same.high, same.probability_better) == (0, 0, 0, 0.5)


def test_pairing_finds_a_difference_that_separate_intervals_hide():
    """Clips differ a lot, the systems by one word in each tenth clip: only pairing can see it."""
    texts = [(f"a b c d {i}", "" if i % 2 else f"a b c d {i}") for i in range(100)]
    fixed = [(r, "a" if i % 20 == 1 and not h else h) for i, (r, h) in enumerate(texts)]
    before, after = scored(*texts), scored(*fixed)
    assert before.wer.low < after.wer.value < before.wer.high
    assert paired_bootstrap(after, before).high <= 0
    assert paired_bootstrap(after, before).probability_better > 0.95


def test_paired_bootstrap_matches_rows_by_id_not_by_place():
    rows = [Row(str(i), f"a b {i}", f"a x {i}" if i < 5 else f"a b {i}", 1.0) for i in range(20)]
    one = score(rows, seconds_elapsed=None, device="cpu", dtype="float32")
    other = score(rows[::-1], seconds_elapsed=None, device="cpu", dtype="float32")
    gap = paired_bootstrap(one, other)
    assert (gap.low, gap.high) == (0, 0)


def test_paired_bootstrap_names_rows_that_differ():
    with pytest.raises(ValueError, match=r"0 ids .* only here, 1 ids \(2\) only in the baseline"):
        paired_bootstrap(
            scored(("a", "a"), ("b", "b")), scored(*[("a", "a"), ("b", "b")], ("c", ""))
        )
    with pytest.raises(ValueError, match=r"1 ids \(1\) with another reference"):
        paired_bootstrap(scored(("a", "a"), ("b", "b")), scored(("A.", "a"), ("c", "b")))


def test_align_shows_every_operation_on_normalised_text():
    assert align("The cat, sat on it well", "the DOG sat it well now") == [
        ("equal", "the", "the"),
        ("substitute", "cat", "dog"),
        ("equal", "sat", "sat"),
        ("delete", "on", ""),
        ("equal", "it", "it"),
        ("equal", "well", "well"),
        ("insert", "", "now"),
    ]
    assert align("", "") == []
    assert align("", "hello you") == [("insert", "", "hello"), ("insert", "", "you")]


def test_align_agrees_with_the_counts():
    said, heard = "a b c d e f g", "a x y c e e f f g h"
    counted = scored((said, heard))
    ops = [op for op, _, _ in align(said, heard)]
    assert ops.count("substitute") == counted.substitutions
    assert ops.count("delete") == counted.deletions
    assert ops.count("insert") == counted.insertions


@pytest.mark.parametrize("seed", range(5))
def test_derangement_gives_no_clip_an_equal_text(seed):
    texts = ["a", "b", "a", "c", "d", "a", "e", ""]
    source = derangement(texts, seed)
    assert sorted(source) == list(range(len(texts)))
    assert all(texts[i] != texts[j] for i, j in enumerate(source))
    assert source == derangement(texts, seed)


def test_derangement_differs_by_seed_and_may_not_exist():
    texts = [str(i) for i in range(20)]
    assert derangement(texts, 1) != derangement(texts, 2)
    assert derangement(["a"]) is None
    assert derangement(["a", "a", "b"]) is None


def test_json_round_trip(tmp_path):
    result = score(
        [Row("ü", "naïve café", "naive", 2.5, {"voice": "awb"}), Row("b", "", "", 9.0)],
        seconds_elapsed=0.5,
        device="cpu",
        dtype="float32",
    )
    (tmp_path / "result.json").write_text(result.to_json())
    assert Result.from_json(tmp_path / "result.json") == result
    keys = (
        "wer empty cer substitutions deletions insertions words utterances rows_at_100 "
        "rtfx device dtype normalizer groups"
    )
    content = json.loads(result.to_json())
    assert set(keys.split()) <= content.keys()
    for measured in (content, content["groups"]["voice"]["awb"]):
        assert [list(measured[rate]) for rate in ("wer", "empty")] == [["value", "low", "high"]] * 2


def test_the_recipes_write_a_result_and_its_groups_as_lines_of_one_table():
    result = scored(("a b", "a c"), ("c", ""), seconds=1.0)
    whole, short = lines("real dev", result, "length")
    assert (whole["data"], whole["group"], whole["clips"], whole["words"]) == (
        "real dev",
        "all",
        2,
        3,
    )
    assert whole["wer"] == round(2 / 3, 4) and whole["empty"] == 0.5
    assert [whole[f"wer_{end}"] for end in ("low", "high")] == [
        pytest.approx(end, abs=1e-4) for end in (result.wer.low, result.wer.high)
    ]
    assert whole.keys() <= set(COLUMNS) and whole["device"] == "cpu"
    assert short == {k: v for k, v in whole.items() if k in short} | {"group": "<2 s"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("", "Expecting value"),
        ("wer: 0.1", "Expecting value"),
        ("[1, 2]", "is not an evaluation result"),
        ('{"wer": 0.1}', "it lacks .*cer, "),
        (b"\xff\xfe\x00", "decode"),
    ],
)
def test_what_is_not_a_result_is_refused(tmp_path, content, message):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        Result.from_json(path)
    assert str(path) in str(caught.value) and "tiny-asr evaluate --json" in str(caught.value)


@pytest.mark.parametrize("damage", [{"errors": None, "extra": 1}, "text"])
def test_a_damaged_row_is_refused(tmp_path, damage):
    content = json.loads(scored(("a", "a")).to_json())
    content["rows"] = [damage]
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is not an evaluation result"):
        Result.from_json(tmp_path / "result.json")


# Running a model over a data set: only the bookkeeping. The recogniser here reads the clip's number
# off the waveform, so that a transcript in the wrong place is noticed.

SPOKEN = ["zero is here", "number one walks", "two birds fly", "three go", "four", "five", "six"]
SECONDS = [3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0]


def clips(broken: int | None = None, count: int = 7) -> SpeechData:
    """Clips whose samples all hold a hundredth of the clip's number, counted from 1."""
    utterances = []
    for i, (text, seconds) in enumerate(zip(SPOKEN[:count], SECONDS, strict=False)):
        file = io.BytesIO()
        soundfile.write(file, np.full(int(16_000 * seconds), (i + 1) / 100), 16_000, format="FLAC")
        sound = b"torn" if i == broken else file.getvalue()
        groups = {"voice": "odd" if i % 2 else "even"}
        utterances.append(Utterance(f"clip-{i}", text, seconds, groups, sound))
    return SpeechData(utterances, [LeftOut("a", "no text"), LeftOut("b", "no text")])


class Reader:
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        self.batches, self.training = [], True

    def eval(self):
        self.training = False

    def transcribe(self, audio, sampling_rate, *, batch_size, beams, hints):
        assert sampling_rate == 16_000 and batch_size >= max(len(audio), 1) and not self.training
        self.batches.append([len(clip) / 16_000 for clip in audio])
        return [self.read(round(100 * float(clip[0])) - 1) for clip in audio]

    def read(self, number: int) -> str:
        return SPOKEN[number]


class Deaf(Reader):
    def read(self, number: int) -> str:
        return "two birds fly"


def test_evaluate_puts_each_transcript_with_its_clip():
    model, calls = Reader(), []
    result = evaluate(model, clips(), batch_seconds=10.0, progress=lambda *now: calls.append(now))
    assert result.wer.value == 0
    assert [row.id for row in result.rows] == [f"clip-{i}" for i in range(7)]
    assert result.rtfx > 0
    assert (result.device, result.dtype, result.batch_seconds) == ("cpu", "float32", 10.0)
    assert result.dropped == {"no text": 2}
    assert set(result.groups["voice"]) == {"even", "odd"}
    assert calls[-1] == (7, 7) and len(calls) == len(model.batches)


def test_clips_are_heard_whole_and_the_longest_first():
    model = Reader()
    evaluate(model, clips(), batch_seconds=10.0)
    assert model.batches == [[9.0], [6.0], [4.0, 3.0], [2.0, 1.5, 1.0]]


def test_limit_takes_the_first_clips():
    assert [row.id for row in evaluate(Reader(), clips(), limit=2).rows] == ["clip-0", "clip-1"]


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="limit=0 came; expected at least 1"):
        evaluate(Reader(), clips(), limit=0)


def test_an_unreadable_clip_costs_only_itself():
    result = evaluate(Reader(), clips(broken=2))
    assert result.dropped == {"no text": 2, "unreadable audio": 1}
    assert "clip-2" not in [row.id for row in result.rows] and result.wer.value == 0


def test_shuffled_audio_ruins_a_recogniser_that_listens():
    right, shuffled = evaluate(Reader(), clips()), evaluate(Reader(), clips(), shuffled_audio=True)
    assert right.wer.value == 0 and shuffled.wer.value > 0.9
    assert shuffled.shuffled_audio and not right.shuffled_audio
    assert all(row.reference != row.hypothesis for row in shuffled.rows)
    # the same control without a second run: the transcripts depend on nothing but the audio
    assert right.wer_shuffled == pytest.approx(shuffled.wer.value)


def test_shuffled_audio_means_nothing_to_a_recogniser_that_does_not_listen():
    result = evaluate(Deaf(), clips())
    assert result.wer_shuffled == result.wer.value > 0.5
    assert evaluate(Deaf(), clips(), shuffled_audio=True).wer.value == result.wer.value


def test_too_few_texts_to_shuffle():
    with pytest.raises(ValueError, match="take more"):
        evaluate(Reader(), clips(), limit=1, shuffled_audio=True)


# Noise: the recogniser here keeps what it hears, so that the mixture itself can be measured.


class Recorder(Reader):
    def __init__(self):
        super().__init__()
        self.heard = {}

    def transcribe(self, audio, sampling_rate, *, batch_size, beams, hints):
        self.heard |= {len(clip): clip.clone() for clip in audio}  # every length occurs once
        return ["" for _ in audio]


def spoken() -> SpeechData:
    """The clips as above, but with white noise in place of speech."""
    return SpeechData(
        replace(clip, audio=encoded(white(clip.seconds, seed))) for seed, clip in enumerate(clips())
    )


def white(seconds: float, seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(int(16_000 * seconds), generator=torch.Generator().manual_seed(seed))


def heard(**options) -> dict[int, torch.Tensor]:
    model = Recorder()
    evaluate(model, spoken(), **options)
    return model.heard


def power(waveform: torch.Tensor) -> float:
    return waveform.square().mean().item()


@pytest.mark.parametrize("snr_db", [20.0, 0.0])
def test_noise_is_mixed_into_every_clip_at_the_ratio(snr_db):
    tone = torch.sin(torch.arange(8000) * 0.3)
    clean, mixed = heard(), heard(noise=[tone, torch.zeros(8000)], snr_db=snr_db)
    assert mixed.keys() == clean.keys() and len(clean) == 7
    for size, clip in clean.items():
        added = mixed[size] - clip
        assert 10 * np.log10(power(clip) / power(added)) == pytest.approx(snr_db, abs=0.05)
        spectrum = torch.fft.rfft(added).abs()  # it is the tone, not the silence beside it
        assert spectrum.argmax().item() / size == pytest.approx(0.3 / (2 * np.pi), rel=1e-3)


def test_the_same_stretch_of_noise_at_every_ratio_and_in_any_batch():
    noise = [white(2.0, 50), white(5.0, 51)]
    clean, loud = heard(), heard(noise=noise, snr_db=0.0)
    faint = heard(noise=noise, snr_db=20.0, batch_seconds=10.0)
    other = heard(noise=noise, snr_db=0.0, seed=1)
    for size, clip in clean.items():
        assert torch.allclose(loud[size] - clip, 10 * (faint[size] - clip), atol=1e-4)
        assert not torch.allclose(loud[size], other[size], atol=1e-2)


def test_a_result_says_what_noise_there_was():
    noise = [white(1.0, 9)]
    result = evaluate(Recorder(), spoken(), noise=noise, snr_db=10.0)
    assert (result.noise_snr_db, result.empty.value, result.wer.value) == (10.0, 1, 1)
    assert evaluate(Recorder(), spoken(), noise=noise).noise_snr_db is None


def test_mixing_is_not_counted_as_transcribing(monkeypatch):
    def slow(self, waveforms, lengths, ids, epoch):
        time.sleep(0.5)
        return waveforms, lengths

    monkeypatch.setattr(Augment, "waveform", slow)
    result = evaluate(Recorder(), spoken(), noise=[white(1.0, 9)], snr_db=10.0)
    assert sum(SECONDS) / result.rtfx < 0.4  # seconds


def test_noise_that_is_silence_is_refused():
    with pytest.raises(ValueError, match="came without noise"):
        evaluate(Recorder(), spoken(), noise=[torch.zeros(100)], snr_db=10.0)


def test_a_batch_of_torn_clips_needs_no_noise():
    result = evaluate(Recorder(), clips(broken=4), noise=[white(1, 9)], snr_db=0.0, batch_seconds=9)
    assert result.dropped["unreadable audio"] == 1 and result.utterances == 6
