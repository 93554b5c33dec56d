"""Mixtures: each set has its weight's share of an epoch, and every clip its turn."""

from collections import Counter
from itertools import chain

import pytest
from small_runs import clips, some_rows, write_rows

from tiny_asr.data.batches import make_batches
from tiny_asr.data.dataset import load_data
from tiny_asr.data.mixing import Share, epoch_of, in_an_epoch, parts_of
from tiny_asr.training.settings import TrainingSettings


def mixture(first: float = 1, second: float = 1):
    return load_data([{"data": clips(), "weight": first}, {"data": clips(4, 3), "weight": second}])


def test_the_set_with_the_fewest_clips_for_its_weight_is_heard_whole():
    shares = [Share("a", 10, 1), Share("b", 100, 3), Share("c", 8, 2)]
    assert in_an_epoch(shares) == [4, 12, 8]
    assert in_an_epoch([Share("a", 5, 1000), Share("b", 50, 0.001)]) == [5, 1]


def test_an_epoch_has_no_clip_twice_and_the_epochs_go_round():
    shares = [Share("a", 10, 1), Share("b", 100, 3), Share("c", 8, 2)]
    heard = Counter()
    for epoch in range(25):
        chosen = epoch_of(shares, 7, epoch).tolist()
        assert len(set(chosen)) == len(chosen) == 24
        assert [sum(low <= i < high for i in chosen) for low, high in ((0, 10), (10, 110))] == [
            4,
            12,
        ]
        heard.update(chosen)
    assert {heard[i] for i in range(110)} == {10, 3}  # 25 x 4 / 10, and 25 x 12 / 100
    assert epoch_of(shares, 7, 3).tolist() == epoch_of(shares, 7, 3).tolist()
    assert epoch_of(shares, 7, 3).tolist() != epoch_of(shares, 8, 3).tolist()


def test_batches_hold_the_epochs_clips_in_another_order_each_time():
    data = mixture()
    assert data.epoch(0, 0) is not None and load_data(clips()).epoch(0, 0) is None
    batches = [
        make_batches(data, max_seconds=6, seed=0, epoch=e, among=data.epoch(0, e)) for e in range(3)
    ]
    for epoch, order in enumerate(batches):
        heard = sorted(chain.from_iterable(order))
        assert heard == sorted(data.epoch(0, epoch).tolist())
        assert sum(i >= 12 for i in heard) == 4  # all of the smaller set
    assert batches[0] != batches[1] != batches[2]


def test_the_summary_says_what_an_epoch_holds():
    lines = mixture(3, 1).summary().splitlines()
    assert lines[1] == f"of an epoch 75%, 12 of 12 clips: {clips()}"
    assert lines[2] == f"of an epoch 25%, 4 of 4 clips: {clips(4, 3)}"


def test_noise_keeps_its_share_of_a_mixture():
    data = mixture().with_noise(load_data(clips(3, 7)), 0.2)
    assert in_an_epoch(data.shares) == [4, 4, 2]
    chosen = data.epoch(0, 5)
    assert sum(not data[int(i)].text for i in chosen) == 2


def test_items_have_their_own_split_columns_and_limit(tmp_path):
    rows = [{"said": row.pop("text")} | row for row in some_rows(6, 5)]
    write_rows(tmp_path / "set" / "train.parquet", rows)
    write_rows(tmp_path / "set" / "test.parquet", rows[:1])
    item = {"data": tmp_path / "set", "split": "train", "text_column": "said", "limit": 3}
    data = load_data([clips(), item])
    assert len(data) == 15 and data.shares == []
    assert len(load_data([clips(), item], limit=14)) == 14
    assert [share.clips for share in load_data([item | {"weight": 1}]).shares] == [3]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"data": "a/b", "weight": 0}], "weight=0 of a/b came; expected a number above 0"),
        ([{"data": "a/b", "weight": "2"}], "weight='2'"),
        ([{"data": "a/b", "wieght": 1}], "came with wieght; expected data, weight, limit, split"),
        ([{"weight": 1}], "came without data"),
        ([{"data": "a/b", "limit": 0}], "limit=0 of a/b"),
        ([{"data": "a/b", "weight": 1}, "c/d"], "c/d came without a weight beside sets that have"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_read(items, message):
    for ask in (parts_of, lambda data: TrainingSettings(data=data, out="runs/x")):
        with pytest.raises(ValueError, match=message):
            ask(items)


def test_a_limit_on_the_whole_and_a_set_without_clips_are_refused(tmp_path):
    items = [{"data": clips(), "weight": 1}]
    with pytest.raises(ValueError, match="limit=3 came for a mixture"):
        load_data(items, limit=3)
    silent = write_rows(tmp_path / "s.parquet", [row | {"text": ""} for row in some_rows(2)])
    with pytest.raises(ValueError, match=r"s\.parquet of a mixture has no usable clip"):
        load_data([*items, {"data": silent, "weight": 1}])


def test_settings_keep_a_mixture_through_yaml(tmp_path):
    settings = TrainingSettings(data=[{"data": clips(), "weight": 2}], out=tmp_path / "run")
    settings.save(tmp_path / "run.yaml")
    assert TrainingSettings.load(tmp_path / "run.yaml") == settings
