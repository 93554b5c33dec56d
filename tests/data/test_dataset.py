"""Data: every source gives its clips, bad ones are counted, batches depend on nothing else."""

import csv
import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from tiny_asr.data.batches import Loader, make_batches, rank_slice
from tiny_asr.data.dataset import (
    BadClip,
    LeftOut,
    SpeechData,
    Utterance,
    load_data,
    noise_utterances,
    write_left_out,
)
from tiny_asr.data.utterance import normalise_transcript

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


def row(name, duration=1.0, text="hello", audio=None, **more) -> dict:
    audio = clip(duration) if audio is None else audio
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
            ("4,1234", "4 1234"),
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
        assert data[1].seconds == pytest.approx(0.7), (
            "taken from the header where the table is silent"
        )
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
        assert len(set(ids)) == 4 and ids[:3] == ["a", "b", "b#2"], (
            "an id that comes again is marked"
        )
        assert len(load_data([one, two], limit=3)) == 3

    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    def test_audio_folder_with_metadata(self, tmp_path, kind):
        folder = tmp_path / "train"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a.flac").write_bytes(clip(1.0))
        rows = [
            {"file_name": "sub/a.flac", "text": "One, two"},
            {"file_name": "b.wav", "text": "x"},
        ]
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
        with pytest.raises(ValueError, match=r"there is no file or folder .*gone"):
            load_data(tmp_path / "gone.parquet")
        with pytest.raises(ValueError, match=r"no parquet file, no metadata\.csv"):
            load_data(tmp_path)
        with pytest.raises(ValueError, match="it has no rows"):
            empty = tmp_path / "empty.parquet"
            pq.write_table(pa.Table.from_pylist([row("a")]).slice(0, 0), empty)
            load_data(empty)
        with pytest.raises(ValueError, match="limit=0"):
            load_data(tmp_path, limit=0)

    def test_metadata_without_file_names_or_torn(self, tmp_path):
        metadata = tmp_path / "metadata.jsonl"
        metadata.write_text('{"file": "a.flac", "text": "x"}\n')
        with pytest.raises(ValueError, match=r"no column 'audio'; it has file, text"):
            load_data(tmp_path)
        metadata.write_text('{"file_name": "a.flac", "te')
        with pytest.raises(ValueError, match=r"metadata\.jsonl can't be read"):
            load_data(tmp_path)

    def test_hub_without_network(self):
        # conftest.py sets HF_HUB_OFFLINE, which a hub without a network resembles.
        with pytest.raises(
            ValueError, match=r"librispeech_asr is no file or folder here, and .*hub"
        ):
            load_data("openslr/librispeech_asr:clean", split="validation")


