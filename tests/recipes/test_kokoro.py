"""Natural voices: what they say, who speaks, and a network that says it in batches as alone."""

import lzma
import math
import multiprocessing.dummy
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import torch
import torchaudio

from recipes.kokoro import batches, number_words, speak, texts, voices, weights
from recipes.kokoro.grammar import SLOT, Grammar, tidy
from recipes.kokoro.layers import StyleNorm
from recipes.kokoro.model import Kokoro, KokoroConfig
from recipes.kokoro.vocoder import RATE, Source
from recipes.text import HELD_OUT
from tiny_asr.data.dataset import load_data
from tiny_asr.data.utterance import normalise_transcript

TINY = KokoroConfig(
    tokens=20,
    most_tokens=64,
    width=16,
    style=8,
    longest=5,
    bert_embedding=8,
    bert_width=16,
    bert_ffn=16,
    bert_heads=2,
    bert_layers=2,
)


@pytest.fixture(scope="module")
def tiny() -> Kokoro:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Kokoro(TINY)


@pytest.fixture(scope="module")
def utterances() -> list[batches.Utterance]:
    """Of 1 to 40 tokens, at several speeds, some equally long."""
    rng = np.random.default_rng(0)
    styles = rng.normal(size=(510, 2 * TINY.style)).astype(np.float32)
    return [
        batches.Utterance(rng.integers(1, TINY.tokens, count).tolist(), styles, speed)
        for count, speed in [(12, 1.0), (1, 0.8), (40, 1.3), (12, 1.0), (7, 1.1), (13, 0.9)]
    ]


# Sentences


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (number_words.in_words(0), "zero"),
        (number_words.in_words(215), "two hundred fifteen"),
        (number_words.in_words(215, british=True), "two hundred and fifteen"),
        (number_words.in_words(3_042_000), "three million forty-two thousand"),
        (number_words.in_words(1001, british=True), "one thousand and one"),
        (number_words.ordinal(21), "twenty-first"),
        (number_words.ordinal(30), "thirtieth"),
        (number_words.ordinal(112), "one hundred twelfth"),
        (number_words.year(1905), "nineteen oh five"),
        (number_words.year(1800), "eighteen hundred"),
        (number_words.year(2003), "two thousand and three"),
        (number_words.year(2026), "twenty twenty-six"),
    ],
)
def test_numbers_in_words(said, expected):
    assert said == expected


