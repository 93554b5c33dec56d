"""Data sets by name: what is asked of the hub for each, and what an unknown name is told."""

import pytest

from tiny_asr.data import dataset
from tiny_asr.data.dataset import load_data
from tiny_asr.data.named import NAMED
from tiny_asr.training.settings import TrainingSettings


@pytest.fixture
def asked(monkeypatch) -> list:
    """What is read, in place of the hub: sources, splits and columns of text."""
    found = []

    def read(source, split, columns):
        found.append((source, split, columns.text))
        yield {"audio": None, columns.text: "hello"}

    monkeypatch.setattr(dataset, "read_rows", read)
    monkeypatch.setattr(dataset, "stated_seconds", lambda *_: 1.0)
    return found


@pytest.mark.parametrize(
    ("name", "hub", "split", "column"),
    [
        ("librispeech:test-clean", "openslr/librispeech_asr:clean", "test", "text"),
        ("librispeech:test-other", "openslr/librispeech_asr:other", "test", "text"),
        ("librispeech:dev-clean", "openslr/librispeech_asr:clean", "validation", "text"),
        ("librispeech:dev-other", "openslr/librispeech_asr:other", "validation", "text"),
        ("librispeech:train-clean-100", "openslr/librispeech_asr:clean", "train.100", "text"),
        ("librispeech:train-other-500", "openslr/librispeech_asr:other", "train.500", "text"),
        ("tedlium:test", "hf-audio/esb-datasets-test-only-sorted:tedlium", "test", "text"),
        ("voxpopuli:en", "hf-audio/esb-datasets-test-only-sorted:voxpopuli", "test", "text"),
        ("ami:ihm", "hf-audio/esb-datasets-test-only-sorted:ami", "test", "text"),
        ("mls:german", "facebook/multilingual_librispeech:german", "test", "transcript"),
    ],
)
def test_a_name_stands_for_a_hub_id_a_split_and_a_column(asked, name, hub, split, column):
    data = load_data(name)
    assert asked == [(hub, split, column)] and name in NAMED
    assert data.name == name and data[0].text == "hello"


def test_a_name_beside_other_sources_keeps_its_split_and_column(asked):
    load_data(["mls:polish", {"data": "some/other", "split": "train", "text_column": "said"}])
    assert [split for _, split, _ in asked] == ["test", "train"]
    assert [column for *_, column in asked] == ["transcript", "said"]


def test_an_unknown_name_lists_the_names(tmp_path):
    with pytest.raises(ValueError, match=r"'librispeech:test'.*expected one of: librispeech:test-"):
        load_data("librispeech:test")
    with pytest.raises(ValueError, match="no data set of that name"):  # before models are loaded
        TrainingSettings(data="librispeech:tset-clean", out=str(tmp_path))
    with pytest.raises(ValueError, match=r"split='test' came with 'mls:dutch'.*leave split out"):
        load_data("mls:dutch", split="test")


def test_a_file_with_such_a_name_is_that_file(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tedlium:test").touch()
    load_data("tedlium:test")
    assert asked == [("tedlium:test", None, "text")]
