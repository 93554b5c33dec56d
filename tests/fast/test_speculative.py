"""Guesses change how many steps a text takes, never the text."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from fixtures_models import once, talkative

from tiny_asr import ASRModel, puzzle_clip, sample_clip
from tiny_asr.audio import load_audio
from tiny_asr.fast.lean_step import LeanStep
from tiny_asr.fast.speculative import Speculative, rough_draft
from tiny_asr.kv_cache import KVCache


@once
def tiny() -> ASRModel:
    return ASRModel.from_pretrained("tiny")


@pytest.fixture
def widths(monkeypatch) -> Iterator[list[int]]:
    """How many tokens each step has read."""
    seen, step = [], LeanStep.__call__

    def watched(self, embeddings, cache):
        seen.append(embeddings.shape[1])
        return step(self, embeddings, cache)

    monkeypatch.setattr(LeanStep, "__call__", watched)
    yield seen


def written(path, **options) -> list[int]:
    embeddings, lengths = tiny()._listen([load_audio(path)])
    return [int(token) for token in tiny().decoder.write(embeddings, lengths, **options)]


@pytest.mark.parametrize("lengths", [[7], [5, 5], [9, 4, 6]], ids=str)
@pytest.mark.parametrize("architecture", ["smollm3", "llama"])
def test_tokens_read_together_have_the_logits_of_one_after_another(architecture, lengths):
    language_model = talkative(architecture).decoder.language_model
    rows, width = len(lengths), language_model.config.hidden_size
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randn(rows, max(lengths), width, generator=generator)
    more = torch.randn(rows, 4, width, generator=generator)
    caches = [KVCache(language_model, rows, max(lengths) + 4) for _ in range(2)]
    for cache in caches:
        cache.read_prompt(prompt, torch.tensor(lengths))
    one_by_one = torch.stack([caches[0].read(more[:, [n]]) for n in range(4)], dim=1)
    together = caches[1].lean(more, caches[1]).unflatten(0, (rows, 4))
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(caches[1].buffers, caches[0].buffers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("clip", [sample_clip(), puzzle_clip()], ids=["sample", "puzzle"])
def test_a_trained_pair_writes_the_same_in_fewer_steps(clip, widths):
    plain = written(clip, guesses=0)
    assert widths == [1] * (len(plain) - 1)
    widths.clear()
    assert written(clip) == plain
    assert max(widths) == 3 and len(widths) < 0.75 * len(plain)


def test_the_draft_of_a_trained_pair_has_most_of_the_text():
    decoder = tiny().decoder
    draft = rough_draft(decoder, tiny()._listen([load_audio(sample_clip())])[0][0])
    text = written(sample_clip())[:-1]
    assert len(set(text) & set(draft)) > 0.6 * len(text)
    pieces = decoder.tokenizer.batch_decode([[token] for token in draft])
    assert not any(a.endswith(b) or b.startswith(a) for a, b in pairwise(pieces))
    assert not set(draft) & set(decoder.tokenizer.all_special_ids)


@pytest.mark.parametrize("draft", ["wrong", "all of it", "none"])
def test_no_draft_changes_the_text(draft, monkeypatch, widths):
    plain = written(puzzle_clip(), guesses=0)
    drafts = {"wrong": [7] * 50, "all of it": plain, "none": []}
    monkeypatch.setattr("tiny_asr.fast.speculative.rough_draft", lambda *_: drafts[draft])
    widths.clear()
    assert written(puzzle_clip()) == plain
    if draft == "all of it":
        assert len(widths) <= len(plain) / 3 + 2
    else:
        assert len(widths) == len(plain) - 1


@pytest.mark.parametrize("limit", range(4))
def test_no_more_is_read_than_there_is_room_for(limit, monkeypatch):
    plain = written(sample_clip(), guesses=0)
    monkeypatch.setattr("tiny_asr.fast.speculative.rough_draft", lambda *_: plain)
    assert written(sample_clip(), max_new_tokens=limit, guesses=9) == plain[:limit]


@pytest.mark.parametrize(
    "options", [{"hints": ["seat"]}, {"temperature": 1.0}, {"end_loops": False}], ids=str
)
def test_hints_and_sampling_are_as_without(options):
    def one(guesses: int) -> list[int]:
        generator = torch.Generator().manual_seed(3)
        return written(puzzle_clip(), guesses=guesses, generator=generator, **options)

    assert one(2) == one(0)


def test_several_rows_and_watched_decoders_take_one_token_a_step(widths, monkeypatch):
    made = []
    monkeypatch.setattr(Speculative, "__init__", lambda *_: made.append(1))
    tiny().generate([load_audio(sample_clip()), load_audio(puzzle_clip())])
    assert widths and set(widths) == {1}
    hook = tiny().decoder.layers[0].register_forward_hook(lambda *_: None)
    try:
        tiny().generate([load_audio(sample_clip())])
    finally:
        hook.remove()
    assert not made