def test_the_grammar_knows_each_slot_and_draws_the_same_again():
    grammar = Grammar(["Zebulon", "Abercorn"])
    phrases = [text for kind in grammar.sentences.values() for text in kind]
    phrases += [text for kind in grammar.phrases.values() for text in kind]
    assert {slot.lower() for text in phrases for slot in SLOT.findall(text)} <= set(grammar.slots)

    def drawn(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [grammar.sentence(rng) for _ in range(2000)]

    said = drawn(0)
    assert said == drawn(0) and len(set(said)) > 1700
    assert len(set(said) & set(drawn(1))) < 200
    for sentence in said:
        assert not re.search(r"[\d{}_|]|\ba [aeio][bcdfg]|  ", sentence), sentence
        assert sentence.lstrip('"')[0].isupper() and sentence[-1] in '.?!"'
        assert not re.search(r"\d", normalise_transcript(sentence))


@pytest.mark.parametrize(
    ("rough", "fine"),
    [
        ("a old fox and a unit", "An old fox and a unit"),
        ("tell me about the a sandwich", "Tell me about the sandwich"),
        ("look at my the foxs", "Look at my foxes"),
        ("on Monday, May first", "On Monday, May first"),
    ],
)
def test_slots_meet_their_surroundings(rough, fine):
    assert tidy(rough) == fine


@pytest.mark.parametrize(
    ("printed", "spoken"),
    [
        ("\u2018Well,\u2019 said Mr. Knox,", "Well, said Mister Knox."),
        ("He was--as I said--gone . . .", "He was \u2014 as I said \u2014 gone\u2026"),
        ("(It's the boys' turn)", "It's the boys turn."),
        ("In 1848 they came.", None),
        ("CHAPTER ONE begins", None),
        ("He called on Mrs.", None),
        ("Caf\u00e9 au lait.", None),
        ("* * *", None),
    ],
)
def test_printed_sentences_are_tidied_or_left_out(printed, spoken):
    assert texts.cleaned(printed) == spoken


SECRET = "the rabbit looked at his watch again"
ADJECTIVES = ["green", "little", "silent", "golden", "broken", "early", "hollow", "yellow"]
NOUNS = ["river", "garden", "castle", "letter", "window", "doctor", "summer", "pocket"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> list[Path]:
    """Folders that the program wrote of two small books and one that is put aside, twice."""
    shared = tmp_path_factory.mktemp("shared")
    lines = [
        f"The {one} {two} was near the {three} of {four}."
        for one in ADJECTIVES
        for two in NOUNS
        for three, four in zip(NOUNS, reversed(NOUNS), strict=True)
    ]
    aside = f"### {next(iter(HELD_OUT))}\n{SECRET.capitalize()}.\nThe aside never speaks here.\n"
    book = "### Somebody_Book_1911\n" + "\n".join(lines) + f"\n{SECRET.capitalize()}.\n"
    old = "### Somebody_Old_1850\nThou art a river.\nIn 1850 the river was green.\n"
    with lzma.open(shared / "novels.xz", "wt", encoding="utf-8") as file:
        file.write(aside + book + old)
    known = re.sub(r"[^a-z\n]+", "\n", (aside + book + old).lower()).split()
    rare = ["zebulon", "abercorn", "quixote", "juniper"]
    with lzma.open(shared / "dictionary.xz", "wt", encoding="utf-8") as file:
        file.writelines(f"{word} X0 Y1\n" for word in [*known, *rare, "rare(2)"])
    folders = [tmp_path_factory.mktemp("made") for _ in range(2)]
    for folder in folders:
        command = [
            "texts",
            "--text",
            shared / "novels.xz",
            "--dictionary",
            shared / "dictionary.xz",
        ]
        command += ["--out", folder, "--novels", 300, "--pairs", 50, "--everyday", 400]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(word) for word in command])
            texts.main()
    return folders


def test_sentences_to_speak(made):
    rows = {}
    for name, count in [("novels.txt", 350), ("everyday.txt", 400)]:
        first, second = ((folder / name).read_text("utf-8") for folder in made)
        assert first == second
        rows[name] = [line.split("\t") for line in first.splitlines()]
        assert len(rows[name]) == count
    targets = [target for table in rows.values() for _, target in table]
    assert len(set(targets)) == len(targets)
    for table in rows.values():
        for spoken, target in table:
            assert target == normalise_transcript(spoken) and not re.search(r"\d", spoken + target)
    # In a book put aside: never, though another book has it too.
    running = "\n".join(targets)
    assert not any("never speaks" in target or SECRET in target for target in targets)
    assert "thou art" not in running
    assert sum(target.count(" was near ") == 2 for target in targets) == 50  # pairs
    assert "zebulon" in running


