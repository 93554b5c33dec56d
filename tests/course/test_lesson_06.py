"""The pictures and experiments of notebook 06, against counts by hand and other computations."""

import itertools
import math
from types import SimpleNamespace

import jiwer
import numpy as np
import pytest
import torch
import yaml
from fixtures_models import noise, talkative

from tiny_asr.course import lesson_06_errors as errors
from tiny_asr.course import lesson_06_publish as publish
from tiny_asr.course import lesson_06_word_times as word_times
from tiny_asr.course.explorers import Explorer
from tiny_asr.evaluation.score import Row, paired_bootstrap, score
from tiny_asr.shapes import SAMPLE_RATE

SAID = ["she", "sells", "old", "sea", "shells", "by", "the", "shore"]
HEARD = ["she", "sells", "sea", "shells", "by", "a", "shore", "today"]


def scored(*texts: tuple[str, str], seed: int = 0):
    """(reference, hypothesis) pairs -> Result."""
    rows = [Row(str(i), said, heard, 3.0) for i, (said, heard) in enumerate(texts)]
    return score(rows, seconds_elapsed=None, device="cpu", dtype="float32", seed=seed)


def system(error_rate: float, clips: int = 120, seed: int = 0):
    """A recogniser that is the same on easy and on hard clips, and wrong as often as asked."""
    rng = np.random.default_rng(seed)
    pairs = []
    for clip in range(clips):
        words = ["red", "blue", "green", "house", "tree", "river", "stone"][: 3 + clip % 5]
        rate = error_rate * (0.4 if clip % 2 else 1.6)
        pairs.append((" ".join(words), " ".join("x" if rng.random() < rate else w for w in words)))
    return scored(*pairs)


def some_words(rng) -> list[str]:
    return rng.choice(list("abcd"), rng.integers(1, 9)).tolist()


# Errors ------------------------------------------------------------------------------------------


def test_the_table_counts_as_jiwer_does_and_the_way_through_it_costs_as_much():
    rng = np.random.default_rng(0)
    for _ in range(200):
        said, heard = some_words(rng), some_words(rng)
        found = jiwer.process_words(" ".join(said), " ".join(heard))
        table, pairs = errors.edit_table(said, heard), errors.edit_pairs(said, heard)
        assert table[-1, -1] == found.substitutions + found.deletions + found.insertions
        assert sum(op != "=" for op, *_ in pairs) == table[-1, -1]
        assert [a for _, a, _ in pairs if a] == said
        assert [b for _, _, b in pairs if b] == heard
        assert all((a == b) == (op == "=") for op, a, b in pairs)


def test_the_notebooks_example_has_one_error_of_each_kind_and_one_cheapest_way():
    pairs = errors.edit_pairs(SAID, HEARD)
    wrong = [pair for pair in pairs if pair[0] != "="]
    assert wrong == [("D", "old", ""), ("S", "the", "a"), ("I", "", "today")]
    table = errors.edit_table(SAID, HEARD)
    ways = np.zeros(table.shape, dtype=int)  # how many cheapest ways lead to each cell
    ways[0], ways[:, 0] = 1, 1
    for i, j in itertools.product(range(1, len(SAID) + 1), range(1, len(HEARD) + 1)):
        steps = {(i - 1, j - 1): SAID[i - 1] != HEARD[j - 1], (i - 1, j): 1, (i, j - 1): 1}
        ways[i, j] = sum(ways[c] for c, price in steps.items() if table[c] + price == table[i, j])
    assert ways[-1, -1] == 1


