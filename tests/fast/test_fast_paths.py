"""What makes it fast changes nothing: compiled layers, recorded steps, memory saved, work counted.

Speed itself is shown by `tiny-asr benchmark`. The tests that need a GPU run where there is one.
"""

import copy
import inspect
import math
import sys
from itertools import count, zip_longest
from types import SimpleNamespace

import pytest
import torch
from fixtures_models import (
    LLM_DIM,
    decoder_of,
    encoder_dir,
    noise,
    pair,
    strengthen,
    talkative,
    talkative_decoder_dir,
)
from small_runs import small_run
from transformers import GPT2Config, GPT2LMHeadModel

from tiny_asr import ASRConfig, ASRModel, TextDecoder, load_audio
from tiny_asr.audio import pad_batch
from tiny_asr.bench.random_pair import PROMPT_TOKENS, write_random_pair
from tiny_asr.bench.stages import Ceilings, ceilings
from tiny_asr.cli.options import memory_bytes
from tiny_asr.decoder import most_columns, token_loss
from tiny_asr.device import Choice, send
from tiny_asr.evaluation.score import evaluate
from tiny_asr.fast.activations import (
    EVALUATED_SECONDS,
    compute_twice,
    kept_bytes_per_second,
    make_it_fit,
    ready_bytes_between_steps,
)
from tiny_asr.fast.compiling import compile_layers
from tiny_asr.fast.outcomes import Outcome, Outcomes
from tiny_asr.fast.packing import Packing
from tiny_asr.fast.ready_caches import MOST_CACHES, numbers_per_position, ready_bytes, whole_columns
from tiny_asr.hub import sample_clip
from tiny_asr.kv_cache import KVCache
from tiny_asr.shapes import frame_mask
from tiny_asr.training.trainer import Trainer

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
DEVICES = ("cpu", pytest.param("cuda", marks=on_a_gpu))
LENGTHS = (0.7, 2.3, 1.6)  # seconds
TEXTS = ["the cat sat", "on a mat", "and slept all day"]


@pytest.fixture(autouse=True)
def any_distutils(monkeypatch):
    """To compile for a CPU, PyTorch imports setuptools, which insists on being before distutils
    (Python 3.11 still has it); some other test may have imported that."""
    if sys.version_info < (3, 12):
        monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")


def fresh() -> ASRModel:
    """A talkative model that a test may change."""
    config = ASRConfig(encoder=encoder_dir(), decoder=talkative_decoder_dir())
    return strengthen(ASRModel(config))


def clips(*lengths: float) -> list[torch.Tensor]:
    return [noise(seconds, seed) for seed, seconds in enumerate(lengths)]


def loss_and_gradients(model: ASRModel, *lengths: float) -> tuple[float, list[torch.Tensor]]:
    """One training step's loss and the projector's gradients, through every part of the model."""
    padded, samples = pad_batch(clips(*lengths), model.config.samples_per_embedding)
    labels = model.processor.labels(
        ["the cat sat", "on a mat", "and slept all day"][: len(lengths)]
    )
    frames, own = model.encode_batch(padded, samples)
    audio = model.audio_projector(frames)
    own = own // model.config.audio_downsample_rate
    labels = labels.to(audio.device)
    loss = token_loss(model.decoder.text_logits(audio, own, labels), labels)
    weights = list(model.audio_projector.parameters())
    return loss.item(), list(torch.autograd.grad(loss, weights))  # leaves nothing in the model


def assert_same_step(model: ASRModel, other: ASRModel, *lengths: float) -> None:
    loss, gradients = loss_and_gradients(model, *lengths)
    plain_loss, plain = loss_and_gradients(other, *lengths)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    for gradient, expected in zip(gradients, plain, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5 * expected.abs().max())