def test_too_little_text_is_said(made, tmp_path, monkeypatch, capsys):
    with lzma.open(tmp_path / "a.xz", "wt", encoding="utf-8") as file:
        file.write("### Book\nThe river was green.\n")
    monkeypatch.setattr(sys, "argv", ["texts", "--text", str(tmp_path / "a.xz"), "--dictionary"])
    sys.argv += [str(tmp_path / "a.xz"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        texts.main()
    assert "sentences in the novels; expected 300000" in capsys.readouterr().err


# Voices


def test_voices_kept_for_tests_are_never_drawn():
    rng = np.random.default_rng(0)
    drawn = [voices.heard_voice(rng) for _ in range(2000)]
    heard = {name for voice in drawn for name in (voice.first, voice.second, voice.prosody)} - {""}
    assert heard == set(voices.VOICES) - set(voices.HELD_OUT) and len(heard) == 22
    assert not any(name in voice.name for voice in drawn for name in voices.HELD_OUT)
    plain = [voice for voice in drawn if voice.percent == 0]
    mixed = [voice for voice in drawn if voice.percent]
    assert len(plain) / 2000 == pytest.approx(0.3, abs=0.04)
    assert all(voice.first == voice.second for voice in plain)
    assert all(voice.first != voice.second for voice in mixed)
    away = [voice for voice in mixed if voice.percent < 0]
    assert len(away) / len(mixed) == pytest.approx(0.35, abs=0.05)
    assert {range(30, 51).index(voice.percent) for voice in mixed if voice not in away}
    assert {range(-30, -9).index(voice.percent) for voice in away}
    lent = [voice for voice in drawn if voice.prosody]
    assert len(lent) / 2000 == pytest.approx(0.25, abs=0.04)
    assert all(voice.prosody[0] == voice.first[0] for voice in lent)
    british = sum(voice.language == "en-gb" for voice in drawn) / 2000
    assert british == pytest.approx(4 * 2.2 / (4 * 2.2 + 18), abs=0.04)
    speeds = [voices.speed(rng) for _ in range(2000)]
    assert 0.8 <= min(speeds) < 0.85 and 1.25 < max(speeds) <= 1.3
    assert np.mean(speeds) == pytest.approx(1.04, abs=0.01)


def test_a_voice_made_of_two_or_three():
    tables = {name: np.full((510, 256), place, np.float32) for place, name in enumerate("ab")}
    mean = voices.Voice("a", "b", 30)
    assert mean.name == "a+b*30" and mean.styles(tables) == pytest.approx(0.3)
    away = voices.Voice("b", "a", -20, "a")
    assert away.name == "b-a*20~a"
    assert away.styles(tables)[:, :128] == pytest.approx(1.2)
    assert away.styles(tables)[:, 128:] == pytest.approx(0)
    plain = voices.plain("b")
    assert plain.name == "b" and plain.language == "en-gb"
    assert plain.styles(tables) == pytest.approx(1)


def test_a_missing_voice_is_said(tmp_path):
    with open(tmp_path / "voices.bin", "wb") as file:
        np.savez(file, **{name: np.zeros((510, 1, 256)) for name in voices.VOICES[1:]})
    with pytest.raises(ValueError, match="lacks the voices af_alloy"):
        voices.load_tables(tmp_path / "voices.bin")


# The network


def test_a_batch_says_what_each_says_alone(tiny, utterances):
    together = batches.synthesise(tiny, utterances)
    for one, sound in zip(utterances, together, strict=True):
        (alone,) = batches.synthesise(tiny, [one])
        assert sound.shape == alone.shape and sound.abs().max() > 0.1
        torch.testing.assert_close(sound, alone, rtol=0.01, atol=2e-3)
    assert not torch.equal(together[0], together[3])  # as many tokens, other ones
    few = batches.synthesise(tiny, utterances, frames=1)  # one at a time in the vocoder
    torch.testing.assert_close(few, together, rtol=0.01, atol=2e-3)


def test_padding_is_neither_read_nor_spoken(tiny, utterances):
    planned = {one.place: one for one in batches.plan(tiny, utterances)}
    for place, utterance in enumerate(utterances):
        (alone,) = batches.plan(tiny, [utterance])
        mine = planned[place]
        assert len(mine.frames) == len(utterance.tokens) + 2 and mine.frames.min() >= 1
        assert mine.total == mine.frames.sum() and torch.equal(mine.frames, alone.frames)
        torch.testing.assert_close(mine.melody_text, alone.melody_text)
        torch.testing.assert_close(mine.text, alone.text)
    slow, fast = (
        next(batches.plan(tiny, [batches.Utterance([3, 4, 5], utterances[0].styles, speed)]))
        for speed in (0.5, 1.5)
    )
    assert slow.total > 1.5 * fast.total


def test_what_was_added_to_a_length_is_cut_off_again(tiny, utterances, monkeypatch):
    """Bookkeeping of frames, and 24 kHz to 16 kHz: the vocoder hums a tone of 500 Hz instead."""
    asked = []

    def hum(melody_text, text, frames, styles, breath):
        totals = frames.sum(1)
        assert len(set(totals.tolist())) == 1
        asked.append(int(totals[0]))
        return torch.sin(torch.arange(600 * totals[0]) * (2 * math.pi * 500 / RATE)).repeat(
            len(frames), 1
        )

    monkeypatch.setattr(tiny, "speak", hum)
    totals = {one.place: one.total for one in batches.plan(tiny, utterances)}
    for place, sound in enumerate(batches.synthesise(tiny, utterances)):
        assert len(sound) == 400 * totals[place]  # 25 ms each
        length = batches.common_length(totals[place])
        tone = torch.sin(torch.arange(600 * length) * (2 * math.pi * 500 / RATE))
        right = torchaudio.functional.resample(tone, 24_000, 16_000)[: len(sound)]
        torch.testing.assert_close(sound, right, rtol=0, atol=1e-4)
    assert sorted(set(asked)) == sorted({batches.common_length(total) for total in totals.values()})


def test_the_vocoders_lengths_are_few_and_near():
    for frames in range(1, 1200):
        length = batches.common_length(frames)
        assert frames <= length <= max(frames + 3, frames * 1.0625)
        assert batches.common_length(length) == length
    assert len({batches.common_length(frames) for frames in range(40, 1200)}) < 80


def test_lengths_that_do_not_fit_are_refused(tiny, utterances):
    one, two = list(batches.plan(tiny, utterances[:2]))
    with pytest.raises(ValueError, match="frames in one batch; expected one length"):
        tiny.speak(
            torch.zeros(2, 14, 24),
            torch.zeros(2, 14, 16),
            torch.nn.utils.rnn.pad_sequence([one.frames, two.frames], batch_first=True),
            torch.zeros(2, 16),
            None,
        )
    for tokens in ([], [1] * 63):
        wrong = batches.Utterance(tokens, utterances[0].styles, 1.0)
        with pytest.raises(ValueError, match=rf"{len(tokens)} tokens; expected 1 to 62"):
            next(batches.plan(tiny, [wrong]))


def test_the_hum_has_the_pitch_it_is_given():
    source = Source()
    cycles = torch.full((1, 9, 6), 200 / RATE) * source.harmonics
    phases = source.phases(cycles)
    assert phases.shape == (1, 9, 6 * 300)
    inner = phases[0, :, 150:-150].double()  # outside the middles of the first and last it stands
    steps = (inner[:, 1:] - inner[:, :-1] + 0.5) % 1 - 0.5
    expected = (200 / RATE * torch.arange(1, 10).double())[:, None].expand_as(steps)
    torch.testing.assert_close(steps, expected, rtol=0, atol=1e-5)
    silent = source(torch.zeros(1, 6), None)
    assert silent.shape == (1, 22, 361) and torch.equal(silent[..., 50], silent[..., 200])


def test_breath_is_drawn_from_its_generator(tiny, utterances):
    def spoken(seed: int | None) -> torch.Tensor:
        breath = None if seed is None else torch.Generator().manual_seed(seed)
        return batches.synthesise(tiny, utterances[:1], breath)[0]

    before = torch.random.get_rng_state()
    assert torch.equal(spoken(1), spoken(1)) and not torch.equal(spoken(1), spoken(2))
    assert torch.equal(spoken(None), spoken(None))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_lightened_vocoder_keeps_source_and_spectra_in_float32(utterances):
    torch.manual_seed(0)
    model = Kokoro(TINY)
    exact = batches.synthesise(model, utterances[:1])[0]
    light = batches.synthesise(model.lighten(torch.bfloat16), utterances[:1])[0]
    assert model.decoder.asr_res.weight.dtype == torch.bfloat16
    assert model.source.l_linear.weight.dtype == model.source.window.dtype == torch.float32
    assert light.dtype == torch.float32 and light.shape == exact.shape and light.isfinite().all()


def test_a_norm_in_half_precision_sums_in_full():
    torch.manual_seed(0)
    norm = StyleNorm(4, 8)
    x, style = 300 * torch.randn(2, 4, 1, 3000) + 900, torch.randn(2, 8)  # squares overflow float16
    exact = norm(x, style)
    light = norm.to(torch.float16)(x.half(), style.half())
    assert light.dtype == torch.float16
    torch.testing.assert_close(light.float(), exact, rtol=0.02, atol=0.02)


# Pieces


class Letters:
    """Stands for the phonemes: a token a letter."""

    def tokens(self, lines: list[str], language: str) -> list[list[int]]:
        return [[1 + ord(letter) % 19 for letter in line[:40]] for line in lines]


@pytest.fixture
def pieces(tiny, made, tmp_path, monkeypatch):
    """Runs the program with a tiny network and threads in place of processes."""
    rng = np.random.default_rng(0)
    tables = {name: rng.normal(size=(510, 16)).astype(np.float32) for name in voices.HEARD}
    monkeypatch.setattr(speak, "speaker", lambda folder, device: (tiny, tables, Letters()))
    monkeypatch.setattr(speak, "Phonemes", Letters)
    monkeypatch.setattr(speak, "convert", lambda folder: folder)
    threads = SimpleNamespace(Pool=multiprocessing.dummy.Pool, Value=multiprocessing.Value)
    monkeypatch.setattr(speak, "get_context", lambda kind: threads)
    speak.sentences.cache_clear()
    (tmp_path / "voices.bin").touch()

    def run(out: str, *options: object) -> Path:
        hours = 2 * 8 * speak.MEAN_SECONDS / 3600
        command = ["speak", "--texts", made[0], "--kokoro", tmp_path, "--out", tmp_path / out]
        command += ["--clips", 8, "--hours", hours, "--device", "cpu", *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in command])
        speak.main()
        return tmp_path / out

    return run


def rows_of(path: Path) -> list[dict]:
    return pyarrow.parquet.read_table(path).to_pylist()


def test_pieces_are_read_as_training_data(pieces, made):
    out = pieces("out")
    assert [path.name for path in sorted(out.iterdir())] == ["00000.parquet", "00001.parquet"]
    rows = [row for path in sorted(out.iterdir()) for row in rows_of(path)]
    lines = "".join((made[0] / name).read_text("utf-8") for name in ("novels.txt", "everyday.txt"))
    targets = {line.split("\t")[1] for line in lines.splitlines()}
    assert len({row["id"] for row in rows}) == len({row["text"] for row in rows}) == 16
    for row in rows:
        assert row["engine"] == "kokoro" and row["text"] in targets
        names = re.split(r"[+~-]|\*\d+", row["voice"].removeprefix("kokoro/"))
        assert set(filter(None, names)) <= set(voices.HEARD)
    clips = load_data(out)
    assert len(clips) + clips.dropped.total() == 16  # random weights speak some at an odd pace
    assert len(clips[0].load()) == pytest.approx(clips[0].seconds * 16_000)


def test_workers_take_turns_at_the_gpus(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    turns = multiprocessing.Value("i", 0)
    for device in ("cuda", "cuda", "cuda", "cuda:1", "cpu", "cuda"):
        speak.begin(turns, device)
    assert taken == [0, 1, 0, 1]  # one that is named stays as it is


def test_a_piece_follows_from_its_number(pieces, capsys):
    both = pieces("both")
    (both / "00000.parquet").unlink()
    kept = (both / "00001.parquet").stat().st_mtime_ns
    before = rows_of(both / "00001.parquet")
    capsys.readouterr()
    pieces("both")  # goes on with what is missing
    assert "1 pieces to make of 2" in capsys.readouterr().out
    assert (both / "00001.parquet").stat().st_mtime_ns == kept
    second = pieces("second", "--first", 1)
    assert rows_of(second / "00001.parquet") == before
    other = pieces("other", "--seed", 5)
    assert rows_of(other / "00001.parquet") != before


def test_what_cannot_be_spoken_is_counted(pieces, monkeypatch, capsys):
    monkeypatch.setattr(speak, "TOKENS", range(2, 40))  # the stand-in gives at most 40
    monkeypatch.setattr(speak, "LONGEST", 2.0)
    out = pieces("out")
    said = capsys.readouterr().out.splitlines()[-1]
    rows = [row for path in out.iterdir() for row in rows_of(path)]
    lost = {
        reason: int(count) for reason, count in re.findall(r"(too long|text[\w ]+?) (\d+)", said)
    }
    assert len(rows) + sum(lost.values()) == 16 and "text too short or too long" in lost
    assert all(row["seconds"] <= 2 for row in rows)


def test_mistakes_are_said_in_a_line(pieces, tmp_path, capsys):
    for options, said in [
        (("--hours", 5), "sentences; "),
        (("--texts", tmp_path / "no"), "run recipes.kokoro.texts"),
        (("--kokoro", tmp_path / "no"), "expected kokoro-82m-int8.onnx and voices.bin there"),
    ]:
        with pytest.raises(SystemExit):
            pieces("out", *options)
        assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match="no voice model in"):
        weights.convert(tmp_path)


# The real weights


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("/encoder/F0.1/conv2/Conv_quant", "predictor.F0.1.conv2"),
        ("/encoder/F0_proj/Conv_quant", "predictor.F0_proj"),
        ("/decoder/decoder/F0_conv/Conv_quant", "decoder.F0_conv"),
        ("/encoder/shared/LSTM_quant", "predictor.shared"),
        ("/encoder/text_encoder/cnn.1/cnn.1.0/Conv_quant", "text_encoder.cnn.1.0"),
        ("encoder.text_encoder.cnn.2.1.gamma", "text_encoder.cnn.2.1.weight"),
        ("/decoder/decoder/asr_res/asr_res.0/Conv_quant", "decoder.asr_res"),
        ("/decoder/decoder/encode/norm1/fc/Gemm_MatMul_quant", "decoder.encode.norm1.fc"),
        ("/encoder/predictor/duration_proj/linear_layer/MatMul_quant", "predictor.duration_proj"),
        ("decoder.decoder.generator.m_source.l_linear.bias", "source.l_linear.bias"),
    ],
)
def test_names_of_weights(given, name):
    assert weights.renamed(given) == name
    assert name in {*dict(Kokoro(TINY).named_modules()), *dict(Kokoro(TINY).named_parameters())}


