"""The projector: its arithmetic by hand, its loudness, and that nothing else is trained."""

import copy
import warnings

import pytest
import torch
from fixtures_models import (
    ENCODER_DIM,
    LLM_DIM,
    decoder_dir,
    decoder_of,
    encoder_dir,
    pair,
    pair_config,
    some_noises,
)
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from tiny_asr import ASRConfig, ASRModel, AudioProjector
from tiny_asr.projector import stack_frames


def frames(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, ENCODER_DIM, generator=torch.Generator().manual_seed(0))


def config_with(**fields) -> ASRConfig:
    return ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(), **fields)


def rms(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float().pow(2).mean(dim=-1).sqrt()


def test_stacking_lays_neighbours_side_by_side_in_their_order():
    output = torch.arange(12.0).reshape(1, 6, 2)  # frame t is (2t, 2t + 1)
    stacked = stack_frames(output, 3)
    assert stacked.tolist() == [[[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]]
    assert torch.equal(stack_frames(output, 1), output)


def test_stacking_keeps_clips_apart():
    output = frames(2, 10)
    assert torch.equal(stack_frames(output, 5)[1], stack_frames(output[1:], 5)[0])


@pytest.mark.parametrize("count", [1, 4, 151])
def test_a_part_of_a_stack_is_refused(count):
    message = rf"{count} encoder frames came; expected a multiple of audio_downsample_rate = 5"
    with pytest.raises(ValueError, match=message):
        pair().audio_projector(frames(1, count))


@pytest.mark.parametrize(("rate", "count", "embeddings"), [(5, 150, 30), (4, 8, 2), (1, 3, 3)])
def test_shape(rate, count, embeddings):
    projector = AudioProjector(config_with(audio_downsample_rate=rate))
    output = projector(frames(2, count))
    assert output.shape == (2, embeddings, LLM_DIM)
    assert output.dtype == torch.float32


def test_forward_by_hand():
    projector = AudioProjector(pair_config())
    with torch.no_grad():
        projector.output_norm.weight.copy_(torch.linspace(0.5, 2, LLM_DIM))
    x = frames(1, 10)
    stacks = torch.stack([torch.cat(list(x[0, :5])), torch.cat(list(x[0, 5:]))])
    inner = stacks @ projector.linear1.weight.T + projector.linear1.bias
    inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))  # GELU
    outer = inner @ projector.linear2.weight.T + projector.linear2.bias
    expected = outer / (outer.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    expected = expected * torch.linspace(0.5, 2, LLM_DIM)
    torch.testing.assert_close(projector(x)[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", [True, False])
def test_parameter_count(norm):
    config = config_with(projector_hidden_dim=64, projector_output_norm=norm)
    stacked = 5 * config.encoder_dim
    expected = (stacked + 1) * 64 + (64 + 1) * config.llm_dim + norm * config.llm_dim
    assert sum(p.numel() for p in AudioProjector(config).parameters()) == expected


@pytest.mark.parametrize("architecture", ["smollm3", "llama"])
def test_a_fresh_output_is_as_loud_as_the_token_embeddings(architecture):
    model = pair(architecture)
    with torch.no_grad():
        loudness = rms(model.audio_projector(frames(3, 50)))
    table = model.decoder.embed(torch.arange(model.config.vocab_size)[None])
    expected = table.pow(2).mean().sqrt().expand_as(loudness)
    torch.testing.assert_close(loudness, expected, rtol=1e-3, atol=0)


def test_the_loudness_is_that_of_embeddings_as_the_decoder_reads_them():
    """Gemma multiplies its table by the root of its width before the first layer."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=300,
        hidden_size=LLM_DIM,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=0,
    )
    decoder = decoder_of(Gemma3ForCausalLM(config), "gemma3")
    model = ASRModel(ASRConfig(encoder=encoder_dir(), decoder=decoder))
    with torch.no_grad():
        read = rms(model.decoder.embed(torch.arange(2, 300)[None])).pow(2).mean().sqrt()
        written = rms(model.audio_projector(frames(3, 50))).mean()
    torch.testing.assert_close(written, read, rtol=0.02, atol=0)


def test_the_scale_is_measured_on_the_table_that_is_given():
    projector = AudioProjector(pair_config())
    projector.set_output_scale(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float16))
    assert projector.output_norm.weight.tolist() == [2.5] * LLM_DIM


def test_without_the_norm_the_second_layer_is_the_output():
    projector = AudioProjector(config_with(projector_output_norm=False))
    projector.set_output_scale(torch.ones(4, LLM_DIM))  # there is no scale to set
    x = frames(1, 10)
    expected = projector.linear2(projector.activation(projector.linear1(stack_frames(x, 5))))
    assert torch.equal(projector(x), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_computes_in_float32_whatever_comes(dtype):
    x = frames(1, 10).to(dtype)
    output = pair().audio_projector(x)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, pair().audio_projector(x.float()))


def test_autocast_neither_warns_nor_moves_the_scale():
    projector, x = pair().audio_projector, frames(1, 50)
    torch.set_warn_always(True)  # else torch says each thing once a process
    try:
        with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
            warnings.simplefilter("error")
            output = projector(x)
    finally:
        torch.set_warn_always(False)
    torch.testing.assert_close(rms(output), rms(projector(x)), rtol=0.01, atol=0)


def test_only_the_projector_gets_gradients():
    model = ASRModel(pair_config()).train()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    batch = model.processor(some_noises()[:2], ["the cat", "sat there"], 16_000)
    model(**batch).loss.backward()
    trained = {f"audio_projector.{name}" for name, _ in model.audio_projector.named_parameters()}
    assert {n for n, p in model.named_parameters() if p.grad is not None} == trained
    assert all(p.grad.abs().max() > 0 for p in model.audio_projector.parameters())
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == trained


def test_a_copy_is_independent():
    projector = copy.deepcopy(pair().audio_projector)
    with torch.no_grad():
        projector.linear1.weight.zero_()
    assert pair().audio_projector.linear1.weight.abs().max() > 0