# Compiled layers ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_layers_train_and_write_as_plain_ones_do():
    model = fresh()
    compile_layers(model)
    for lengths in (LENGTHS, LENGTHS[:2]):
        assert_same_step(model, talkative(), *lengths)
    for _ in range(2):  # the first prompt of a cache is read by plain layers
        written = model.generate(clips(*LENGTHS), 6)
        for ids, expected in zip(written, talkative().generate(clips(*LENGTHS), 6), strict=True):
            assert torch.equal(ids, expected)


@pytest.fixture
def traced_only(monkeypatch):
    """Compiling as far as the code is made for a machine, which takes a minute."""
    compiled = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda forward, options=None, **more: compiled(forward, backend="eager")
    )


def test_each_kind_of_layer_is_compiled_once_and_not_each_layer(traced_only):
    from torch._dynamo.utils import counters

    model = fresh()
    compile_layers(model)
    torch._dynamo.reset()
    counters.clear()
    cache = KVCache(model.decoder.language_model, 3, 16)
    prompt = model.decoder.embed(torch.arange(18).view(3, 6))
    for _ in range(2):
        cache.read_prompt(prompt, torch.tensor([6, 6, 6]))
        cache.read(prompt[:, :1])
    # With and without rotary positions; the prompt, a first step, and one of any length.
    assert counters["stats"]["unique_graphs"] <= 6 < 2 * len(model.decoder.layers)


def test_layers_are_found_and_compiled_whatever_a_model_calls_them(traced_only):
    """GPT-2 has its layers in `h`, and hands its cache over by position."""
    ids = {"bos_token_id": 0, "eos_token_id": 1}
    config = GPT2Config(vocab_size=300, n_embd=LLM_DIM, n_layer=2, n_head=2, **ids)
    directory = decoder_of(GPT2LMHeadModel(config), "gpt2 to compile")
    model = strengthen(ASRModel(ASRConfig(encoder=encoder_dir(), decoder=directory)))
    assert model.decoder.layers is model.decoder.language_model.transformer.h
    expected = model.generate(clips(*LENGTHS), 4)
    compile_layers(model)
    for _ in range(2):
        for ids, plain in zip(model.generate(clips(*LENGTHS), 4), expected, strict=True):
            assert torch.equal(ids, plain)


@on_a_gpu
def test_beams_and_hints_on_a_gpu_write_what_they_do_on_a_cpu():
    model = fresh().to("cuda")
    search = {"beams": 4, "hints": ["the cat", "mat"]}
    expected = talkative().generate(clips(*LENGTHS), **search)
    for _ in range(2):  # the second time from caches that lay ready
        for ids, plain in zip(model.generate(clips(*LENGTHS), **search), expected, strict=True):
            assert torch.equal(ids, plain)


# Caches that lie ready ---------------------------------------------------------------------------


class Played:
    """What a recorded step is to its caller, on a machine that can record none."""

    def __init__(self, step, first, state):
        self.step = step

    def __call__(self, value):
        return self.step(value)


@pytest.fixture
def as_on_a_gpu(monkeypatch) -> ASRModel:
    """A model that writes from leased caches with recorded steps."""
    model, _ = fresh(), talkative()  # both are made before anything pretends
    on_a_gpu = SimpleNamespace(is_cuda=True)
    monkeypatch.setattr("tiny_asr.kv_cache.RecordedStep", Played)
    monkeypatch.setattr(TextDecoder, "token_embeddings", property(lambda decoder: on_a_gpu))
    return model


def test_texts_that_are_written_at_the_same_time_share_no_cache(as_on_a_gpu):
    model, sounds = as_on_a_gpu, [noise(1.0), -0.2 * noise(1.2, 4)]
    alone = ["".join(talkative().stream(sound, 16_000)) for sound in sounds]
    assert ["".join(model.stream(sound, 16_000)) for sound in sounds] == alone
    assert alone[0] != alone[1]
    assert len(model.decoder.ready_caches.ready) == 1  # the second one took the first one's
    streams = [model.stream(sound, 16_000) for sound in sounds]
    written = ["", ""]
    for pieces in zip_longest(*streams, fillvalue=""):
        written = [text + piece for text, piece in zip(written, pieces, strict=True)]
    assert written == alone