def test_an_alignment_names_each_error_and_breaks_long_lines():
    shown = errors.Alignment([("equal", "a<b", "a<b"), ("delete", "gone", ""), ("S", "x", "y")])
    page = shown._repr_html_()
    assert "a&lt;b" in page and "a<b" not in page
    assert page.count("<table") == 1 and page.count("</tr>") == 3
    for op, word in (("D", "gone"), ("S", "y"), ("S", "S")):
        assert f"{errors.INKS[op]};font-weight:bold'>{word}<" in page
    lines = repr(shown).splitlines()
    assert [line.split() for line in lines] == [
        ["said", "a<b", "gone", "x"], ["heard", "a<b", "y"], ["error", "D", "S"]
    ]  # fmt: skip
    assert lines[1].index("y") == lines[0].index("x") == lines[2].index("S")
    titled = errors.Alignment([("=", "go", "go")], "a <voice>")
    assert titled._repr_html_().count("a &lt;voice&gt;</p>") == 1
    assert repr(titled).splitlines()[0] == "a <voice>"
    long = errors.Alignment([("=", str(n), str(n)) for n in range(30)])
    assert long._repr_html_().count("<table") == math.ceil(30 / errors.MOST_PAIRS)


def test_words_are_counted_in_their_groups():
    result = scored(("the cat sat", "the dog sat"), ("a cat", "a cat ran"))
    recall = errors.word_recall(result.rows, lambda word: "cat" if word == "cat" else "other")
    assert recall == {"other": (3, 3), "cat": (1, 2)}


# Luck --------------------------------------------------------------------------------------------


def test_resampling_agrees_with_the_packages_intervals():
    ours, theirs = system(0.3), system(0.2, seed=1)
    low, high = errors.interval(errors.resampled(ours))
    assert low == pytest.approx(100 * ours.wer.low, abs=1)
    assert high == pytest.approx(100 * ours.wer.high, abs=1)
    gap = paired_bootstrap(ours, theirs)
    low, high = errors.interval(errors.resampled(ours, against=theirs))
    assert low == pytest.approx(100 * gap.low, abs=1)
    assert high == pytest.approx(100 * gap.high, abs=1)


def test_four_times_the_clips_halve_the_interval():
    widths = []
    for clips in (50, 200):
        low, high = errors.interval(errors.resampled(system(0.3), clips))
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.15)


def test_the_slider_tells_the_interval_of_its_number_of_clips():
    result = system(0.3)
    explorer = errors.explore_luck(result)
    assert isinstance(explorer, Explorer)
    slider, words, image = explorer.children
    slider.value = 1000
    low, high = errors.interval(errors.resampled(result, 1000))
    assert words.value.startswith("1000 clips") and f"{low:.1f} and {high:.1f}" in words.value
    assert "1000 clips" in image.value


def test_figures_say_in_words_what_they_show():
    ours, theirs = system(0.3), system(0.2, seed=1)
    low, high = errors.interval(errors.resampled(ours))
    assert f"between {low:.1f} and {high:.1f}" in errors.luck_picture(ours).alt
    assert "3 at the bottom right" in errors.edit_picture(SAID, HEARD).alt
    assert "rare: 25 % of 8" in errors.shares_picture({"rare": (2, 8)}, "right").alt
    low, high = errors.interval(errors.resampled(ours, against=theirs))
    words = f"drawn together: {low:+.1f} to {high:+.1f}"
    assert words in errors.pairing_picture(ours, theirs, ("a", "b")).alt
    alt = errors.noise_picture({"hiss": {20: theirs, 0: ours}}, theirs).alt
    assert f"{100 * theirs.wer.value:.0f} at 20 dB, {100 * ours.wer.value:.0f} at 0 dB" in alt


# Noise and silence -------------------------------------------------------------------------------


@pytest.mark.parametrize(("slope", "times"), [(0, 2.0), (1, 1.0)])
def test_noise_has_its_colour_and_loudness(slope, times):
    sound = errors.coloured(slope, 20)
    assert len(sound) == 20 * SAMPLE_RATE
    assert float(sound.square().mean().sqrt()) == pytest.approx(0.05)
    power = torch.fft.rfft(sound.double()).abs().square()
    hertz = torch.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    octaves = [float(power[(hertz >= f) & (hertz < 2 * f)].sum()) for f in (500, 1000, 2000)]
    for lower, upper in itertools.pairwise(octaves):  # pink: each octave is equally strong
        assert upper / lower == pytest.approx(times, rel=0.1)
    assert torch.equal(sound, errors.coloured(slope, 20))
    assert not torch.equal(sound, errors.coloured(slope, 20, seed=1))


