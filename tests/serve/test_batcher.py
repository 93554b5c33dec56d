"""Batches of pieces: who is next, who is left out, and what an error costs."""

from threading import Event

import pytest
import torch
from fixtures_models import noise, talkative

from tiny_asr.serve.batcher import Batcher


def decode(pieces: list[torch.Tensor]) -> list[str]:
    """What a server does with pieces."""
    model = talkative()
    return model.processor.batch_decode(model.generate(pieces, max_new_tokens=4))


class Gate:
    """`decode` once it is opened; notes what came."""

    def __init__(self):
        self.open, self.entered, self.batches = Event(), Event(), []

    def __call__(self, pieces: list[torch.Tensor]) -> list[str]:
        self.batches.append([len(piece) for piece in pieces])
        self.entered.set()
        assert self.open.wait(60)
        return decode(pieces)


@pytest.fixture
def gate():
    """A batcher of three that is at work on a first clip, and waits."""
    gate = Gate()
    batcher = Batcher(gate, 3)
    first = batcher.submit([noise(0.5)])
    assert gate.entered.wait(60)
    yield gate, batcher
    gate.open.set()
    batcher.close()
    assert len(first.result()) == 1


def test_clips_take_turns_and_get_their_own_texts_in_order(gate):
    gate, batcher = gate
    long = [noise(1 + i / 10, i) for i in range(5)]
    short = [noise(0.6, 9)]
    texts = [batcher.submit(long), batcher.submit(short)]
    gate.open.set()
    assert [future.result(60) for future in texts] == [decode(long), decode(short)]
    lengths = [len(piece) for piece in long]
    assert gate.batches[1:] == [[lengths[0], len(short[0]), lengths[1]], lengths[2:]]
    assert batcher.sizes == {1: 1, 3: 2}


def test_a_cancelled_clip_is_left_out(gate):
    gate, batcher = gate
    gone, stays = batcher.submit([noise(1), noise(2)]), batcher.submit([noise(3)])
    assert gone.cancel()
    gate.open.set()
    assert stays.result(60) == decode([noise(3)])
    assert gate.batches[1:] == [[48_000]]


def test_a_piece_that_cannot_be_decoded_spoils_no_other(gate):
    gate, batcher = gate
    bad = batcher.submit([noise(31), noise(1)])
    good = batcher.submit([noise(2)])
    gate.open.set()
    assert good.result(60) == decode([noise(2)])
    with pytest.raises(ValueError, match=r"lasts 31.00 s; expected at most 30 s"):
        bad.result(60)
    assert batcher.submit([noise(1)]).result(60) == decode([noise(1)])


def test_a_close_finishes_what_was_submitted_and_takes_nothing_new():
    batcher = Batcher(decode, 2)
    futures = [batcher.submit([noise(0.5, seed)]) for seed in range(5)]
    batcher.close()
    assert [future.result(0) for future in futures] == [decode([noise(0.5, i)]) for i in range(5)]
    with pytest.raises(RuntimeError, match="stopping"):
        batcher.submit([noise(1)])


def test_a_clip_without_pieces_has_no_texts(gate):
    assert gate[1].submit([]).result(0) == []
