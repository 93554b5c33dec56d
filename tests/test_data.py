"""Data: every source gives the same clips, what is bad is counted, batches depend on nothing else."""

import io
import json
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from tiny_asr.data import (
    BadClip,
    Loader,
    SpeechData,
    Utterance,
    load_data,
    make_batches,
    noise_utterances,
    normalise_transcript,
    rank_slice,
)

RATE = 16_000


def encoded(samples, rate=RATE, kind="FLAC", subtype="PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def clip(seconds: float, hertz: float = 440.0) -> bytes:
    return encoded(tone(seconds, hertz))


def table(path, rows: list[dict]):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def row(name, seconds=1.0, text="hello", audio=None, **more) -> dict:
    audio = clip(seconds) if audio is None else audio
    return {"id": name, "text": text, "audio": {"bytes": audio, "path": None}, **more}


def utterance(name: str, seconds: float, audio: bytes = b"") -> Utterance:
    return Utterance(name, "hello", seconds, {}, audio)


def every_batch(data: SpeechData, **options) -> list:
    batches = make_batches(data, max_seconds=60, seed=0, epoch=0, shuffle=False)
    return list(Loader(data, batches, **options))


class TestTranscripts:
    @pytest.mark.parametrize(
        ("written", "target"),
        [
            ("MISTER QUILTER'S MANNER", "mister quilter's manner"),
            ("\u2018Don\u2019t!\u2019 she  said.", "don't she said"),
            ("well-known\u2014or so \u2013 they say", "well known or so they say"),
            ("Café & crème brûlée", "cafe and creme brulee"),
            ("AT&T", "at and t"),
            ("Straße, Ægir", "strasse aegir"),
            ("In 1905, 1,000 of 2,5,7; 3.5 %", "in 1905 1000 of 2 5 7 3 point 5 percent"),
            ("'twas the boys' 'rock'", "twas the boys rock"),
            ("...", ""),
            ("\u041f\u0440\u0438\u0432\u0435\u0442", ""),
        ],
    )
    def test_becomes_the_target(self, written, target):
        assert normalise_transcript(written) == target

    def test_only_allowed_characters_and_nothing_to_do_twice(self):
        rng = np.random.default_rng(0)
        for _ in range(300):
            text = "".join(map(chr, rng.integers(32, 0x2FF, 40)))
            target = normalise_transcript(text)
            assert re.fullmatch(r"([a-z0-9']+( [a-z0-9']+)*)?", target)
            assert normalise_transcript(target) == target


class TestSources:
    def test_parquet(self, tmp_path):
        rows = [
            row("a", 1.0, "Hello, World!", speaker="s1", seconds=1.0, voice=""),
            row("b", 0.5, "", speaker="s2", seconds=0.5, voice="v"),
            row("c", 0.7, "It\u2019s 7", speaker=None, seconds=None, voice="w"),
        ]
        data = load_data(table(tmp_path / "x.parquet", rows))
        assert [item.id for item in data] == ["a", "c"]
        assert [item.text for item in data] == ["hello world", "it's 7"]
        assert [item.groups for item in data] == [{"speaker": "s1"}, {"voice": "w"}]
        assert data[1].seconds == pytest.approx(0.7), "taken from the header where the table is silent"
        assert data.dropped == {"no text": 1}
        assert "2 clips" in data.summary() and "no text 1" in data.summary()
        waveform = data[0].load()
        assert waveform.shape == (RATE,) and waveform.dtype == torch.float32
        assert np.allclose(waveform, tone(1.0), atol=1e-4)

    def test_columns_by_another_name(self, tmp_path):
        rows = [{"sound": clip(1.0), "transcription": "yes", "speaker_id": 7}]
        path = table(tmp_path / "x.parquet", rows)
        data = load_data(path, audio_column="sound", text_column="transcription")
        assert (data[0].id, data[0].text, data[0].groups) == ("0", "yes", {"speaker": "7"})

    def test_paths_in_a_table_begin_beside_it(self, tmp_path):
        (tmp_path / "a.flac").write_bytes(clip(1.0))
        rows = [{"text": "yes", "audio": {"bytes": None, "path": "a.flac"}}]
        assert len(load_data(table(tmp_path / "x.parquet", rows))[0].load()) == RATE

    def test_shards_are_joined_and_a_split_is_chosen(self, tmp_path):
        for number in range(2):
            name = f"train-0000{number}-of-00002.parquet"
            table(tmp_path / "data" / name, [row(f"t{number}")])
        table(tmp_path / "data" / "test-00000-of-00001.parquet", [row("e")])
        assert [item.id for item in load_data(tmp_path, split="train")] == ["t0", "t1"]
        assert [item.id for item in load_data(tmp_path, split="test")] == ["e"]
        with pytest.raises(ValueError, match=r"splits test, train; expected one"):
            load_data(tmp_path)
        with pytest.raises(ValueError, match=r"split='dev' came, but .* holds .*train-00000"):
            load_data(tmp_path, split="dev")
        with pytest.raises(ValueError, match="single file"):
            load_data(tmp_path / "data" / "test-00000-of-00001.parquet", split="test")

    def test_several_sources(self, tmp_path):
        one = table(tmp_path / "1.parquet", [row("a"), row("b")])
        two = table(tmp_path / "2.parquet", [row("b"), row("b#2")])
        ids = [item.id for item in load_data([one, two])]
        assert len(set(ids)) == 4 and ids[:3] == ["a", "b", "b#2"], "an id that comes again is marked"
        assert len(load_data([one, two], limit=3)) == 3

    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    def test_audio_folder_with_metadata(self, tmp_path, kind):
        folder = tmp_path / "train"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a.flac").write_bytes(clip(1.0))
        rows = [{"file_name": "sub/a.flac", "text": "One, two"}, {"file_name": "b.wav", "text": "x"}]
        if kind == "csv":
            lines = ["file_name,text"] + [f'{r["file_name"]},"{r["text"]}"' for r in rows]
        else:
            lines = [json.dumps(r) for r in rows]
        (folder / f"metadata.{kind}").write_text("\n".join(lines) + "\n")
        for data in (load_data(folder), load_data(tmp_path, split="train")):
            assert [(item.id, item.text) for item in data] == [("sub/a", "one two")]
            assert data.dropped == {"unreadable audio": 1}, "b.wav does not exist"
            assert len(data[0].load()) == RATE

    def test_text_files_beside_audio_files(self, tmp_path):
        for name in ("b", "a", "c"):
            (tmp_path / f"{name}.flac").write_bytes(clip(1.0))
        (tmp_path / "a.txt").write_text("Eins\n")
        (tmp_path / "b.txt").write_text("Zwei\n")
        data = load_data(tmp_path)
        assert [(item.id, item.text) for item in data] == [("a", "eins"), ("b", "zwei")]
        assert data.dropped == {"no text": 1}

    def test_text_may_be_missing(self, tmp_path):
        path = table(tmp_path / "x.parquet", [{"audio": clip(1.0)}])
        data = load_data(path, require_text=False)
        assert [item.text for item in data] == [""] and not data.dropped

    def test_real_speech(self, shared):
        data = load_data(shared / "speech" / "dev.parquet", limit=40)
        assert data[0].id == "1272-128104-0000" and not data.dropped
        assert data[0].text.startswith("mister quilter is the apostle of the middle classes")
        assert data[0].groups["speaker"] == "1272"
        for item in data:
            assert len(item.load()) / RATE == pytest.approx(item.seconds, abs=0.05)

    def test_fingerprint_is_of_the_audio(self, tmp_path):
        (tmp_path / "a.flac").write_bytes(clip(1.0))
        in_memory = utterance("x", 1.0, clip(1.0))
        on_disk = Utterance("y", "other", 2.0, {}, tmp_path / "a.flac")
        assert in_memory.fingerprint() == on_disk.fingerprint()
        assert in_memory.fingerprint() != utterance("x", 1.0, clip(1.1)).fingerprint()


class TestBadSources:
    def test_torn_parquet(self, tmp_path):
        path = table(tmp_path / "x.parquet", [row("a"), row("b")])
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match=r"x\.parquet can't be read as parquet .* torn"):
            load_data(path)

    def test_missing_column(self, tmp_path):
        path = table(tmp_path / "x.parquet", [{"id": "a", "sentence": "x", "audio": clip(1.0)}])
        with pytest.raises(ValueError, match=r"no column 'text'; it has id, sentence, audio"):
            load_data(path)
        with pytest.raises(ValueError, match=r"no column 'sound'; it has id, sentence, audio"):
            load_data(path, audio_column="sound", require_text=False)

    @pytest.mark.parametrize("rank", [1, 2])
    def test_decoded_samples_of_any_rank(self, tmp_path, rank):
        samples = [0.0, 0.1] if rank == 1 else [[0.0, 0.1], [0.0, 0.1]]
        path = table(tmp_path / "x.parquet", [{"text": "x", "audio": samples}])
        with pytest.raises(ValueError, match=f"'audio' holds decoded samples of rank {rank}"):
            load_data(path)

    def test_columns_of_other_things(self, tmp_path):
        path = table(tmp_path / "x.parquet", [{"text": 3, "audio": clip(1.0), "n": 5}])
        with pytest.raises(ValueError, match="column 'text' holds int; expected text"):
            load_data(path)
        with pytest.raises(ValueError, match="column 'n' holds int 5; expected whole audio files"):
            load_data(path, audio_column="n", require_text=False)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ValueError, match="there is no file or folder .*gone"):
            load_data(tmp_path / "gone.parquet")
        with pytest.raises(ValueError, match="no parquet file, no metadata.csv"):
            load_data(tmp_path)
        with pytest.raises(ValueError, match="it has no rows"):
            load_data(table(tmp_path / "x.parquet", [row("a")][:0] or _no_rows()))
        with pytest.raises(ValueError, match="limit=0"):
            load_data(tmp_path, limit=0)

    def test_metadata_without_file_names_or_torn(self, tmp_path):
        metadata = tmp_path / "metadata.jsonl"
        metadata.write_text('{"file": "a.flac", "text": "x"}\n')
        with pytest.raises(ValueError, match=r"no column 'file_name'; it has file, text"):
            load_data(tmp_path)
        metadata.write_text('{"file_name": "a.flac", "te')
        with pytest.raises(ValueError, match=r"metadata\.jsonl can't be read"):
            load_data(tmp_path)

    def test_hub_without_network(self):
        # conftest.py sets HF_HUB_OFFLINE, which a hub without a network resembles.
        with pytest.raises(ValueError, match=r"librispeech_asr is no file or folder here, and .*hub"):
            load_data("openslr/librispeech_asr:clean", split="validation")


def _no_rows() -> list[dict]:
    return []
