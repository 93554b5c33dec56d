"""The lean step for a GPU reads as the library's does; here, on a CPU, as far as that can."""

import os
import subprocess
import sys

import pytest
import torch
from fixtures_models import talkative
from test_fast_paths import Played, clips, fresh, on_a_gpu

from tiny_asr import ASRModel, AudioEncoder, puzzle_clip, sample_clip
from tiny_asr.adapters.lora import add_adapter
from tiny_asr.audio import log_mel, pad_batch
from tiny_asr.fast.compiling import compile_layers
from tiny_asr.fast.gpu_step import WAY, GPUStep, fits_gpu, joined
from tiny_asr.kv_cache import KVCache


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr("tiny_asr.kv_cache.RecordedStep", Played)
    monkeypatch.setattr("tiny_asr.fast.gpu_step.RecordedStep", Played)
    monkeypatch.setattr("tiny_asr.kv_cache.fits", lambda *_: False)


def logits(language_model, way: str, lengths: list[int], steps: int = 4) -> torch.Tensor:
    """What comes next after prompts of these lengths, and after some more embeddings."""
    width, device = language_model.config.hidden_size, language_model.device
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randn(len(lengths), max(lengths), width, generator=generator)
    more = torch.randn(steps, len(lengths), 1, width, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WAY, "step", way)
        cache = KVCache(language_model, len(lengths), 64 + max(lengths) + steps, record=True)
    assert isinstance(cache.lean, GPUStep) == (way != "library")
    found = [cache.read_prompt(prompt.to(device), torch.tensor(lengths)) for _ in range(2)]
    found += [cache.read(embedding) for embedding in more.to(device)]
    if isinstance(cache.lean, GPUStep):  # nothing has failed, and the second prompt was recorded
        assert len(cache.lean.prompts) == 1
    assert isinstance(cache.lean, GPUStep) == (way != "library")
    return torch.stack(found)


@pytest.mark.parametrize("architecture", ["smollm3", "llama"])
@pytest.mark.parametrize("lengths", [[7], [5, 5, 5], [9, 4, 6]], ids=str)
def test_the_logits_are_the_librarys(as_on_a_gpu, architecture, lengths):
    language_model = talkative(architecture).decoder.language_model
    ours, theirs = (logits(language_model, way, lengths) for way in ("lean", "library"))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_trained_pair_writes_the_same(as_on_a_gpu, monkeypatch):
    clips, plain = [sample_clip(), puzzle_clip()], ASRModel.from_pretrained("tiny")
    expected = [plain.transcribe(clips), plain.transcribe(clips, beams=3)]
    model = ASRModel.from_pretrained("tiny")

    def recording(rows: int, columns: int):
        return model.decoder.ready_caches.lease(model.decoder.language_model, rows, columns)

    monkeypatch.setattr(model.decoder, "kv_cache", recording)
    assert [model.transcribe(clips), model.transcribe(clips, beams=3)] == expected
    assert all(isinstance(cache.lean, GPUStep) for _, cache in model.decoder.ready_caches.ready)


def test_joined_matrices_take_no_more_memory_and_are_joined_once():
    first, second = torch.nn.Linear(4, 6, bias=False), torch.nn.Linear(4, 2, bias=False)
    before = torch.cat([first.weight, second.weight])
    whole = joined(first, second)
    assert torch.equal(whole, before)
    assert torch.equal(torch.cat([first.weight, second.weight]), before)
    assert whole.data_ptr() == first.weight.data_ptr() == joined(first, second).data_ptr()


def test_compiled_layers_fit_and_others_that_were_changed_do_not():
    model, kinds = fresh(), {"full_attention": None}
    language_model = model.decoder.language_model
    assert fits_gpu(language_model, kinds)
    compile_layers(model)
    assert fits_gpu(language_model, kinds)
    language_model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *_: None)
    assert not fits_gpu(language_model, kinds)


def test_a_model_with_an_adapter_takes_its_own_step():
    language_model = fresh().decoder.language_model
    add_adapter(language_model, 4)
    assert not fits_gpu(language_model, {"full_attention": None})


def test_a_step_that_fails_says_so_and_the_librarys_is_taken(as_on_a_gpu, monkeypatch, caplog):
    class Failing(Played):
        def __init__(self, step, first, state):
            super().__init__(step, first, state)
            if isinstance(step.__self__.lean, GPUStep):
                raise RuntimeError("no such kernel")

    monkeypatch.setattr("tiny_asr.kv_cache.RecordedStep", Failing)
    monkeypatch.setitem(WAY, "step", "lean")
    language_model = talkative().decoder.language_model
    cache = KVCache(language_model, 1, 16, record=True)
    prompt = torch.randn(1, 6, language_model.config.hidden_size)
    cache.read_prompt(prompt, torch.tensor([6]))
    cache.read(prompt[:, :1])
    assert cache.lean is None and "no such kernel" in caplog.text