def test_a_cache_comes_back_from_a_text_that_nobody_reads_to_its_end(as_on_a_gpu):
    model = as_on_a_gpu
    stream = model.stream(clips(1.0)[0], 16_000)
    next(stream)
    assert model.decoder.ready_caches.ready == []
    stream.close()
    assert len(model.decoder.ready_caches.ready) == 1


def test_few_caches_lie_ready_and_no_more_than_are_counted(as_on_a_gpu):
    model = as_on_a_gpu
    language_model, prompt = model.decoder.language_model, model.decoder.prompt_length
    for rows in range(1, MOST_CACHES + 3):
        model.generate(clips(1.0) * rows, 2)
    ready = [cache for _, cache in model.decoder.ready_caches.ready]
    assert [len(cache.rows) for cache in ready] == [3, 4, 5, 6]  # the latest ones
    lie = sum(tensor.nbytes for cache in ready for pair in cache.buffers for tensor in pair)
    counted = ready_bytes(
        numbers_per_position(language_model), 4, MOST_CACHES + 2, most_columns(prompt, 10)
    )
    assert 0.7 * counted < lie <= counted


def test_the_memory_check_counts_caches_on_a_gpu_only():
    config = ASRConfig.from_pretrained("full")
    gpu, cpu = (
        memory_bytes(config, Choice(torch.device(kind), torch.bfloat16, ""))
        for kind in ("cuda", "cpu")
    )
    position = 2 * 36 * 4 * 128 * 2  # keys and values of 4 heads in 36 layers, 2 bytes each
    assert gpu - cpu == 4 * 8 * 640 * position  # four caches for eight pieces of 30 s


def test_training_counts_the_caches_of_the_evaluation_between_its_steps(monkeypatch):
    model = fresh()
    width = 4 * numbers_per_position(model.decoder.language_model)
    columns = whole_columns(model.decoder.prompt_length + 50 + 50 + 8)  # of 5 s
    assert ready_bytes_between_steps(model) == 4 * 24 * columns * width
    seconds = inspect.signature(evaluate).parameters["batch_seconds"].default
    assert seconds == EVALUATED_SECONDS
    step = 10.0 * kept_bytes_per_second(model)
    monkeypatch.setattr("tiny_asr.fast.activations.free_bytes", lambda device: int(1.3 * step))
    monkeypatch.setattr("tiny_asr.fast.activations.ready_bytes_between_steps", lambda model: 0)
    assert "computed twice" not in make_it_fit(model, 10.0)
    monkeypatch.undo()
    monkeypatch.setattr("tiny_asr.fast.activations.free_bytes", lambda device: int(1.3 * step))
    assert "computed twice" in make_it_fit(model, 10.0)


# Memory ------------------------------------------------------------------------------------------


def test_computing_twice_changes_nothing_but_what_is_kept():
    model = fresh()
    before = kept_bytes_per_second(model)
    compute_twice(model.decoder)
    assert_same_step(model, talkative(), *LENGTHS)
    assert kept_bytes_per_second(model) < 0.6 * before


def test_what_is_kept_is_counted_per_second_and_without_the_weights():
    kept, config = kept_bytes_per_second(pair()), pair().config.decoder_config
    positions = 10 + 3.6  # a second, beside the prompt
    layers, wide = config.num_hidden_layers, config.intermediate_size
    assert kept > 4 * positions * layers * 2 * wide  # the MLP's two products at least, float32
    assert kept < 4 * positions * layers * 60 * (config.hidden_size + wide)


# Packing -----------------------------------------------------------------------------------------