def test_nobody_speaks_in_clips_of_the_lengths_asked_for():
    clips = errors.nobody_speaks((1, 2))
    assert [len(clip) / SAMPLE_RATE for clip in clips] == [1] * 6 + [2] * 6
    assert all(bool(clip.isfinite().all()) and clip.abs().max() <= 1 for clip in clips)
    assert not clips[0].any() and all(clip.any() for clip in clips[1:6])
    assert int(torch.fft.rfft(clips[4]).abs().argmax()) == 50  # the hum, in a second of sound


def test_quiet_is_put_beside_a_clip_and_nothing_of_it_is_lost():
    clip = noise(1.0)
    for name, sound in errors.quiet_beside(clip, 2.0).items():
        assert len(sound) == len(clip) + (name != "as it is") * 2 * SAMPLE_RATE
        loud = sound[sound.abs() > 0.02]
        assert torch.equal(loud, clip[clip.abs() > 0.02])
    model = talkative()
    assert errors.raw(model, [clip]) == [model.transcribe(clip, SAMPLE_RATE)]


# When was it said? -------------------------------------------------------------------------------


def every_way(words: int, size: int):
    """Every way to give each word a stretch of its own, in order."""
    for cuts in itertools.combinations_with_replacement(range(size + 1), 2 * words):
        spans = list(itertools.batched(cuts, 2)) if hasattr(itertools, "batched") else [
            cuts[i : i + 2] for i in range(0, 2 * words, 2)
        ]  # fmt: skip
        if all(first < last for first, last in spans):
            yield [tuple(span) for span in spans]


@pytest.mark.parametrize(("words", "size"), [(1, 1), (1, 5), (2, 2), (2, 6), (3, 7)])
def test_words_are_placed_as_well_as_by_trying_everything(words, size):
    rng = np.random.default_rng(words * size)
    for _ in range(20):
        scores = rng.normal(size=(words, size))

        def total(spans, scores=scores):
            return sum(scores[w, a:b].sum() for w, (a, b) in enumerate(spans))

        found = word_times.in_order(scores)
        assert found in list(every_way(words, size))
        assert total(found) == pytest.approx(max(map(total, every_way(words, size))))


def test_more_words_than_positions_cannot_be_placed():
    with pytest.raises(ValueError, match="3 words for 2 positions came; expected"):
        word_times.in_order(np.zeros((3, 2)))


def test_the_edges_of_a_sound_are_found():
    sound = torch.zeros(2 * SAMPLE_RATE)
    sound[8000:24_000] = torch.sin(torch.arange(16_000) / 5)
    sound += 1e-4 * torch.randn(len(sound), generator=torch.Generator().manual_seed(0))
    assert word_times.edges(sound) == pytest.approx((0.5, 1.5), abs=0.011)


