"""The shape contract: every stage is produced, checked, documented, and drawn from real sizes."""

from dataclasses import replace

import pytest
import torch
from fixtures_models import (
    ARCHITECTURES,
    ENCODER_DIM,
    LLM_DIM,
    human_clips,
    noise,
    pair,
    some_noises,
    talkative,
)

from tiny_asr import ASRModel, AudioEncoder, AudioProjector, log_mel, sample_clip, trace_clip
from tiny_asr.figures.tables import Table, axes_table, contract_table
from tiny_asr.projector import stack_frames
from tiny_asr.shapes import AXES, CONTRACT, RELATIONS, ShapeError, Stage, keep, record, stage

RATE = 16_000


@pytest.fixture(scope="module")
def trace():
    return trace_clip(talkative(), noise(3), RATE)


# What is traced --------------------------------------------------------------------------------


def test_the_contract_uses_declared_symbols_only():
    for name, line in CONTRACT.items():
        assert line.name == name
        symbols = {
            part for axis in line.axes for term in axis.split("+") for part in term.split("*")
        }
        assert symbols <= set(AXES)
        assert line.kind in ("float", "int")
        assert line.meaning
    assert set(RELATIONS) <= set(AXES)


def test_a_trace_has_every_stage_but_the_one_of_training(trace):
    assert list(trace.stages) == [name for name in CONTRACT if name != "text_logits"]


def test_training_makes_the_last_stage():
    model = pair()
    batch = model.processor(some_noises(), ["the cat", "", "sat", "on"], RATE)
    with record(model) as recorder:
        model(**batch)
    labels = batch["labels"]
    expected = (*labels.shape, model.config.vocab_size)
    assert recorder.stages["text_logits"].tensor.shape == expected
    assert (recorder.sizes["B"], recorder.sizes["L"]) == tuple(labels.shape)
    between = ["conv1", "conv2", "encoder_output", "stacked_frames", "audio_embeddings"]
    assert [name for name in recorder.stages if name != "text_logits"] == between


def test_three_seconds(trace):
    """The numbers of the workshop: 48 000 samples become 30 audio embeddings."""
    tokens, prompt = len(trace.tokens), talkative().decoder.prompt_length
    vocabulary = talkative().config.vocab_size
    assert {name: tuple(kept.tensor.shape) for name, kept in trace.stages.items()} == {
        "waveform": (1, 48_000),
        "log_mel": (1, 80, 300),
        "conv1": (1, ENCODER_DIM, 300),
        "conv2": (1, ENCODER_DIM, 150),
        "encoder_output": (1, 150, ENCODER_DIM),
        "stacked_frames": (1, 30, 5 * ENCODER_DIM),
        "audio_embeddings": (1, 30, LLM_DIM),
        "decoder_input": (1, prompt + 30, LLM_DIM),
        "next_token_logits": (1, vocabulary),
        "token_ids": (1, tokens),
    }
    sizes = trace.sizes
    assert (sizes["S"], sizes["F"], sizes["T"], sizes["A"]) == (48_000, 300, 150, 30)


