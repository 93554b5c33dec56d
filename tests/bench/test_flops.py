"""The work that is counted from the models' sizes is the work that PyTorch counts."""

import pytest
import torch
from fixtures_models import noise, pair, parameters
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import MixtralConfig

from tiny_asr import ASRConfig, ASRModel
from tiny_asr.bench.flops import Work, sizes
from tiny_asr.decoder import token_loss

TEXT = "the cat sat on a mat and slept all day " * 2


def count(run) -> int:
    """FLOPs of what runs, by PyTorch's own counter, which does not see into fast attention."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def test_sizes_of_the_full_pair_are_those_of_its_models():
    n = sizes(ASRConfig.from_pretrained("full"))
    assert (n["encoder"], n["decoder"]) == (636_968_960, 3_075_098_624)
    assert (n["decoder layers"], n["head"]) == (2_812_280_832, 128_256 * 2048)


def test_a_mixture_of_experts_can_be_counted():
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 99}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    config = ASRConfig.from_pretrained("tiny")
    config.decoder_config = MixtralConfig(**small, **heads)
    assert sizes(config)["cached"] == 2 * 2 * 2 * 8  # layers, keys and values, heads, their width


def test_sizes_of_a_loaded_pair_are_what_it_holds():
    model = pair()
    n = sizes(model.config)
    assert n["encoder"] == parameters(model.encoder)
    assert n["projector"] == parameters(model.audio_projector)
    assert n["decoder"] == parameters(model.decoder)


def test_the_full_pair_costs_what_the_measured_formulas_say():
    work = Work(ASRConfig.from_pretrained("full"), prompt=20)
    assert work.encode(10.0) == pytest.approx(63.5e9 * 10 + 0.410e9 * 10**2, rel=0.01)
    positions = 20 + 100 + 40
    decoder = 2 * 5.625e9 * positions + 2 * 0.525e9 * 40
    assert work.train_decoder(10.0, 40) == pytest.approx(decoder, rel=0.01)
    flops, moved = work.write(1, 0)
    assert moved == flops == pytest.approx(6.15e9, rel=0.01)  # 2 bytes, 2 FLOPs a weight


def test_the_encoders_work_is_what_pytorch_counts():
    model, seconds = pair(), 4.0
    mel = torch.randn(2, model.config.num_mel_bins, 400)
    ran = count(lambda: model.encoder(mel, torch.full((2,), 400)))
    assert ran == pytest.approx(2 * Work(model.config, 20).encode(seconds), rel=0.01)


def test_the_trainings_work_is_what_pytorch_counts_but_for_the_decoders_attention():
    model = ASRModel.from_pretrained("tiny")
    labels = model.processor.labels([TEXT])
    with torch.no_grad():
        samples = torch.tensor([96_000])
        frames, _ = model.encode_batch(noise(6.0)[None], samples)
    audio = model.audio_projector(frames).detach().requires_grad_()
    lengths, tokens = torch.tensor([audio.shape[1]]), labels.shape[1]

    def decode():
        token_loss(model.decoder.text_logits(audio, lengths, labels), labels).backward()

    work = Work(model.config, model.decoder.prompt_length)
    positions, config = work.positions(6.0, tokens) - 1, model.config.decoder_config
    attention = 3 * 4 * positions**2 * config.hidden_size * config.num_hidden_layers
    # Backward of attention costs twice its forward; the last token is read by nobody.
    read = work.train_decoder(6.0, tokens) - 4 * work.sizes["decoder layers"]
    assert count(decode) == pytest.approx(read + attention, rel=0.02)
    # The first layer's input needs no gradient, which the rule of 6 N leaves out of account.
    ran = count(lambda: model.audio_projector(frames).sum().backward())
    assert ran < work.train_projector(6.0) < 1.5 * ran
