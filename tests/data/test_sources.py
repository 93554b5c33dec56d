"""Rows as people have them: formats of other programs, odd encodings, texts that can't be right.

Text is never bent: what a target can't hold is counted with the row's name, and warned of.
"""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from fixtures_models import pair

from tiny_asr.data.dataset import load_data, noise_utterances
from tiny_asr.data.utterance import BadClip, Utterance
from tiny_asr.evaluation.score import evaluate

RATE = 16_000
TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(60 * RATE) / RATE)).astype(np.float32)


def write(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, TONE[: round(seconds * RATE)], RATE)
    return path


def text_file(path, *lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def found(data) -> list[tuple[str, str, float]]:
    """Ids, texts and decoded seconds."""
    return [(item.id, item.text, len(item.load(None)) / RATE) for item in data]


# Formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_manifest_of_nemo(tmp_path, suffix):
    write(tmp_path / "a.wav", 3.0)
    write(tmp_path / "b.wav", 1.0)
    rows = [
        {"audio_filepath": "a.wav", "text": "first", "offset": 0.5, "duration": 1.25},
        {"audio_filepath": str(tmp_path / "b.wav"), "text": "Second", "duration": 1.0},
    ]
    path = text_file(tmp_path / f"train_manifest.{suffix}", *map(json.dumps, rows))
    for source in (path, tmp_path):
        data = load_data(source)
        assert [(text, seconds) for _, text, seconds in found(data)] == [
            ("first", 1.25),
            ("second", 1.0),
        ]
        assert np.allclose(data[0].load(), TONE[RATE // 2 : RATE // 2 + 20_000], atol=1e-4)
        assert data[0].fingerprint() != data[1].fingerprint()
    rows[0]["duration"] = "long"
    text_file(path, *map(json.dumps, rows))
    with pytest.raises(ValueError, match=r"manifest.*'long'.*expected numbers, in seconds"):
        load_data(path)


@pytest.mark.parametrize("value", ["NaN", "1e999", "-Infinity", '"inf"', "1" + 400 * "0"])
@pytest.mark.parametrize("key", ["offset", "duration"])
def test_times_that_never_come_are_named_with_their_row(tmp_path, key, value):
    times = {"offset": "0.5", "duration": "1.0"} | {key: value}
    row = '{"audio_filepath": "a.wav", "text": "yes", "offset": %s, "duration": %s}'
    write(tmp_path / "a.wav", 3.0)
    rows = (row % (0, 1), row % (times["offset"], times["duration"]))
    with pytest.raises(ValueError, match=r"row 2 of .*m\.json has times .*expected numbers, in s"):
        load_data(text_file(tmp_path / "m.json", *rows))


def test_a_part_that_lies_beyond_its_sound_is_counted(tmp_path):
    write(tmp_path / "a.wav", 3.0)
    rows = [{"audio_filepath": "a.wav", "text": "yes", "duration": 1.0, "offset": 1e300}]
    with pytest.raises(BadClip, match="cannot be read"):
        load_data(text_file(tmp_path / "m.json", json.dumps(rows[0])))[0].load()


@pytest.mark.parametrize("column", ["audio", "wav"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_the_column_that_is_asked_for_comes_first(tmp_path, suffix, column):
    write(tmp_path / "a.wav", 2.0)
    names, values = [column, "text", "path"], ["a.wav", "yes", "other.wav"]
    lines = [dict(zip(names, values, strict=True))]
    if suffix != "jsonl":
        lines = [("," if suffix == "csv" else "\t").join(each) for each in (names, values)]
    else:
        lines = map(json.dumps, lines)
    path = text_file(tmp_path / f"m.{suffix}", *lines)
    assert found(load_data(path, audio_column=column)) == [("a", "yes", 2.0)]
    text_file(path, *(line.replace("path", "note") for line in path.read_text().splitlines()))
    with pytest.raises(ValueError, match=r"has no column 'sound'; it has .*audio_column"):
        load_data(path, audio_column="sound")


@pytest.mark.parametrize(
    ("line", "says"), [('{"a": ', "line 3, column 7: Expecting value"), ("5", "line 3 holds no ob")]
)
def test_a_bad_line_of_json_has_its_number(tmp_path, line, says):
    good = '{"file_name": "a.wav", "text": "yes"}'
    with pytest.raises(ValueError, match=rf"m\.jsonl can't be read \({says}"):
        load_data(text_file(tmp_path / "m.jsonl", good, "", line))


def test_folder_of_kaldi(tmp_path):
    write(tmp_path / "sounds" / "r1.wav", 3.0)
    text_file(tmp_path / "wav.scp", "r1 sounds/r1.wav", f"r2  {write(tmp_path / 'r2.wav')}")
    text_file(tmp_path / "text", "r1 HELLO THERE", "r2 BYE")
    assert found(load_data(tmp_path)) == [("r1", "hello there", 3.0), ("r2", "bye", 1.0)]
    text_file(tmp_path / "segments", "u1 r1 0.0 1.5", "u2 r1 1.5 3.0")
    text_file(tmp_path / "text", "u1 HELLO", "u2 THERE")
    assert found(load_data(tmp_path)) == [("u1", "hello", 1.5), ("u2", "there", 1.5)]
    assert len(noise_utterances(tmp_path)) == 2
    text_file(tmp_path / "wav.scp", "r1 flac -dc r1.flac |")
    with pytest.raises(ValueError, match=r"wav.scp has 'flac .*for r1; expected the path"):
        load_data(tmp_path)
    (tmp_path / "text").unlink()
    with pytest.raises(ValueError, match=r"text can't be read .*No such file"):
        load_data(tmp_path)


def test_common_voice(tmp_path):
    write(tmp_path / "clips" / "c1.mp3")
    write(tmp_path / "clips" / "c2.mp3")
    head = "client_id\tpath\tsentence\tgender"
    text_file(tmp_path / "train.tsv", head, 'x\tc1.mp3\t"Well, yes\tmale', encoding="utf-8")
    text_file(tmp_path / "test.tsv", head, "y\tc2.mp3\tNo.\t")
    data = load_data(tmp_path, split="train")
    assert [(item.id, item.text, item.groups) for item in data] == [
        ("c1", "well yes", {"gender": "male"})
    ]
    assert len(data[0].load()) == pytest.approx(RATE, abs=RATE / 5)
    assert [item.text for item in load_data(tmp_path / "test.tsv")] == ["no"]
    with pytest.raises(ValueError, match=r"splits test, train; expected one"):
        load_data(tmp_path)


def test_librispeech_as_it_lies(tmp_path):
    for split, chapter in (("dev-clean", "84-121"), ("test-clean", "61-70")):
        folder = tmp_path / split / chapter.replace("-", "/")
        write(folder / f"{chapter}-0000.flac")
        text_file(folder / f"{chapter}.trans.txt", f"{chapter}-0000 GO ON")
    for data in (load_data(tmp_path, split="dev-clean"), load_data(tmp_path, split="dev")):
        assert found(data) == [("84-121-0000", "go on", 1.0)]
        assert data[0].groups == {"speaker": "84"}
    assert len(load_data(tmp_path / "test-clean")) == 1


def test_a_text_without_its_sound_is_counted(tmp_path):
    write(tmp_path / "train" / "a.wav")
    text_file(tmp_path / "train" / "a.txt", "yes")
    text_file(tmp_path / "train" / "lonely.txt", "nobody hears this")
    text_file(tmp_path / "notes" / "readme.txt", "not beside any sound")
    clips = load_data(tmp_path)
    assert [clip.text for clip in clips] == ["yes"]
    assert clips.dropped == {"empty audio": 1}


def test_metadata_at_the_root_of_split_folders(tmp_path):
    lines = ["file_name,text"]
    for split in ("train", "test"):
        write(tmp_path / split / "a.aiff")
        lines.append(f"{split}/a.aiff,from {split}")
    text_file(tmp_path / "metadata.csv", *lines)
    assert found(load_data(tmp_path, split="test")) == [("test/a", "from test", 1.0)]
    assert len(load_data(tmp_path)) == 2
    with pytest.raises(ValueError, match=r"metadata\.csv has no file in a folder dev"):
        load_data(tmp_path, split="dev")


def test_aiff_beside_texts(tmp_path):
    write(tmp_path / "a.aiff")
    text_file(tmp_path / "a.txt", "yes")
    assert found(load_data(tmp_path)) == [("a", "yes", 1.0)]


@pytest.mark.parametrize("kind", ["float32", "float64", "int16", "int32"])
def test_arrays_in_parquet(tmp_path, kind):
    samples = TONE[:8_000].astype(np.float64)
    if kind.startswith("int"):
        samples = samples * np.iinfo(kind).max
    values = pa.array([samples.astype(kind)])
    struct = pa.StructArray.from_arrays([values, pa.array([8_000])], ["array", "sampling_rate"])
    tables = [
        pa.table({"text": ["yes"], "audio": struct}),
        pa.table({"text": ["yes"], "audio": values, "sampling_rate": [8_000]}),
        pa.table({"text": ["yes"], "audio": values, "sample_rate": [8_000]}),
    ]
    for number, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{number}.parquet")
        (clip,) = load_data(tmp_path / f"{number}.parquet")
        assert clip.text == "yes" and len(clip.load()) == RATE
        assert clip.load().abs().max() == pytest.approx(0.3, abs=0.02)


def test_integers_of_unknown_scale_are_refused(tmp_path):
    table = pa.table({"text": ["yes"], "audio": [[1, 2]], "sampling_rate": [8_000]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"decoded samples of rank 1; expected.*floats, int16"):
        load_data(tmp_path / "x.parquet")


@pytest.mark.parametrize("rate", [0, -1, 44.1, "16 kHz", None])
def test_arrays_without_a_rate_are_refused(tmp_path, rate):
    pq.write_table(
        pa.table({"text": ["yes"], "audio": [[0.1, 0.2]], "sampling_rate": [rate]}),
        tmp_path / "x.parquet",
    )
    with pytest.raises(ValueError, match=r"decoded samples of rank 1; .*sampling_rate in Hz"):
        load_data(tmp_path / "x.parquet")


# Text ---------------------------------------------------------------------------------------------


def metadata(folder, *rows, encoding="utf-8"):
    """A folder with metadata.csv, and a second of sound for each row."""
    for number in range(len(rows)):
        write(folder / f"{number}.wav")
    lines = (f"{number}.wav,{text}" for number, text in enumerate(rows))
    return text_file(folder / "metadata.csv", "file_name,text", *lines, encoding=encoding)


def test_an_unquoted_comma_is_refused_with_its_line(tmp_path):
    metadata(tmp_path, "yes", "well, no")
    with pytest.raises(ValueError, match=r"metadata\.csv.*line 3 has more fields.*1\.wav,\"Well"):
        load_data(tmp_path)
    metadata(tmp_path, "yes", '"well, no"')
    assert [item.text for item in load_data(tmp_path)] == ["yes", "well no"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_that_say_what_they_are(tmp_path, encoding):
    metadata(tmp_path, "café olé", encoding=encoding)
    assert [item.text for item in load_data(tmp_path)] == ["cafe ole"]


@pytest.mark.parametrize(
    ("encoding", "message"),
    [("latin-1", r"not UTF-8 \(byte 0xe9 in line 2\)"), ("utf-16-le", "zero bytes")],
)
def test_other_encodings_are_refused(tmp_path, encoding, message):
    text = "café" if encoding == "latin-1" else "cafe"
    metadata(tmp_path, text, encoding=encoding)
    with pytest.raises(ValueError, match=rf"metadata\.csv.*{message}.*UTF-8"):
        load_data(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    text_file(tmp_path / "0.txt", "eins", text, encoding=encoding)
    with pytest.raises(ValueError, match=rf"0\.txt.*{message}.*UTF-8"):
        load_data(tmp_path)


LOST = {
    **dict.fromkeys(["it costs $5", "5 $", "$1,000.50", "five £", "€ 3"], "currency"),
    **dict.fromkeys(
        ["1/2 a cup", "½ a cup", "5 m²", "2+2=4", "20° cold", "at -5 degrees"], "maths"
    ),
    **dict.fromkeys(["a@b.com", "#1", "§ 5", "100 %s %d", "<unk> yes", "a ~ b", "™"], "symbols"),
    **dict.fromkeys(["Привет", "hello мир", "你好", "नमस्ते", "مرحبا", "٣ times", "Πλ"], "scripts"),
    **dict.fromkeys(["I ♥ it", "yes \N{GRINNING FACE}", "þorn"], "others"),
}
KEPT = {
    "50 % of it": "50 percent of it",
    "50% & more": "50 percent and more",
    "Café “olé” – Ægir\u2019s": "cafe ole aegir's",
    "well-known, 3-5; (yes)!": "well known 3 5 yes",
    "in 1905 ... 1,000": "in 1905 1000",
    "it`s and\u00b4s": "it's and's",
    "\uff15 \uff41": "5 a",
}


@pytest.mark.parametrize("text", LOST)
def test_text_that_would_lose_something_is_counted_and_named(tmp_path, text):
    metadata(tmp_path, "yes", f'"{text}"')
    with pytest.warns(UserWarning, match=r"1 left out for letters or symbols.*clip '1'.*expected"):
        data = load_data(tmp_path)
    assert [item.text for item in data] == ["yes"]
    assert data.dropped == {"letters or symbols that a target can't hold": 1}


@pytest.mark.parametrize("text", KEPT)
def test_text_that_is_written_as_it_is_spoken(tmp_path, text):
    metadata(tmp_path, f'"{text}"')
    assert [item.text for item in load_data(tmp_path)] == [KEPT[text]]


@pytest.mark.parametrize("text", ["", "...", "?!", "\u2026", " \u2013 "])
def test_no_text_is_counted_as_such(tmp_path, text):
    metadata(tmp_path, "yes", text)
    assert load_data(tmp_path).dropped == {"no text": 1}


@pytest.mark.parametrize(
    ("seconds", "letters", "reason"),
    [
        (1.0, 100, "text too long for its clip"),
        (10.0, 400, "text too long for its clip"),
        (25.0, 3, "text too short for its clip"),
        (0.4, 15, None),
        (10.0, 1, None),
        (20.0, 29, None),
        (10.0, 290, None),
    ],
)
def test_a_text_that_can_not_belong_to_its_clip(tmp_path, seconds, letters, reason):
    write(tmp_path / "fine.wav")
    write(tmp_path / "odd.wav", seconds)
    rows = ["file_name,text", "fine.wav,yes", f"odd.wav,{'a' * letters}"]
    text_file(tmp_path / "metadata.csv", *rows)
    if reason is None:
        assert len(load_data(tmp_path)) == 2
        return
    with pytest.warns(UserWarning, match=rf"1 left out for {reason}.*clip 'odd'"):
        assert load_data(tmp_path).dropped == {reason: 1}


def test_real_texts_are_in_order(shared, recwarn):
    for name in ("dev", "train-accents", "train-two-voices", "train-many-voices"):
        data = load_data(shared / "speech" / f"{name}.parquet", limit=1_000)
        assert not data.dropped.keys() - {"longer than 30 s", "no text"}
    assert not recwarn.list


# Sound and seconds --------------------------------------------------------------------------------


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def wav_bytes(samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (["1000", "x"], r"row '1' has seconds='x'; expected a number"),
        ([1.0, 1000.0], r"row '1' has seconds=1000, .*lasts 1\.00 s; .*milliseconds"),
        ([1.0, 16_000.0], r"row '1' has seconds=16000"),
    ],
)
def test_seconds_are_checked(tmp_path, seconds, message):
    sound = wav_bytes(TONE[:RATE])
    seconds = [value if value != "1000" else "1.0" for value in seconds]
    path = table(tmp_path / "x.parquet", text=["a", "b"], audio=[sound] * 2, seconds=seconds)
    with pytest.raises(ValueError, match=message):
        load_data(path)


def test_seconds_as_text_are_read(tmp_path):
    sound = wav_bytes(TONE[:RATE])
    path = table(tmp_path / "x.parquet", text=["a"], audio=[sound], seconds=["1.0"])
    assert load_data(path)[0].seconds == 1.0


SPOILT = {
    "torn file": wav_bytes(TONE[:RATE])[:40_000],
    "channels cancel": wav_bytes(np.stack([TONE[:RATE], -TONE[:RATE]], 1)),
    "digital silence": wav_bytes(np.zeros(RATE)),
    "wrong scale": wav_bytes(TONE[:RATE] * 32768),
    "a spike": wav_bytes(np.append(TONE[: RATE - 1], 1000.0)),
}


@pytest.mark.parametrize("reason", SPOILT)
def test_sound_that_can_not_be_right_is_left_out_of_training(reason):
    with pytest.raises(BadClip, match="clip 'odd'") as caught:
        Utterance("odd", "hello", 1.0, {}, SPOILT[reason]).load()
    assert caught.value.reason == reason


def test_silence_is_in_order_where_nobody_speaks():
    assert not Utterance("quiet", "", 1.0, {}, SPOILT["digital silence"]).load().any()


def test_null_file_names_and_names_with_zeros(tmp_path):
    write(tmp_path / "a.wav")
    rows = ["", "a.wav", "zero\0.wav"]
    lines = [json.dumps({"file_name": name or None, "text": "yes"}) for name in rows]
    text_file(tmp_path / "metadata.jsonl", *lines)
    data = load_data(tmp_path)
    assert [item.id for item in data] == ["a"]
    assert data.dropped == {"empty audio": 1, "unreadable audio": 1}


def test_an_mp3_s_length_is_counted_not_guessed(shared):
    for name, seconds in (("a25_vbr_noxing.mp3", 3.0), ("m_vbr_q5_noxing.mp3", 29.4)):
        data = (shared / "cases" / name).read_bytes()
        assert len(Utterance("a", "yes", seconds, {}, data).load()) / RATE > seconds - 0.1


def test_long_clips_are_kept_for_evaluation(tmp_path):
    write(tmp_path / "short.wav", 1.0)
    write(tmp_path / "long.wav", 45.0)
    rows = ["file_name,text", "short.wav,yes", f"long.wav,{'word ' * 20}"]
    text_file(tmp_path / "metadata.csv", *rows)
    assert load_data(tmp_path).dropped == {"longer than 30 s": 1}
    data = load_data(tmp_path, max_seconds=None)
    assert found(data)[1][2] == 45.0
    result = evaluate(pair(), data, batch_seconds=20.0)
    assert [row.id for row in result.rows] == ["short", "long"] and not result.dropped
    assert result.rows[1].hypothesis == pair().transcribe(TONE[: 45 * RATE], RATE)
    noisy = evaluate(pair(), data, noise=[data[0].load()], snr_db=10.0)
    assert len(noisy.rows) == 2