@pytest.mark.parametrize("samples", [1, 1_600, 20_000, 95_999])
def test_the_time_axes_follow_from_one_another(samples):
    sizes = trace_clip(pair(), noise(6)[:samples], RATE).sizes
    assert sizes["S"] == -(-samples // 1_600) * 1_600
    assert sizes["F"] == sizes["S"] / 160
    assert sizes["T"] == sizes["F"] / 2
    assert sizes["A"] == sizes["T"] / 5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_trace_tells_what_the_model_does(architecture):
    model, clip = talkative(architecture), noise(1.3)
    trace = trace_clip(model, clip, RATE)
    torch.testing.assert_close(trace["encoder_output"], model.encode(clip, RATE))
    with torch.no_grad():
        expected = model.audio_projector(model.encode(clip, RATE))
    torch.testing.assert_close(trace["audio_embeddings"], expected)
    assert trace.text == model.transcribe(clip, RATE) != ""
    assert trace["next_token_logits"].argmax() == trace["token_ids"][0, 0]
    assert trace["token_ids"][0].tolist() == model.generate([clip])[0].tolist()
    assert len(trace.tokens) == trace["token_ids"].shape[1]
    assert trace.seconds_of_audio == pytest.approx(1.3)
    assert trace.untrained == ("projector",)
    assert trace.names == {"encoder": model.config.encoder, "decoder": model.config.decoder}


def test_the_first_clip_and_a_real_encoder(shared):
    encoder = shared / "weights" / "whisper-tiny.en"
    model = ASRModel.from_pretrained("tiny", encoder=encoder)
    trace = trace_clip(model, human_clips(shared)[0], RATE)
    assert trace["encoder_output"].shape == (1, 295, 384)  # 5.855 s, padded to 5.9 s
    assert trace.sizes["A"] == 59
    assert trace_clip(model, sample_clip()).sizes["T"] % 5 == 0


def test_tensors_are_kept_as_float32_without_a_graph():
    model = ASRModel(pair().config, torch.bfloat16)
    for name, kept in trace_clip(model, noise(1), RATE).stages.items():
        integers = CONTRACT[name].kind == "int"
        assert kept.tensor.dtype == (torch.int64 if integers else torch.float32)
        assert not kept.tensor.requires_grad


def test_the_stages_come_in_the_order_of_time(trace):
    seconds = [kept.seconds for kept in trace.stages.values()]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0


def test_a_clip_over_30_s_is_refused():
    with pytest.raises(ValueError, match="expected at most 30 s"):
        trace_clip(pair(), torch.zeros(30 * RATE + 1), RATE)


# Checking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("log_mel", torch.zeros(80, 300), r"\(80, 300\).*expected \(B, M, F\): 3 axes, not 2"),
        ("log_mel", torch.zeros(1, 128, 300), r"with M = 80, not 128"),
        ("log_mel", torch.zeros(1, 80, 300).long(), r"int64; expected \(B, M, F\) of kind float"),
        ("token_ids", torch.zeros(1, 5), r"float32; expected \(B, L\) of kind int"),
        ("encoder_output", torch.zeros(1, 150, 49), f"with encoder_dim = {ENCODER_DIM}, not 49"),
        ("stacked_frames", torch.zeros(1, 30, 48), r"audio_downsample_rate\*encoder_dim = 240"),
        ("next_token_logits", torch.zeros(1, 9), "with V = "),
    ],
)
def test_a_tensor_that_breaks_the_contract_is_refused(name, tensor, message):
    with record(pair()), pytest.raises(ShapeError, match=message):
        keep(name, tensor)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("log_mel", (1, 80, 299), "with F = 300, not 299"),
        ("log_mel", (2, 80, 300), "with B = 1, not 2"),
        ("conv2", (1, ENCODER_DIM, 149), "with T = 150, not 149"),
        ("audio_embeddings", (1, 29, LLM_DIM), "with A = 30, not 29"),
        ("decoder_input", (1, 30, LLM_DIM), r"with P\+A = "),
    ],
)
def test_axes_must_agree_with_what_came_before(name, shape, message):
    before = {
        "waveform": (1, 48_000),
        "log_mel": (1, 80, 300),
        "encoder_output": (1, 150, ENCODER_DIM),
        "audio_embeddings": (1, 30, LLM_DIM),
    }
    with record(pair()):
        for earlier in CONTRACT:
            if earlier == name:
                break
            if earlier in before:
                keep(earlier, torch.zeros(before[earlier]))
        with pytest.raises(ShapeError, match=message):
            keep(name, torch.zeros(shape))


def test_a_model_that_breaks_the_contract_is_caught():
    """The assertion is in the running model, not in the test's own calls of it."""
    model = ASRModel(pair().config)
    model.audio_projector.linear2 = torch.nn.Linear(1_024, LLM_DIM + 1)
    model.audio_projector.output_norm = torch.nn.Identity()
    with pytest.raises(ShapeError, match=r"audio_embeddings.*llm_dim = 32, not 33"):
        trace_clip(model, noise(1), RATE)


def test_a_shape_error_is_a_value_error():
    assert issubclass(ShapeError, ValueError)


def test_outside_of_a_recording_nothing_is_checked():
    wrong = torch.zeros(3)
    assert keep("log_mel", wrong) is wrong