ATTENTION = """
import torch
from triton.runtime import interpreter
patch = interpreter._patch_lang_tensor
def patched(tensor, scope):  # numpy no longer takes an array of one number for a number
    patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())
interpreter._patch_lang_tensor = patched
from tiny_asr.fast.gpu_step import torch_attention
from tiny_asr.fast.step_attention import attend
torch.manual_seed(0)
device, dtypes = "{device}", {{torch.float32: 1e-5}}
if device == "cuda":
    dtypes[torch.bfloat16] = 0.05
for dtype, limit in dtypes.items():
    for kv_heads, group, dim, rope in ((2, 3, 48, True), (4, 4, 128, True), (2, 1, 16, False)):
        new = torch.randn(3, (group + 2) * kv_heads * dim)
        cos, sin = torch.randn(2, 3, dim)
        buffers = torch.randn(2, 3, kv_heads, 192, dim)
        column = torch.tensor([0, 64, 150]).to(device)
        numbers = [x.to(device, dtype) for x in (new, cos, sin, *buffers)]
        given, plain = ([*(x.clone() for x in numbers), column] for _ in range(2))
        seen, expected = attend(*given, 0.1, rope), torch_attention(*plain, 0.1, rope)
        torch.testing.assert_close(seen, expected, rtol=limit, atol=limit)
        for ours, theirs in zip(given[3:5], plain[3:5]):
            torch.testing.assert_close(ours, theirs, rtol=limit, atol=limit)
"""


def test_the_kernel_is_pytorchs_attention():
    """On a CPU it is interpreted, which a process must know before it imports triton."""
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    env = os.environ | ({} if device == "cuda" else {"TRITON_INTERPRET": "1"})
    code = ATTENTION.format(device=device)
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def features(seconds: float) -> torch.Tensor:
    return log_mel(pad_batch(clips(seconds), 1600)[0], 80)


def test_one_clip_is_heard_as_without_what_it_is_padded_with(monkeypatch):
    def attend(q, k, v, starts, *_, scale):
        own = [rows[: starts[1]].transpose(0, 1) for rows in (q, k, v)]
        seen = torch.nn.functional.scaled_dot_product_attention(*own, scale=scale)
        return torch.cat([seen.transpose(0, 1), torch.full_like(q[starts[1] :], torch.nan)])

    encoder = ASRModel.from_pretrained("tiny").encoder
    lengths = (0.7, 2.3, 6.0)
    expected = [encoder(features(seconds)) for seconds in lengths]
    monkeypatch.setattr("tiny_asr.fast.packing.varlen_attn", attend)
    monkeypatch.setattr("tiny_asr.fast.one_clip.RecordedStep", Played)
    monkeypatch.setattr(AudioEncoder, "_packs", lambda *_: True)
    with torch.no_grad():
        for seconds, plain in zip(lengths, expected, strict=True):
            torch.testing.assert_close(encoder(features(seconds)), plain, rtol=1e-4, atol=1e-4)
    assert len(encoder.one_clip.recorded) == 2 and not encoder.one_clip.fails
    encoder.whisper.layers[0].register_forward_hook(lambda *_: None)
    with torch.no_grad():
        assert encoder.one_clip(torch.zeros(1, 10, encoder.whisper.config.d_model)) is None


@on_a_gpu
def test_one_clip_is_heard_the_same_when_it_is_recorded():
    encoder = ASRModel.from_pretrained("tiny", device="cuda", dtype="bfloat16").encoder
    exact = ASRModel.from_pretrained("tiny", dtype="float32").encoder
    for seconds in (0.7, 2.3, 6.0, 2.3):
        mel = features(seconds)
        plain = encoder(mel.cuda())  # with gradients allowed nothing is recorded
        with torch.no_grad():
            recorded, true = encoder(mel.cuda()).float().cpu(), exact(mel)
        # Other kernels round otherwise; neither may be farther from float32 than that.
        error, usual = ((x - true).square().mean().sqrt() for x in (recorded, plain.float().cpu()))
        assert error < 1.2 * usual, f"{error} and {usual} from float32"
    assert len(encoder.one_clip.recorded) == 2 and not encoder.one_clip.fails


@on_a_gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("lengths", [[7], [9, 4, 6]], ids=str)
def test_a_gpus_logits_are_the_librarys(compiled, lengths):
    model = fresh().cuda()
    theirs = logits(model.decoder.language_model, "library", lengths)
    if compiled:
        compile_layers(model)
    for way in ("lean", "plain"):
        ours = logits(model.decoder.language_model, way, lengths)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
