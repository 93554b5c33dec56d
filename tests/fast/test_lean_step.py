"""The lean step writes what the library's own step writes, and stands back where it can't."""

import pytest
import torch
from fixtures_models import checkpoint_dir, some_noises, talkative

from tiny_asr import ASRModel, puzzle_clip, sample_clip
from tiny_asr.adapters.lora import adapter_parameters, add_adapter
from tiny_asr.fast.int8 import quantise
from tiny_asr.fast.lean_step import fits
from tiny_asr.kv_cache import KVCache

both = pytest.mark.parametrize("architecture", ["smollm3", "llama"])


def logits(language_model, lean: bool, lengths: list[int], steps: int = 4) -> torch.Tensor:
    """What comes next after prompts of these lengths, and after some more embeddings."""
    width = language_model.config.hidden_size
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randn(len(lengths), max(lengths), width, generator=generator)
    more = torch.randn(steps, len(lengths), 1, width, generator=generator)
    cache = KVCache(language_model, len(lengths), max(lengths) + steps)
    assert cache.lean is not None
    cache.lean = cache.lean if lean else None
    found = [cache.read_prompt(prompt, torch.tensor(lengths))]
    return torch.stack([*found, *(cache.read(embedding) for embedding in more)])


@both
@pytest.mark.parametrize("lengths", [[7], [5, 5, 5], [9, 4, 6]], ids=str)
def test_the_logits_are_the_librarys(architecture, lengths):
    language_model = talkative(architecture).decoder.language_model
    ours, theirs = (logits(language_model, lean, lengths) for lean in (True, False))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_trained_pair_writes_the_same(monkeypatch):
    model, clips = ASRModel.from_pretrained("tiny"), [sample_clip(), puzzle_clip()]
    lean = [model.transcribe(clips), model.transcribe(clips, beams=3)]
    monkeypatch.setattr("tiny_asr.kv_cache.fits", lambda *_: False)
    assert lean == [model.transcribe(clips), model.transcribe(clips, beams=3)]


@pytest.mark.parametrize("change", ["int8", "adapter"])
def test_changed_matrices_are_used(monkeypatch, change):
    model = ASRModel.from_pretrained(checkpoint_dir())
    if change == "int8":
        quantise(model)
    else:
        add_adapter(model.decoder.language_model, 4)
        for matrix in adapter_parameters(model.decoder.language_model):
            torch.nn.init.normal_(matrix, std=0.3)
    lean = model.transcribe(some_noises(), 16_000)
    assert lean != talkative().transcribe(some_noises(), 16_000)
    monkeypatch.setattr("tiny_asr.kv_cache.fits", lambda *_: False)
    assert model.transcribe(some_noises(), 16_000) == lean


def test_where_somebody_watches_or_has_changed_a_layer_the_librarys_step_is_taken():
    model = ASRModel.from_pretrained(checkpoint_dir())
    language_model, kinds = model.decoder.language_model, {"full_attention": None}
    assert fits(language_model, kinds)
    assert not fits(language_model, {"sliding_attention": 64})
    layer = language_model.model.layers[0]
    hook = layer.mlp.register_forward_hook(lambda *_: None)
    assert not fits(language_model, kinds)
    hook.remove()
    layer.forward = layer.forward
    assert not fits(language_model, kinds)
    del layer.forward
    assert fits(language_model, kinds) and not fits(language_model.bfloat16(), kinds)