def test_attention_is_read_where_a_token_is_written_and_at_the_audio(monkeypatch):
    """A stand-in for the language model returns weights that say where they stand."""
    model, clip = talkative(), noise(1.5)
    tokenizer = model.processor.tokenizer
    ids = tokenizer("go on home", add_special_tokens=False).input_ids
    pieces = [tokenizer.decode(token) for token in ids]
    starts = [n for n, piece in enumerate(pieces) if n == 0 or piece.startswith(" ")]
    monkeypatch.setattr(model, "generate", lambda clips: [torch.tensor(ids)])
    language_model, before = model.decoder.language_model, model.decoder.prompt_before.shape[1]
    size, prompt = 15, model.decoder.prompt_length
    total = prompt + size + len(ids) - 1  # the last one is predicted, not read

    def answer(inputs_embeds, **options):
        assert inputs_embeds.shape[1] == total and options["output_attentions"]
        assert language_model.config._attn_implementation == "eager"
        weights = torch.zeros(1, 2, total, total)
        for n in range(len(ids)):  # token n looks at audio position n, and at itself
            weights[:, :, prompt + size - 1 + n, before + n] = 0.5
            weights[:, :, prompt + size - 1 + n, prompt + size - 1 + n] = 0.5
        return SimpleNamespace(attentions=(torch.full_like(weights, 9), weights))

    monkeypatch.setattr(language_model, "forward", answer)
    fast = language_model.config._attn_implementation
    words, scores = word_times.attention_to_audio(model, clip)
    assert language_model.config._attn_implementation == fast
    assert "".join(words) == "goonhome" and scores.shape == (len(words), size)
    assert len(words) == len(starts)
    np.testing.assert_allclose(scores.sum(axis=1), 0, atol=1e-6)
    for word, (first, last) in enumerate(zip(starts, [*starts[1:], len(ids)], strict=True)):
        assert np.flatnonzero(scores[word] > 0).tolist() == list(range(first, last))
    times = word_times.by_attention(model, clip)
    assert times[0][1] == 0 and times[1][1] == pytest.approx(0.1 * starts[1])
    assert "go 0.0 to" in word_times.times_picture(model, clip).alt


def test_a_real_language_model_gives_its_attention_and_is_left_as_it_was():
    model, clip = talkative(), noise(2.0)
    ids = model.generate([clip])[0]
    words, scores = word_times.attention_to_audio(model, clip)
    assert scores.shape == (len(words), 20) and np.isfinite(scores).all() and scores.any()
    assert torch.equal(model.generate([clip])[0], ids)


def test_nothing_written_has_no_times(monkeypatch):
    model = talkative()
    end = torch.tensor([model.decoder.end_id])
    monkeypatch.setattr(model, "generate", lambda clips: [end])
    assert word_times.by_attention(model, noise(1.0)) == []


# The student's model, and its card ----------------------------------------------------------------


def test_the_model_that_lesson_05_left_is_taken(tmp_path, capsys):
    talkative().save_pretrained(tmp_path / "runs" / "mine")
    model = publish.left_by_lesson_05(tmp_path / "runs" / "mine", "tiny", "cpu")
    assert "yours, from runs/mine" in capsys.readouterr().out
    kept = talkative().audio_projector.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in model.audio_projector.state_dict().items())


def test_without_one_a_fresh_projector_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(publish, "MINUTE", 16)
    model = publish.left_by_lesson_05(tmp_path, "tiny", "cpu")
    assert "lesson 05 has left no model" in capsys.readouterr().out
    trained = model.audio_projector.linear1.weight.clone()
    model.reset_projector(seed=0)
    assert 0 < float((model.audio_projector.linear1.weight - trained).abs().max()) < 0.1


def test_the_card_holds_the_measurement_and_what_the_hub_reads():
    result = scored(("a cat sat", "a dog sat"), ("go home now", "home"), ("oh", "oh no"))
    config = SimpleNamespace(encoder="openai/whisper-tiny.en", decoder="bundled:tiny-decoder")
    model = SimpleNamespace(config=config, untrained=())
    card = publish.model_card("mine", model, result, "three clips", (9, 10))
    _, front, text = card.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["base_model"] == ["openai/whisper-tiny.en"]
    assert about["pipeline_tag"] == "automatic-speech-recognition"
    assert "| three clips | 3 | 7 | whisper-english | 57.1 % (" in text and "| 1 / 2 / 1 |" in text
    assert "9 of 10" in text and "Untrained" not in text
    other = scored(("a cat sat", "a cat sat"), ("go home now", "home"), ("oh", "oh no"))
    gap = paired_bootstrap(result, other)
    card = publish.model_card("mine", model, result, "three clips", (9, 10), ("tiny", gap))
    assert "Minus `tiny` on the same clips: +14.3 points (" in card
    model.untrained, config.encoder = ("projector",), "bundled:tiny-encoder"
    card = publish.model_card("mine", model, result, "three clips", (9, 10))
    assert "base_model" not in card and "**Untrained: projector.**" in card
