"""The decoder in 8 bits: close to float32, smaller, and the same text from a trained pair."""

import pytest
import torch
from torch import nn

from tiny_asr import ASRModel, puzzle_clip, sample_clip
from tiny_asr.adapters import lora
from tiny_asr.cli.options import load_model, memory_bytes
from tiny_asr.config import ASRConfig
from tiny_asr.device import Choice
from tiny_asr.fast.int8 import FEW, Int8Linear, quantise


@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_that_of_the_rounded_matrix(rows, bias):
    torch.manual_seed(0)
    linear = nn.Linear(96, 64, bias=bias)
    linear.weight.data[3] = 0  # a row that has no scale of its own
    ours, x = Int8Linear(linear), torch.randn(2, rows, 96)[:, :rows]
    rounded = ours.weight.float() * ours.scale.float()[:, None]
    assert (rounded - linear.weight).abs().max() <= linear.weight.abs().max() / 127
    for given in (x[0], x[0].bfloat16()):
        expected = nn.functional.linear(given.float(), rounded, linear.bias)
        came = ours(given)
        assert came.dtype == given.dtype and came.shape == expected.shape
        torch.testing.assert_close(came.float(), expected, rtol=0.02, atol=0.02)
    assert ours(torch.randn(1, 2, 96)).shape == (1, 2, 64)


@pytest.fixture(scope="module")
def tiny():
    model = ASRModel.from_pretrained("tiny")
    quantise(model)
    return model


def test_the_sample_is_written_as_in_float32(tiny):
    clips = [sample_clip(), puzzle_clip()]
    assert tiny.transcribe(clips) == ASRModel.from_pretrained("tiny").transcribe(clips)


def test_every_matrix_of_the_decoder_is_a_quarter_as_large(tiny):
    left = [m for m in tiny.decoder.modules() if type(m) is nn.Linear]
    assert left == []
    plain = ASRModel.from_pretrained("tiny").decoder
    ours, theirs = (
        sum(m.weight.nbytes for m in part.modules() if isinstance(m, kind))
        for part, kind in ((tiny.decoder, Int8Linear), (plain, nn.Linear))
    )
    assert ours == theirs / 4
    assert any(type(m) is nn.Linear for m in tiny.encoder.modules())


@pytest.mark.parametrize("tied", [True, False])
def test_what_a_gpu_needs_in_8_bits_is_counted(tied):
    config = ASRConfig.from_pretrained("tiny")
    config.decoder_config.tie_word_embeddings = tied
    on_gpu = Choice(torch.device("cuda"), torch.bfloat16, "")
    saved = memory_bytes(config, on_gpu) - memory_bytes(config, on_gpu, int8=True)
    decoder = ASRModel.from_pretrained("tiny").decoder
    matrices = [m.weight.numel() for m in decoder.modules() if type(m) is nn.Linear]
    head = config.vocab_size * config.llm_dim  # tied, the embeddings stay beside it
    assert saved == sum(matrices) - (2 * head if tied else 0)


def test_other_devices_are_refused():
    with pytest.raises(ValueError, match="int8 came on meta; expected the CPU"):
        quantise(ASRModel.from_pretrained("tiny").to("meta"))


def test_no_product_is_too_large_for_16_bits():
    linear = nn.Linear(512, 8, bias=False)
    nn.init.constant_(linear.weight, 0.1)
    x = torch.full((FEW + 1, 512), 50.0)  # whole numbers alone would sum up to 3 million
    expected = linear(x)
    for dtype in (torch.float16, torch.bfloat16):
        torch.testing.assert_close(
            Int8Linear(linear)(x.to(dtype)).float(), expected, rtol=0.02, atol=0
        )


def test_an_adapter_is_merged_first_and_not_lost():
    pytest.importorskip("peft")
    model = ASRModel.from_pretrained("tiny", dtype=torch.bfloat16)
    llm = model.decoder.language_model
    lora.add_adapter(llm, 4)
    for name, weight in llm.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.05, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(300, 300 + FEW + 1)[None]
    with torch.no_grad():
        adapted = llm(input_ids=ids).logits.float()
        with vars(llm)["adapter"].disable_adapter():
            plain = llm(input_ids=ids).logits.float()
        with pytest.raises(
            ValueError, match="adapter beside the matrices; expected one that is merged"
        ):
            quantise(model)
        lora.merge_adapter(llm)
        quantise(model)
        ours = llm(input_ids=ids).logits.float()
    assert (ours - adapted).std() < 0.3 * (plain - adapted).std()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_writes_in_8_bits_what_a_cpu_writes(tiny):
    model, choice = load_model("tiny", None, None, "cuda", "int8")
    assert choice.dtype == torch.int8 and model.device.type == "cuda"
    clips = [sample_clip(), puzzle_clip()]
    assert model.transcribe(clips) == tiny.transcribe(clips)
    assert model.transcribe(clips[0]) == tiny.transcribe(clips[0])


def test_a_real_language_model_still_writes_words(real):
    """Its few huge activations are what rounding activations, too, fails on."""
    parts = {"encoder": str(real / "whisper-base"), "decoder": str(real / "smollm2-135m-instruct")}
    model = ASRModel.from_pretrained("medium", **parts)
    quantise(model)
    text = model.transcribe(sample_clip()).lower()
    assert text.startswith("she listens to the sea and its waves")