def test_packed_clips_lie_one_behind_the_other_and_come_back_padded_with_zeros():
    padded = torch.randn(3, 5, 2)
    packing = Packing(frame_mask(torch.tensor([2, 5, 3]), 5), torch.device("cpu"))
    packed = packing.pack(padded)
    assert torch.equal(packed[0], torch.cat([padded[0, :2], padded[1], padded[2, :3]]))
    assert packing.attention["starts"].tolist() == [0, 2, 7, 10]
    assert packing.attention["longest"] == 5
    back = packing.unpack(packed)
    assert torch.equal(back[1], padded[1]) and torch.equal(back[0, :2], padded[0, :2])
    assert not back[0, 2:].any() and not back[2, 3:].any()


# Outcomes ----------------------------------------------------------------------------------------


def test_outcomes_come_in_order_and_at_once_on_a_cpu():
    outcomes = Outcomes()
    for step in range(3):
        outcomes.add(torch.tensor(float(step)), torch.tensor(math.inf), 10, 1e-3)
    assert list(outcomes.arrived()) == [
        Outcome(float(step), math.inf, 10, 1e-3) for step in range(3)
    ]
    assert list(outcomes.arrived(everything=True)) == []


# Work and ceilings ------------------------------------------------------------------------------


def test_a_floor_is_the_slower_of_computing_and_reading():
    limits = Ceilings(flops=100.0, bytes=10.0)
    assert limits.floor(200.0) == 2.0
    assert limits.floor(200.0, 50.0) == 5.0
    measured = ceilings(torch.device("cpu"), torch.float32)
    assert 1e9 < measured.flops < 1e14 and 1e8 < measured.bytes < 1e13


# A random pair -----------------------------------------------------------------------------------


def test_a_random_pair_has_the_sizes_of_the_model_and_loads_from_its_folder(tmp_path):
    folder = write_random_pair(tmp_path / "pair", "tiny", torch.device("cpu"), torch.float32)
    model = ASRModel.from_pretrained(folder)
    bundled = ASRModel.from_pretrained("tiny")
    for part in ("encoder", "decoder", "audio_projector"):
        sizes = [p.shape for p in getattr(model, part).parameters()]
        assert sizes == [p.shape for p in getattr(bundled, part).parameters()]
    assert model.untrained == ("projector",)
    assert model.decoder.prompt_length == PROMPT_TOKENS
    weights = copy.deepcopy(model.decoder.token_embeddings)
    assert not torch.allclose(weights, bundled.decoder.token_embeddings)


# On a GPU ----------------------------------------------------------------------------------------


@on_a_gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_writes_the_same_text_from_recorded_steps(compiled, monkeypatch):
    played = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda graph: (played.append(graph), replay(graph))
    )
    sound = load_audio(sample_clip())
    pieces = [sound, sound[:20_000], sound[10_000:]]
    expected = ASRModel.from_pretrained("tiny").transcribe(pieces, 16_000)
    model = ASRModel.from_pretrained("tiny", device="cuda", dtype="float32")
    if compiled:
        compile_layers(model)
    for _ in range(3):  # recorded, then played again
        assert model.transcribe(pieces, 16_000) == expected
        assert "".join(model.stream(sound, 16_000)) == expected[0]
    assert len(played) > 10 * len(set(map(id, played))) > 0  # each is recorded once