def test_gates_are_put_in_pytorchs_order():
    rows = np.array(list("iiooffcc"))[:, None]
    assert "".join(weights.gates(rows)[:, 0]) == "iiffccoo"


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    """The voice model's folder; what is made of it is written elsewhere."""
    folder = os.environ.get("TINY_ASR_KOKORO")
    if folder is None:
        pytest.skip("the voice model is not here: TINY_ASR_KOKORO names no folder")
    for package in ("kokoro_onnx", "onnx", "phonemizer"):
        pytest.importorskip(package, reason="pip install '.[recipes]' in the clone")
    copy = tmp_path_factory.mktemp("kokoro")
    for path in Path(folder).resolve().iterdir():
        (copy / path.name).symlink_to(path)
    return copy


def test_the_real_network_speaks_like_its_onnx_file(real):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(real / weights.ONNX, providers=["CPUExecutionProvider"])
    model, tables, phonemes = speak.speaker(real, "cpu")

    def spectrum(samples: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(512)
        power = torch.stft(samples, 512, 128, window=window, return_complex=True).abs()
        return power.clamp(min=1e-3).log().flatten()

    for text, voice in [
        ("Turn on the lights.", voices.plain("af_heart")),
        ("Yes, at half past seven.", voices.Voice("bm_daniel", "bf_lily", 40)),
        ("Let me start again.", voices.plain("am_puck")),
    ]:
        (tokens,) = phonemes.tokens([text], voice.language)
        one = batches.Utterance(tokens, voice.styles(tables), 1.0)
        (sound,) = batches.synthesise(model, [one])
        assert 0.05 < len(sound) / 16_000 / len(text) < 0.13  # seconds a letter
        assert 0.02 < sound.std() < 0.15 and 0.1 < sound.abs().max() < 1
        assert sound[:1600].abs().max() < 0.05  # begins with a pause
        inputs = {"tokens": [[0, *tokens, 0]], "style": one.style[None], "speed": np.ones(1, "f4")}
        said = torch.from_numpy(session.run(None, inputs)[0].ravel())
        reference = torchaudio.functional.resample(said, RATE, 16_000)
        assert len(sound) == pytest.approx(len(reference), abs=0.06 * 16_000)
        both = [spectrum(wave[: min(len(sound), len(reference))]) for wave in (sound, reference)]
        assert torch.corrcoef(torch.stack(both))[0, 1] > 0.9
