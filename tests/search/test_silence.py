"""Where the end is likely before the first word, nothing is written: greedily or by beams."""

import pytest
import torch

from tiny_asr.config import ASRConfig
from tiny_asr.model import ASRModel
from tiny_asr.search.silence import ended_where_silent


def test_only_rows_whose_end_is_likelier_lose_their_choice():
    logits = torch.tensor([[0.0, 5.0, 4.0], [9.0, 5.0, -9.0]])
    assert ended_where_silent(logits, 2, None) is logits
    chosen = ended_where_silent(logits, 2, 0.1)
    assert chosen.argmax(1).tolist() == [2, 0]
    assert torch.equal(chosen[1], logits[1])
    assert chosen.log_softmax(1).isfinite().all()


@pytest.mark.parametrize("beams", [1, 3])
def test_a_threshold_below_every_probability_silences_the_decoder(beams):
    model = ASRModel.from_pretrained("tiny")
    clip = [torch.randn(16_000) * 0.1]
    model.decoder.no_speech_threshold = 1e-30
    assert [len(row) for row in model.generate(clip, beams=beams)] == [1]


@pytest.mark.parametrize("wrong", [-0.1, 0.0, 1.5])
def test_a_threshold_is_a_probability(wrong):
    with pytest.raises(ValueError, match="no_speech_threshold"):
        ASRConfig(no_speech_threshold=wrong)