NAN = np.where(np.arange(RATE) == 99, np.nan, tone(1.0))
BAD_CLIPS = {
    "unreadable audio": b"this is no sound",
    "NaN or Inf": encoded(NAN, kind="WAV", subtype="FLOAT"),
    "empty audio": encoded(tone(0.0), kind="WAV"),
    "wrong rate": encoded(tone(1.0), rate=400, kind="WAV"),
    "longer than 30 s": encoded(tone(31.0), kind="OGG", subtype="VORBIS"),
    "length unlike its `seconds`": encoded(tone(3.0), rate=RATE // 2),
}


class TestBadClips:
    @pytest.mark.parametrize("reason", BAD_CLIPS)
    def test_each_raises_with_its_reason(self, reason):
        with pytest.raises(BadClip, match="bad-one") as caught:
            utterance("bad-one", 1.0, BAD_CLIPS[reason]).load()
        assert caught.value.reason == reason

    def test_what_the_header_shows_is_counted_at_once(self, tmp_path):
        rows = [row(reason, audio=audio) for reason, audio in BAD_CLIPS.items()]
        rows += [row("b", audio=b""), row("good"), row("silent text", text="?!")]
        rows += [{"id": "none", "text": "x", "audio": None}]
        data = load_data(table(tmp_path / "x.parquet", rows))
        assert [item.id for item in data] == [
            "NaN or Inf",
            "length unlike its `seconds`",
            "good",
        ]
        expected = {"unreadable audio": 1, "empty audio": 3, "longer than 30 s": 2, "no text": 1}
        assert data.dropped == expected

    def test_one_in_the_middle_is_counted_once_and_skipped(self):
        clips = [utterance(f"c{n}", 1.0 + n / 10, clip(1.0 + n / 10)) for n in range(8)]
        clips[3] = utterance("torn", 1.3, clip(1.3)[:200])
        clips[5] = utterance("nan", 1.5, BAD_CLIPS["NaN or Inf"])
        data = SpeechData(clips, [LeftOut("a", "no text"), LeftOut("b", "no text")])
        for _ in range(2):  # two epochs
            batches = [[0, 1, 2], [3], [4, 5, 6, 7]]
            loaded = list(Loader(data, batches))
            assert [b.ids for b in loaded] == [["c0", "c1", "c2"], [], ["c4", "c6", "c7"]]
            assert loaded[1].waveforms.shape == (0, 0) and len(loaded[1]) == 0
        assert data.dropped["no text"] == 2 and data.dropped["NaN or Inf"] == 1
        assert data.dropped.total() == 4
        named = [(clip.id, clip.reason) for clip in data.left_out]
        assert named[:2] == [("a", "no text"), ("b", "no text")] and len(named) == 4
        assert named[2][0] == "torn" and named[3] == ("nan", "NaN or Inf")
        assert data.left_out[2].detail.startswith("clip 'torn': ")

    def test_they_are_named_in_a_file_that_a_resumed_run_adds_to(self, tmp_path):
        rows = [row("a", text=""), row("b"), row("one, \u00e4", text="$5")]
        with pytest.warns(UserWarning, match="1 left out for letters or symbols"):
            data = load_data(table(tmp_path / "x.parquet", rows))
        write_left_out(tmp_path / "l.csv", [data])
        write_left_out(tmp_path / "l.csv", [data, SpeechData(data, [LeftOut("new", "why")])])
        with open(tmp_path / "l.csv", newline="", encoding="utf-8") as file:
            named = list(csv.DictReader(file))
        assert [line["id"] for line in named] == ["a", "one, \u00e4", "new"]
        assert named[0]["reason"] == "no text" and named[0]["detail"] == "clip 'a' has no text"
        assert named[0]["data"] == str(tmp_path / "x.parquet") and named[2]["data"] == "data"
        write_left_out(tmp_path / "none.csv", [SpeechData(data)])
        assert not (tmp_path / "none.csv").exists()

    def test_all_of_them(self, tmp_path):
        path = table(tmp_path / "x.parquet", [row("a", text=""), row("b", audio=b"?")])
        with pytest.raises(ValueError, match=r"no usable clip \(no text 1, unreadable audio 1\)"):
            load_data(path)
        data = SpeechData([utterance(str(n), 1.0, BAD_CLIPS["NaN or Inf"]) for n in range(3)])
        with pytest.raises(ValueError, match=r"every clip of data was dropped \(NaN or Inf 3\)"):
            every_batch(data)

    @pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
    def test_an_unusual_rate_is_not_bad(self, rate):
        waveform = utterance("a", 1.0, encoded(tone(1.0, rate=rate), rate=rate)).load()
        assert len(waveform) == RATE
        spectrum = torch.fft.rfft(waveform).abs()
        assert spectrum.argmax() == 440


class TestNoise:
    def test_is_mixed_in_with_empty_targets(self, tmp_path):
        rows = [row(f"n{n}", text="dog barks") for n in range(3)]
        noise = noise_utterances(table(tmp_path / "noise.parquet", rows))
        assert [item.text for item in noise] == ["", "", ""]
        speech = SpeechData([utterance(f"s{n}", 1.0) for n in range(96)])
        mixed = speech.with_noise(noise, 0.04)
        assert len(mixed) == 100 and sum(item.text == "" for item in mixed) == 4
        assert len({item.id for item in mixed}) == 100, "a clip that is used again has its own id"
        assert len(speech.with_noise([], 0.0)) == 96
        with pytest.raises(ValueError, match=r"0 noise clips came for a share of 0\.04"):
            speech.with_noise([], 0.04)

    def test_real_noise(self, shared):
        noise = noise_utterances(shared / "speech" / "noise.parquet")
        assert len(noise) > 300 and {item.text for item in noise} == {""}


class TestBatches:
    @pytest.fixture
    def data(self):
        seconds = np.random.default_rng(0).uniform(0.5, 20.0, 1500)
        return SpeechData([utterance(str(n), s) for n, s in enumerate(seconds)])

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_hold_every_clip_once_within_the_budget(self, data, shuffle):
        batches = make_batches(data, max_seconds=60, max_clips=20, seed=0, epoch=0, shuffle=shuffle)
        assert sorted(i for batch in batches for i in batch) == list(range(1500))
        for batch in batches:
            assert len(batch) * max(data[i].seconds for i in batch) <= 60 and len(batch) <= 20
        padded = sum(len(b) * max(data[i].seconds for i in b) for b in batches)
        assert padded < 1.1 * sum(item.seconds for item in data), "lengths in a batch are alike"
        assert len(batches) < 1.15 * padded / 60 + 20, "batches are full"

    def test_depend_on_seed_and_epoch_only(self, data):
        def batches(seed, epoch):
            return make_batches(data, max_seconds=60, seed=seed, epoch=epoch)

        assert batches(1, 2) == batches(1, 2)
        assert batches(1, 2) != batches(1, 3) and batches(1, 2) != batches(2, 2)
        together = {frozenset(b) for b in batches(1, 2)} & {frozenset(b) for b in batches(1, 3)}
        assert len(together) < 20, "an epoch brings other clips together"
        lengths = [max(data[i].seconds for i in batch) for batch in batches(1, 2)]
        falls = np.mean(np.diff(lengths) < 0)
        assert 0.35 < falls < 0.65, "short and long batches take turns at random"

    def test_without_shuffling_the_longest_come_first(self, data):
        batches = make_batches(data, max_seconds=60, seed=0, epoch=0, shuffle=False)
        lengths = [data[i].seconds for batch in batches for i in batch]
        assert lengths == sorted(lengths, reverse=True)
        assert batches == make_batches(data, max_seconds=60, seed=5, epoch=7, shuffle=False)

    def test_a_budget_below_the_longest_clip(self, data):
        with pytest.raises(ValueError, match=r"max_seconds=10 .* longest clip \(19\.\d+ s\)"):
            make_batches(data, max_seconds=10, seed=0, epoch=0)

    @pytest.mark.parametrize("processes", [1, 2, 3, 8])
    def test_shares_make_up_the_batch(self, processes):
        for batch in ([5, 2, 9, 1, 7], [4], list(range(40))):
            shares = [rank_slice(batch, rank, processes) for rank in range(processes)]
            assert sorted(i for share in shares for i in share) == sorted(batch)
            sizes = [len(share) for share in shares]
            assert max(sizes) - min(sizes) <= 1
        with pytest.raises(ValueError, match=f"rank {processes} of {processes}"):
            rank_slice([1], processes, processes)


class TestLoader:
    @pytest.fixture
    def data(self):
        seconds = [0.5 + n / 20 for n in range(40)]
        clips = [utterance(str(n), s, clip(s, 200 + 10 * n)) for n, s in enumerate(seconds)]
        return SpeechData(clips)

    def test_batches_come_in_order_and_whole(self, data):
        batches = make_batches(data, max_seconds=8, seed=3, epoch=1)
        loader = Loader(data, batches, workers=3, ahead=2)
        loaded = list(loader)
        assert len(loader) == len(loaded) == len(batches)
        for batch, indices in zip(loaded, batches, strict=True):
            assert batch.ids == [data[i].id for i in indices]
            assert batch.waveforms.shape == (len(batch), max(batch.lengths))
            assert batch.lengths.tolist() == [len(data[i].load()) for i in indices]
            assert batch.texts == ["hello"] * len(indices)
            for waveform, length, i in zip(batch.waveforms, batch.lengths, indices, strict=True):
                assert torch.equal(waveform[:length], data[i].load())
                assert not waveform[length:].any()

    def test_threads_and_reading_ahead_change_nothing(self, data):
        one = every_batch(data, workers=1, ahead=0)
        many = every_batch(data, workers=8, ahead=16)
        assert len(one) == len(many) > 1
        for a, b in zip(one, many, strict=True):
            assert a.ids == b.ids and torch.equal(a.waveforms, b.waveforms)

    def test_lengths_are_rounded_up_on_demand(self, data):
        for batch in every_batch(data, multiple=1600):
            assert not (batch.lengths % 1600).any()
            assert batch.waveforms.shape[1] == batch.lengths.max()

    def test_processes_share_the_same_clips_in_step(self, data):
        batches = [*make_batches(data, max_seconds=8, seed=0, epoch=0), [7]]
        alone = list(Loader(data, batches))
        pairs = zip(*(Loader(data, batches, rank=r, num_processes=2) for r in (0, 1)), strict=True)
        for whole, parts in zip(alone, pairs, strict=True):
            ids = [clip_id for part in parts for clip_id in part.ids]
            assert sorted(ids) == sorted(whole.ids)
        assert [len(part) for part in parts] == [1, 0], "the last batch has one clip for two"

    def test_can_be_left_early_and_begun_again(self, data):
        loader = Loader(data, make_batches(data, max_seconds=8, seed=0, epoch=0))
        first = next(iter(loader))
        assert next(iter(loader)).ids == first.ids

    def test_real_speech(self, shared):
        data = load_data(shared / "speech" / "train-two-voices.parquet", limit=24)
        for batch in every_batch(data):
            assert torch.isfinite(batch.waveforms).all()
            assert batch.waveforms.abs().amax(dim=1).min() > 0.01
        assert not data.dropped