def test_a_recording_ends_with_its_block_even_by_an_error():
    with pytest.raises(RuntimeError), record(pair()):
        raise RuntimeError
    with pytest.raises(ShapeError), record(pair()):
        keep("log_mel", torch.zeros(3))
    assert keep("log_mel", torch.zeros(3)).shape == (3,)


def test_recordings_can_be_nested():
    with record(pair()) as outer:
        keep("waveform", torch.zeros(1, 1_600))
        with record(pair()) as inner:
            keep("waveform", torch.zeros(2, 3_200))
        keep("log_mel", torch.zeros(1, 80, 10))
    assert (inner.sizes["S"], list(inner.stages)) == (3_200, ["waveform"])
    assert (outer.sizes["S"], list(outer.stages)) == (1_600, ["waveform", "log_mel"])


def test_of_a_stage_that_comes_again_the_first_is_kept():
    with record(pair()) as recorder:
        keep("waveform", torch.zeros(1, 1_600))
        keep("waveform", torch.ones(1, 1_600))
    assert not recorder.stages["waveform"].tensor.any()


# Documentation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (log_mel, "log_mel"),
        (AudioEncoder.forward, "encoder_output"),
        (stack_frames, "stacked_frames"),
        (AudioProjector.forward, "audio_embeddings"),
    ],
)
def test_docstrings_carry_the_contracts_line(function, name):
    line = CONTRACT[name]
    assert f"`{name}` of the shape contract: {line.shape} {line.kind}" in function.__doc__
    assert line.meaning in function.__doc__
    assert function.__doc__.strip().splitlines()[0].strip()  # and still says what it does


def test_a_changed_contract_changes_the_docstring(monkeypatch):
    line = Stage("log_mel", ("B", "F", "M"), "int", "something else")
    monkeypatch.setitem(CONTRACT, "log_mel", line)

    @stage("log_mel")
    def features(one):
        """Make features."""
        return one, "more"

    assert features.__doc__.startswith("Make features.")
    assert "(B, F, M) int, something else." in features.__doc__
    assert features.__name__ == "features"
    with record(pair()) as recorder:
        assert features(torch.zeros(1, 10, 80).long())[1] == "more"
        with pytest.raises(ShapeError):
            recorder.stages.clear()
            features(torch.zeros(1, 10, 80))


# Tables ----------------------------------------------------------------------------------------


def test_the_text_fits_a_terminal(trace):
    everything = replace(trace, untrained=("encoder", "decoder", "projector"))
    for shown in (trace, everything):
        assert max(map(len, str(shown).splitlines())) <= 80
    for name in trace.stages:
        assert f"\n{name} " in f"\n{trace}"
    assert "1 x 48000" in str(trace)
    assert "16 000 numbers/s" in str(trace)
    assert "untrained: projector" in str(trace)
    assert "untrained" not in str(replace(trace, untrained=()))


def test_the_table_of_a_trace(trace):
    rows = {row["stage"]: row for row in trace.rows()}
    assert list(rows) == list(trace.stages)
    assert rows["audio_embeddings"] == {
        "stage": "audio_embeddings",
        "axes": "(B, A, llm_dim)",
        "shape": f"1 x 30 x {LLM_DIM}",
        "numbers/s": f"{10 * LLM_DIM}",
        "meaning": CONTRACT["audio_embeddings"].meaning,
    }
    html = Table(trace.rows())._repr_html_()
    assert html.count("<tr>") == len(rows) + 1
    assert all(f">{name}<" in html for name in rows)


def test_html_is_escaped(trace):
    first = trace.rows()[0]
    html = Table([first | {"meaning": "<b>a & b</b>"}])._repr_html_()
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in html
    assert "<b>" not in html


def test_the_tables_of_the_contract():
    assert [row["stage"] for row in contract_table().rows] == list(CONTRACT)
    some = contract_table("log_mel", "encoder_output")
    assert [row["shape"] for row in some.rows] == ["(B, M, F)", "(B, T, encoder_dim)"]
    text = str(some).splitlines()
    assert len(text) == 3
    assert text[0].split() == ["stage", "shape", "kind", "meaning"]
    assert {row["axis"]: row["counts"] for row in axes_table().rows} == AXES
