"""Notebook 04's measurements, each against another way to the same number."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from fixtures_models import noise, talkative

from tiny_asr import ASRModel, load_audio, sample_clip
from tiny_asr.course import lesson_04_verdict as verdict
from tiny_asr.course import lesson_04_writing as writing
from tiny_asr.course import puzzle
from tiny_asr.course.checks import judge_of
from tiny_asr.figures import plots

SENTENCE = "she listens to the sea and its waves turn into words"


@cache
def tiny() -> ASRModel:
    return ASRModel.from_pretrained("tiny")


@pytest.fixture(scope="module")
def model() -> ASRModel:
    return talkative()


@pytest.fixture(scope="module")
def written(model) -> writing.Written:
    return writing.watch(model, noise(1.77))


# Tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [" listens", "listens", " zanzibar", " a", "x", " could"])
def test_merging_step_by_step_ends_at_the_tokenizers_own_pieces(word):
    tokenizer = tiny().processor.tokenizer
    lines = [line.split("  ") for line in writing.merge_steps(tokenizer, word)]
    assert lines[0] == list(word.replace(" ", "␣"))
    assert lines[-1] == [piece.replace("Ġ", "␣") for piece in tokenizer.tokenize(word)]
    assert [len(line) for line in lines] == list(range(len(word), len(lines[-1]) - 1, -1))


@pytest.mark.parametrize("text", [SENTENCE, "café 🙂", "naïve œuvre", "line\nline", "Ünder 42"])
def test_pieces_put_together_are_the_text(text):
    tokenizer = tiny().processor.tokenizer
    pieces = writing.pieces_of(tokenizer, text)
    assert [number for _, number in pieces] == tokenizer(text).input_ids
    raw = b"".join(
        bytes.fromhex("".join(re.findall("<(..)>", piece)))
        if piece.startswith("<")
        else piece.replace("␣", " ").replace("↵", "\n").encode()
        for piece, _ in pieces
    )
    assert raw.decode() == text.lower()


def test_a_name_shows_spaces_and_the_end():
    model = tiny()
    assert writing.name_of(model, model.decoder.end_id) == "(end)"
    (sea,) = model.processor.tokenizer(" sea").input_ids
    assert writing.name_of(model, torch.tensor(sea)) == "␣sea"
    assert writing.seen("a long piece", longest=6) == "a␣lon…"


# What is read ------------------------------------------------------------------------------------


def test_heard_is_the_projected_encoder_output_and_the_same_in_a_batch(model):
    clips = [noise(1.77), noise(0.53)]
    embeddings, lengths = writing.heard(model, clips)
    assert lengths.tolist() == [18, 6]
    for row, length, clip in zip(embeddings, lengths, clips, strict=True):
        with torch.no_grad():
            alone = model.audio_projector(model.encode(clip, 16_000))[0]
        torch.testing.assert_close(row[:length], alone, atol=1e-4, rtol=1e-4)


def test_nudges_agree_with_one_replacement_by_hand_and_never_reach_back(model):
    inputs = model.decoder.splice(*writing.heard(model, [noise(0.53)])).embeddings
    changes = writing.nudges(model, inputs)
    length = inputs.shape[1]
    assert changes.shape == (length, length)
    assert changes.triu(1).max() == 0 and changes.diagonal().min() > 0.01
    strange = torch.randn(inputs.shape[2], generator=torch.Generator().manual_seed(0))
    replaced = inputs.clone()
    replaced[0, 4] = strange / strange.norm() * inputs[0].norm(dim=1).mean()
    with torch.no_grad():
        before, after = (
            model.decoder.language_model.model(inputs_embeds=x).last_hidden_state[0]
            for x in (inputs, replaced)
        )
    expected = (after - before).norm(dim=1) / before.norm(dim=1)
    torch.testing.assert_close(changes[:, 4], expected, atol=1e-4, rtol=1e-3)


def test_causal_draws_the_lower_triangle_and_tells_what_was_measured():
    changes = torch.full((6, 6), 0.25).tril()
    parts = {"prompt": 1, "audio": 3, "prompt again": 1, "text": 1}
    figure = writing.causal(parts, changes)
    picture = figure.axes[0].images[0].get_array()
    white = (np.asarray(picture) == 1).all(axis=2)
    assert (white == np.triu(np.ones((6, 6)), 1)).all()
    assert len({tuple(row) for row in picture[5]}) == 3  # prompt, audio, text
    for fact in ("6 by 6", "3 audio", "21 of 36", "0.0% at most", "25.0% in the median"):
        assert fact in figure.alt


# The next token ----------------------------------------------------------------------------------


def test_watch_sees_the_probabilities_of_each_single_step(model, written):
    assert written.tokens.tolist() == model.generate([noise(1.77)])[0].tolist()
    inputs = model.decoder.splice(*writing.heard(model, [noise(1.77)])).embeddings
    for step in range(3):  # each from the beginning, without a cache
        text = model.decoder.embed(written.tokens[None, :step])
        with torch.no_grad():
            output = model.decoder.language_model(inputs_embeds=torch.cat([inputs, text], dim=1))
        expected = output.logits[0, -1].softmax(dim=-1)
        torch.testing.assert_close(written.probabilities[step], expected, atol=1e-4, rtol=1e-3)


def test_candidates_are_the_ten_likeliest_with_the_taken_one_marked(model):
    chances = torch.linspace(0, 1, model.config.vocab_size)
    chances = chances / chances.sum()
    taken = model.config.vocab_size - 3  # the third likeliest
    figure = writing.candidates(model, {"first": chances, "second": chances.flip(0)}, taken)
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx(chances.topk(10).values)
    colors = [bar.get_facecolor() for bar in left.patches]
    assert [colors.count(color) for color in colors].index(1) == 2
    assert len({bar.get_facecolor() for bar in right.patches}) == 1
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels == [writing.name_of(model, token) for token in range(10)]
    assert "first: " in figure.alt and f"{chances.topk(10).values.sum():.1%}" in figure.alt


def test_every_step_has_a_column_for_each_step_but_not_more_than_fit(model, written):
    figure = writing.every_step(model, written)
    shown = min(len(written.tokens), writing.MOST_STEPS)
    assert figure.axes[0].images[0].get_array().shape == (10, shown)
    assert len(figure.axes[0].texts) == 10 * shown
    assert f"at each of {shown} steps" in figure.alt


# Where it looks ----------------------------------------------------------------------------------


def test_gaze_is_the_attention_of_writing_with_a_cache(model, written):
    embeddings, lengths = writing.heard(model, [noise(1.77)])
    decoder, tokens = model.decoder, written.tokens[:4]
    lm = decoder.language_model
    weights = writing.gaze(model, embeddings, tokens)
    assert lm.config._attn_implementation == "sdpa"  # as it was
    assert weights.shape == (4, 4, 18)
    assert weights.min() >= 0 and weights.sum(dim=2).max() < 1  # the rest goes to the prompt
    read, kept = decoder.splice(embeddings, lengths).embeddings, None
    start = decoder.prompt_before.shape[1]
    lm.set_attn_implementation("eager")
    try:
        for step, token in enumerate(tokens):
            with torch.no_grad():
                output = lm(
                    inputs_embeds=read, past_key_values=kept, use_cache=True, output_attentions=True
                )
            for layer, attention in enumerate(output.attentions):
                expected = attention[0, :, -1, start : start + 18].mean(dim=0)
                torch.testing.assert_close(weights[layer, step], expected, atol=1e-4, rtol=1e-3)
            kept, read = output.past_key_values, decoder.embed(token[None, None])
    finally:
        lm.set_attn_implementation("sdpa")


def test_gaze_leaves_the_attention_as_it_was_after_an_error(model):
    embeddings, _ = writing.heard(model, [noise(0.53)])
    with pytest.raises(IndexError):
        writing.gaze(model, embeddings, torch.tensor([1, 10**6, 2]))
    assert model.decoder.language_model.config._attn_implementation == "sdpa"


def test_in_order_is_the_correlation_of_place_and_number():
    places = [0, 2, 1, 5, 7, 3]
    weights = torch.nn.functional.one_hot(torch.tensor([*places, 0]), 9).float()  # the last: end
    expected = np.corrcoef(places, range(6))[0, 1]
    assert writing.in_order(weights) == pytest.approx(expected)
    assert writing.in_order(torch.eye(5)) == pytest.approx(1)
    assert writing.in_order(torch.eye(5)[[4, 3, 2, 1, 0]]) == pytest.approx(-1)
    for dull in (torch.ones(5, 5), torch.ones(2, 5), torch.ones(1, 5)):
        assert writing.in_order(dull) == 0


def test_following_takes_the_layers_in_order_or_else_the_best():
    good, dull = torch.eye(6), torch.ones(6, 6)
    poor = torch.eye(6)[[0, 3, 1, 2, 2, 5]]
    assert 0 < writing.in_order(poor) < writing.IN_ORDER
    assert writing.following(torch.stack([dull, good, poor, good])) == [1, 3]
    assert writing.following(torch.stack([dull, poor, dull])) == [1]


def test_the_bundled_decoder_looks_where_each_token_lies_in_a_note():
    """The claim of the lesson, where the truth is known: a note of three embeddings a token."""
    model = tiny()
    ids = torch.tensor(model.processor.tokenizer([SENTENCE]).input_ids)
    note = model.decoder.embed(ids.repeat_interleave(3, dim=1))
    weights = writing.gaze(model, note, model.processor.labels([SENTENCE])[0])
    layers = writing.following(weights)
    assert len(weights) - 1 in layers and 0 not in layers
    places = weights[layers].mean(dim=0)[:-1].argmax(dim=1)
    assert (places // 3).tolist() == list(range(ids.shape[1]))
    tokens = [int(t) for t in model.decoder.write(note, torch.tensor([note.shape[1]]))]
    assert model.processor.decode(tokens) == SENTENCE


def test_figures_of_attention_tell_the_places_and_are_the_same_each_time(model, written):
    clip, length = noise(1.77), len(written.tokens)
    weights = torch.rand(10, length, 18, generator=torch.Generator().manual_seed(0))
    figure = writing.alignment(model, clip, written, weights[0])
    place = 0.1 * (int(weights[0, 0].argmax()) + 0.5)
    assert f"{written.names[0]} {place:.2f} s" in figure.alt
    dots = figure.axes[1].lines[0].get_xdata()
    assert dots == pytest.approx(0.1 * (weights[0].argmax(dim=1).numpy() + 0.5))
    again = writing.alignment(model, clip, written, weights[0])
    assert plots.png(figure) == plots.png(again)


def test_surprises_draws_each_value_under_its_token():
    rows = {"alone": torch.tensor([3.0, 0.5]), "heard": torch.tensor([1.0, 0.25])}
    figure = writing.surprises(["she", "␣to"], rows)
    bars = [bar.get_height() for bar in figure.axes[0].patches]
    assert bars == pytest.approx([3, 0.5, 1, 0.25])
    assert "alone: she 3.0, ␣to 0.5; heard: she 1.0, ␣to 0.2" in figure.alt


def test_the_sample_clip_can_be_watched_with_the_tiny_pair():
    model, clip = tiny(), load_audio(sample_clip())
    written = writing.watch(model, clip)
    assert written.tokens.tolist() == model.generate([clip])[0].tolist()
    assert len(writing.every_step(model, written).alt) > 60


# Order, surprise ---------------------------------------------------------------------------------


def test_turning_later_changes_nothing_and_not_turning_does(model):
    heard = writing.heard(model, [noise(0.53)])
    inputs, lm = model.decoder.splice(*heard).embeddings, model.decoder.language_model

    def output():
        with torch.no_grad():
            return lm(inputs_embeds=inputs, use_cache=False).logits

    usual = output()
    with verdict.turned(lm, later=100):
        assert torch.allclose(output(), usual, atol=1e-3)
    with verdict.turned(lm, still=True):
        still = output()
    used = [layer.self_attn.use_rope for layer in lm.model.layers]
    for layer in lm.model.layers:
        layer.self_attn.use_rope = 0
    without = output()
    for layer, turns in zip(lm.model.layers, used, strict=True):
        layer.self_attn.use_rope = turns
    assert torch.allclose(still, without, atol=1e-4) and not torch.allclose(still, usual, atol=1e-2)
    assert torch.equal(output(), usual)


def test_the_layers_that_turn_are_those_of_the_model():
    lm = tiny().decoder.language_model
    turn = [str(n) if x.self_attn.use_rope else "-" for n, x in enumerate(lm.model.layers, start=1)]
    assert verdict.turning(lm) == " ".join(turn)


def test_weights_of_the_past_are_the_librarys():
    scores = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.functional.scaled_dot_product_attention(
        scores[None], torch.eye(6)[None], torch.eye(6)[None], is_causal=True, scale=1.0
    )
    assert torch.allclose(verdict.causal_weights(scores), theirs[0], atol=1e-6)


def test_surprise_is_the_training_loss_of_each_text(model):
    audio, lengths = writing.heard(model, [noise(1.77), noise(0.53)])
    texts = ["the sea", "a word or two"]
    rows = verdict.surprise(model, audio, lengths, texts)
    for n, (text, row) in enumerate(zip(texts, rows, strict=True)):
        labels = model.processor.labels([text])
        with torch.no_grad():
            clip = audio[n : n + 1, : lengths[n]]
            loss = model.decoder.text_logits(clip, lengths[n : n + 1], labels)
        assert len(row) == labels.shape[1]
        expected = torch.nn.functional.cross_entropy(loss[0].float(), labels[0], reduction="none")
        torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-4)


def test_surprise_alone_is_the_language_models_own_loss(model):
    ids = torch.tensor(
        [model.processor.tokenizer("\nthe sea\n", add_special_tokens=False).input_ids]
    )
    with torch.no_grad():
        loss = model.decoder.language_model(ids, labels=ids).loss
    assert verdict.surprise_alone(model, "the sea").mean().item() == pytest.approx(
        loss.item(), 1e-4
    )


def test_greedy_writes_what_the_model_writes():
    """The exercise's way, without a cache, on the bundled pair."""
    model = tiny()
    heard = writing.heard(model, [load_audio(sample_clip())])
    reads = model.decoder.splice(*heard).embeddings

    @torch.no_grad()
    def next_logits(ids):
        read = torch.cat([reads, model.decoder.embed(torch.tensor([ids]).long())], dim=1)
        return model.decoder.language_model(inputs_embeds=read).logits[0, -1]

    written = verdict.greedy(next_logits, [], model.decoder.end_id, 40)
    assert model.processor.decode(written) == puzzle.write(model, heard[0])
    assert verdict.greedy(next_logits, [], model.decoder.end_id, 3) == written[:3]


# The exercises' own model ------------------------------------------------------------------------


def test_greedy_is_judged_whatever_kind_of_list_comes_back():
    judge = judge_of("04-greedy")

    def tensor_answer(next_logits, prompt, end, most):
        ids = torch.tensor(prompt)
        while len(ids) < len(prompt) + most:
            token = next_logits(ids).argmax()
            if token == end:
                break
            ids = torch.cat([ids, token[None]])
        return ids[len(prompt) :]

    assert "8 million" in judge(tensor_answer)