@on_a_gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpus_step_is_the_cpus(compiled):
    model = fresh().cuda()
    if compiled:
        compile_layers(model)
    loss, gradients = loss_and_gradients(model, *LENGTHS)
    plain_loss, plain = loss_and_gradients(talkative(), *LENGTHS)
    assert loss == pytest.approx(plain_loss, rel=1e-4)
    for gradient, expected in zip(gradients, plain, strict=True):
        limit = 1e-3 * expected.abs().max()
        torch.testing.assert_close(gradient.cpu(), expected, rtol=1e-2, atol=limit)


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_step_never_waits_for_the_gpu(device, tmp_path):
    """On a CPU there is nothing to wait for, but so this test is known to watch some steps."""
    never = dict.fromkeys(("log_every", "save_every", "eval_every"), 10**9)
    run = small_run(tmp_path / "run", device=device, max_utterances=18, **never)
    trainer, steps = Trainer(run, say=lambda line: None), []

    def watch(*_) -> None:
        steps.append("the first takes memory, the last one is logged and saved")
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error" if 1 < len(steps) < 6 else "default")

    trainer.model.audio_projector.register_forward_hook(watch)
    try:
        trainer.train()
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert len(steps) > 5


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_that_is_not_finite_is_left_out(device, tmp_path):
    weights, step = [], count(1)

    def remember(state, model) -> None:
        weights.append([weight.detach().clone() for weight in model.audio_projector.parameters()])

    run = small_run(tmp_path / "run", device=device, log_every=1, max_utterances=9)
    trainer = Trainer(run, say=lambda line: None, on_log=remember)
    spoil, weight = {2: math.nan}, next(trainer.model.audio_projector.parameters())
    weight.register_hook(lambda g: g * spoil.get(next(step), 1.0))
    assert trainer.train().skipped == 1
    first, second, third = weights
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not torch.equal(second[0], third[0])


def test_sending_to_a_cpu_copies_nothing():
    tensor = torch.zeros(3)
    assert send(tensor, torch.device("cpu")) is tensor


@on_a_gpu
def test_packed_clips_are_heard_as_exactly_as_padded_ones():
    model, precise = (
        ASRModel.from_pretrained("tiny", device="cuda", dtype=dtype)
        for dtype in ("bfloat16", "float32")
    )
    padded, samples = pad_batch(clips(*LENGTHS), model.config.samples_per_embedding)
    exact, frames = precise.encode_batch(padded, samples)
    packed, _ = model.encode_batch(padded, samples)
    model.encoder.whisper.set_attn_implementation("sdpa")
    masked, _ = model.encode_batch(padded, samples)
    own = frame_mask(frames, packed.shape[1]).cuda()
    assert not packed[~own].any()
    errors = [(output - exact)[own].square().mean().sqrt() for output in (packed, masked)]
    assert errors[0] < 1.1 * errors[1]


@on_a_gpu
@pytest.mark.slow
def test_full_size_logits_are_as_near_to_float32_as_plain_bfloat16(tmp_path):
    device = torch.device("cuda")
    folder = write_random_pair(tmp_path / "pair", "full", device, torch.bfloat16)
    labels = torch.randint(5, 2000, (3, 12), device=device)
    padded, samples = pad_batch(clips(*LENGTHS), 1600)

    def logits(dtype: str, compiled: bool = False, plain: bool = False) -> torch.Tensor:
        model = ASRModel.from_pretrained(folder, device="cuda", dtype=dtype)
        if compiled:
            compile_layers(model)
        if plain:
            model.encoder.whisper.set_attn_implementation("sdpa")
        with torch.no_grad():
            frames, own = model.encode_batch(padded, samples)
            audio, own = model.audio_projector(frames), own // 5
            if not plain:
                return model.decoder.text_logits(audio, own, labels).float()
            text = torch.ones_like(labels, dtype=torch.bool)
            spliced = model.decoder.splice(audio, own, labels, text)
            scored = model.decoder.language_model(
                inputs_embeds=spliced.embeddings, attention_mask=spliced.mask.long()
            ).logits.float()
            first = (model.decoder.prompt_length + own - 1).to(device)
            place = first[:, None] + torch.arange(labels.shape[1], device=device)
            return scored.gather(1, place[..., None].expand(-1, -1, scored.shape[2]))

    exact = logits("float32", plain=True)
    error = {
        "plain": logits("bfloat16", plain=True) - exact,
        "fast": logits("bfloat16") - exact,
        "compiled": logits("bfloat16", compiled=True) - exact,
    }
    size = {name: value.square().mean().sqrt().item() for name, value in error.items()}
    print({name: f"{value:.4f}" for name, value in size.items()}, f"of {exact.std().item():.2f}")
    assert size["fast"] < 1.1 * size["plain"] and size["compiled"] < 1.1 * size["plain"]
