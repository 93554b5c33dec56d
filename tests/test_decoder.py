"""The decoder: the splice by hand, rows in a batch as if alone, writing with a cache as without."""

import pytest
import torch
from checkpoints import SIZES
from fixtures_models import (
    ARCHITECTURES,
    LLM_DIM,
    decoder_dir,
    decoder_of,
    encoder_dir,
    pair,
    talkative,
    talkative_decoder_dir,
)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

from tiny_asr import ASRConfig, ASRModel, TextDecoder
from tiny_asr.decoder import EXTRA_TOKENS, choose_token, token_loss
from tiny_asr.kv_cache import KVCache, kinds_of_attention
from tiny_asr.prompt import AUDIO_MARKER, split_prompt
from tiny_asr.shapes import IGNORE

LENGTHS = torch.tensor([3, 9, 6])  # audio embeddings of the three clips below
ROWS = range(len(LENGTHS))
PROMPTS = ("<audio>Transcript: ", "Transcript: <audio>", "<audio>", "Say <audio>, then stop: ")

both = pytest.mark.parametrize("architecture", ARCHITECTURES)


def audio(scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Audio embeddings (3, 9, llm_dim); what is behind a clip's own length is loud nonsense."""
    embeddings = torch.randn(3, 9, LLM_DIM, generator=torch.Generator().manual_seed(seed))
    beyond = torch.arange(9) >= LENGTHS[:, None]
    return scale * embeddings.masked_fill(beyond[..., None], 50.0)


def own(embeddings: torch.Tensor, row: int) -> torch.Tensor:
    """One clip's own embeddings, as a batch of one."""
    return embeddings[row : row + 1, : LENGTHS[row]]


def labels_of(model, *texts: str) -> torch.Tensor:
    return model.processor(text=list(texts))["labels"]


def decoder_from(language_model, name: str, prompt: str | None = None) -> TextDecoder:
    """Any language model, with the Llama tokenizer and its prompt."""
    directory = decoder_of(language_model, name)
    config = ASRConfig(encoder=encoder_dir(), decoder=directory, prompt=prompt)
    return ASRModel(config).decoder


def plain_row(decoder: TextDecoder, clip: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The whole input of one clip, put together by hand: no padding, no mask, no positions."""
    parts = (decoder.embed(decoder.prompt_before), clip, decoder.embed(decoder.prompt_after))
    return torch.cat([*parts, decoder.embed(text[None])], dim=1)


def write(decoder: TextDecoder, embeddings, lengths, **options) -> list[list[int]]:
    """Each row's tokens as they were yielded."""
    steps = list(decoder.write(embeddings, lengths, **options))
    return torch.stack(steps, dim=1).tolist() if steps else [[] for _ in lengths]


def assert_written_as_alone(decoder: TextDecoder) -> None:
    rows = write(decoder, audio(), LENGTHS)
    for row in ROWS:
        alone = write(decoder, own(audio(), row), LENGTHS[row : row + 1])[0]
        assert rows[row][: len(alone)] == alone


# The splice ------------------------------------------------------------------------------------


@both
def test_the_prompt_is_split_before_it_is_tokenised(architecture):
    model = pair(architecture)
    decoder, tokenizer = model.decoder, model.processor.tokenizer
    before, after = split_prompt(model.config.prompt)
    assert tokenizer.decode(decoder.prompt_before[0]) == before
    assert tokenizer.decode(decoder.prompt_after[0]) == after
    assert decoder.prompt_length == decoder.prompt_before.numel() + decoder.prompt_after.numel()
    assert AUDIO_MARKER not in before + after
    assert decoder.token_embeddings.shape == (model.config.vocab_size, LLM_DIM)


@both
def test_splice_by_hand(architecture):
    decoder, embeddings = pair(architecture).decoder, audio()
    text = torch.tensor([[7, 8, 9], [7, 0, 0], [5, 6, 0]])
    text_mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool()
    spliced = decoder.splice(embeddings, LENGTHS, text, text_mask)
    width = decoder.prompt_length + 9 + 3
    assert spliced.embeddings.shape == (3, width, LLM_DIM)
    assert spliced.mask.shape == (3, width)
    for row in ROWS:
        expected = plain_row(decoder, own(embeddings, row), text[row][text_mask[row]])[0]
        assert torch.equal(spliced.embeddings[row, : len(expected)], expected)  # without a gap
        assert spliced.mask[row].tolist() == [n < len(expected) for n in range(width)]


def test_splice_takes_the_decoders_number_format():
    decoder = TextDecoder(
        AutoModelForCausalLM.from_pretrained(decoder_dir(), dtype=torch.bfloat16),
        AutoTokenizer.from_pretrained(decoder_dir()),
        "<audio>: ",
        "<|im_end|>",
    )
    assert decoder.splice(audio(), LENGTHS).embeddings.dtype == torch.bfloat16


# Scores of a known text ------------------------------------------------------------------------


@both
def test_text_logits_are_a_plain_forward_of_the_language_model(architecture):
    model = pair(architecture)
    labels = labels_of(model, "the cat sat")
    clip = audio()[1:2]
    with torch.no_grad():
        logits = model.decoder.text_logits(clip, LENGTHS[1:2], labels)
        row = plain_row(model.decoder, clip, labels[0])
        plain = model.decoder.language_model(inputs_embeds=row).logits
    first = model.decoder.prompt_length + 9 - 1  # the prompt's last position scores the first token
    assert logits.shape == (1, labels.shape[1], model.config.vocab_size)
    torch.testing.assert_close(logits, plain[:, first:-1], atol=1e-5, rtol=0)


def batch_against_rows(decoder: TextDecoder, embeddings, labels) -> float:
    """The largest difference between a row's logits in the batch and alone."""
    logits = decoder.text_logits(embeddings, LENGTHS, labels)
    furthest = 0.0
    for row in ROWS:
        text = labels[row : row + 1][labels[row : row + 1] != IGNORE][None]
        alone = decoder.text_logits(own(embeddings, row), LENGTHS[row : row + 1], text)
        difference = logits[row, : text.shape[1]] - alone[0]
        furthest = max(furthest, float(difference.detach().abs().max()))
    return furthest


@both
def test_rows_of_a_batch_score_as_if_alone(architecture):
    model = talkative(architecture)
    labels = labels_of(model, "the cat sat on the mat", "", "the other one")
    assert (labels == IGNORE).any() and (labels != IGNORE).any(dim=1).all()
    with torch.no_grad():
        assert batch_against_rows(model.decoder, audio(), labels) < 1e-4


@pytest.mark.parametrize("prompt", PROMPTS)
def test_rows_are_as_if_alone_wherever_the_prompt_has_its_audio(prompt):
    directory = talkative_decoder_dir()
    model = ASRModel(ASRConfig(encoder=encoder_dir(), decoder=directory, prompt=prompt))
    labels = labels_of(model, "the cat sat on the mat", "on", "the other one")
    with torch.no_grad():
        assert batch_against_rows(model.decoder, audio(), labels) < 1e-4
    assert_written_as_alone(model.decoder)


def sliding_decoder(kind: str) -> TextDecoder:
    """A decoder that looks back 16 positions only: in every layer, or in some."""
    torch.manual_seed(0)
    if kind == "every layer":
        config = MistralConfig(vocab_size=300, sliding_window=16, **SIZES)
        language_model = MistralForCausalLM(config)
    else:
        types = ["sliding_attention", "full_attention"]
        sizes = {**SIZES, "num_hidden_layers": 2, "head_dim": 8, "tie_word_embeddings": False}
        config = Gemma3TextConfig(vocab_size=300, sliding_window=16, layer_types=types, **sizes)
        language_model = Gemma3ForCausalLM(config)
    with torch.no_grad():
        for weight in language_model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.5)
    return decoder_from(language_model, f"sliding in {kind}")


sliding = pytest.mark.parametrize("kind", ["every layer", "some layers"])


@sliding
def test_rows_score_as_if_alone_in_a_decoder_with_a_sliding_window(kind):
    labels = torch.tensor([[7, 8, 9, 10], [7, 1, IGNORE, IGNORE], [5, 6, 7, IGNORE]])
    with torch.no_grad():
        assert batch_against_rows(sliding_decoder(kind), audio(), labels) < 1e-4


@sliding
def test_a_sliding_window_writes_with_a_cache_as_without(kind):
    decoder = sliding_decoder(kind)
    rows = write(decoder, audio(), LENGTHS)
    for row in ROWS:
        limit = int(LENGTHS[row]) + EXTRA_TOKENS
        assert decoder.prompt_length + limit > 16 + 3  # the window matters
        expected = written_without_cache(decoder, own(audio(), row), limit)
        assert rows[row][: len(expected)] == expected
        assert len(set(expected)) > 2


def test_layers_without_attention_are_refused():
    config = MistralConfig(vocab_size=300, **SIZES)
    config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(ValueError, match="layers of linear_attention came; expected full_"):
        kinds_of_attention(config)


@both
def test_loss_and_gradients_of_a_batch_are_the_sum_over_its_rows(architecture):
    model = talkative(architecture)
    labels = labels_of(model, "the cat sat on the mat", "on", "the other one")
    together = audio().requires_grad_()
    logits = model.decoder.text_logits(together, LENGTHS, labels)
    loss = token_loss(logits, labels, "sum")
    loss.backward()
    total = 0.0
    for row in ROWS:
        clip = own(audio(), row).requires_grad_()
        alone = model.decoder.text_logits(clip, LENGTHS[row : row + 1], labels[row : row + 1])
        part = token_loss(alone, labels[row : row + 1], "sum")
        part.backward()
        total += part.item()
        grad = together.grad[row]
        torch.testing.assert_close(grad[: LENGTHS[row]], clip.grad[0], atol=1e-4, rtol=1e-4)
        assert not grad[LENGTHS[row] :].any()  # nothing flows into the gap
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_changing_one_clip_leaves_the_other_rows_as_they_are():
    model = talkative()
    labels = labels_of(model, "the cat", "sat", "there")
    other = audio()
    other[1] = audio(seed=1)[1]
    with torch.no_grad():
        before = model.decoder.text_logits(audio(), LENGTHS, labels)
        after = model.decoder.text_logits(other, LENGTHS, labels)
    torch.testing.assert_close(before[[0, 2]], after[[0, 2]], atol=1e-5, rtol=0)
    assert (before[1] - after[1]).abs().max() > 0.01


# Writing ---------------------------------------------------------------------------------------


@torch.no_grad()
def written_without_cache(decoder: TextDecoder, clip: torch.Tensor, steps: int) -> list[int]:
    """Greedy writing of one clip, the whole sequence read anew for each token."""
    text = torch.zeros(0).long()
    for _ in range(steps):
        logits = decoder.language_model(inputs_embeds=plain_row(decoder, clip, text)).logits
        text = torch.cat([text, logits[0, -1].argmax()[None]])
        if text[-1] == decoder.end_id:
            break
    return text.tolist()


@both
def test_writing_with_a_cache_equals_reading_everything_anew(architecture):
    decoder, embeddings = talkative(architecture).decoder, audio()
    rows = write(decoder, embeddings, LENGTHS)
    for row in ROWS:
        limit = int(LENGTHS[row]) + EXTRA_TOKENS
        expected = written_without_cache(decoder, own(embeddings, row), limit)
        assert rows[row][: len(expected)] == expected
        assert len(set(expected)) > 3  # varied, so that a wrong step would show
    assert rows[0][:5] != rows[1][:5] != rows[2][:5]


@both
def test_a_batch_writes_what_its_clips_write_alone(architecture):
    assert_written_as_alone(talkative(architecture).decoder)


def test_a_cache_that_was_used_before_tells_nothing_of_it():
    decoder, embeddings = talkative().decoder, audio()
    cache = KVCache(decoder.language_model, 3, 100)

    def scores(clips: torch.Tensor) -> torch.Tensor:
        spliced = decoder.splice(clips, LENGTHS)
        first = cache.read_prompt(spliced.embeddings, spliced.mask.sum(dim=1))
        return torch.stack([first, cache.read(decoder.embed(first.argmax(dim=-1)[:, None]))])

    fresh = scores(embeddings)
    assert (scores(audio(scale=3, seed=1)) - fresh).abs().max() > 0.1
    assert torch.equal(scores(embeddings), fresh)


def test_looking_seldom_whether_all_have_ended_changes_nothing():
    decoder, rows = ending_at(4)
    for steps in (2, 5, 100):
        seldom = write(decoder, audio(), LENGTHS, look_every=steps)
        for row, other in zip(rows, seldom, strict=True):
            assert other[: len(row)] == row
            assert set(other[len(row) :]) <= {IGNORE}


def ending_at(word: int) -> tuple[TextDecoder, list[list[int]]]:
    """A decoder whose end token is the one that clip 1 writes at place `word`; and what it says."""
    model = talkative()
    tokenizer = model.processor.tokenizer
    end = write(model.decoder, audio(), LENGTHS)[1][word]
    language_model = AutoModelForCausalLM.from_pretrained(talkative_decoder_dir())
    end_token = tokenizer.convert_ids_to_tokens(end)
    decoder = TextDecoder(language_model, tokenizer, model.config.prompt, end_token)
    return decoder, write(decoder, audio(), LENGTHS)


def test_a_row_stops_at_its_end_token_and_the_others_go_on():
    decoder, rows = ending_at(4)
    assert len(rows[0]) > 5  # another row went on
    assert rows[1][4:] == [decoder.end_id, *[IGNORE] * (len(rows[1]) - 5)]
    assert_written_as_alone(decoder)


def test_writing_ends_as_soon_as_every_row_has_ended():
    decoder, rows = ending_at(4)
    assert len(write(decoder, audio()[1:2], LENGTHS[1:2])[0]) == 5
    ends = [row.index(decoder.end_id) + 1 if decoder.end_id in row else None for row in rows]
    limits = (LENGTHS + EXTRA_TOKENS).tolist()
    expected = max(end or limit for end, limit in zip(ends, limits, strict=True))
    assert len(rows[0]) == expected


@pytest.mark.parametrize("most", [None, 0, 1, 5, 1_000])
def test_limits(most):
    rows = write(talkative().decoder, audio(), LENGTHS, max_new_tokens=most)
    own_limit = int(LENGTHS.max()) + EXTRA_TOKENS
    assert [len(row) for row in rows] == [own_limit if most is None else min(most, own_limit)] * 3


def test_sampling_is_reproducible_and_varied():
    decoder = talkative().decoder

    def draw(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return write(decoder, audio(), LENGTHS, temperature=2.0, generator=generator)

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    state = torch.random.get_rng_state()
    draw(0)
    assert torch.equal(torch.random.get_rng_state(), state)  # only its own generator is used


def test_a_low_temperature_is_nearly_greedy():
    generator = torch.Generator().manual_seed(0)
    cold = write(talkative().decoder, audio(), LENGTHS, temperature=1e-4, generator=generator)
    assert cold == write(talkative().decoder, audio(), LENGTHS)


def test_choose_token():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 0.0]])
    assert choose_token(logits).tolist() == [1, 0]
    generator = torch.Generator().manual_seed(0)
    draws = [choose_token(logits, 1.0, generator) for _ in range(2_000)]
    shares = torch.bincount(torch.stack(draws)[:, 0], minlength=3) / 2_000
    torch.testing.assert_close(shares, logits[0].softmax(0), atol=0.04, rtol=0)
    with pytest.raises(ValueError, match="temperature -1 came; expected 0"):
        choose_token(logits, -1)


# What a decoder can be ---------------------------------------------------------------------------


def test_it_is_frozen_and_stays_in_eval_mode():
    decoder = TextDecoder(
        AutoModelForCausalLM.from_pretrained(decoder_dir()).train(),
        AutoTokenizer.from_pretrained(decoder_dir()),
        "<audio>",
        "<|im_end|>",
    ).train()
    assert not any(module.training for module in decoder.modules())
    assert not any(weight.requires_grad for weight in decoder.parameters())


def test_an_end_token_that_the_tokenizer_lacks_is_refused():
    with pytest.raises(ValueError, match=r"end_token '<stop>' is not a token"):
        ASRModel(ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(), end_token="<stop>"))


def test_gpt2_whose_end_token_is_also_its_unknown_token():
    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": 1}
    config = GPT2Config(vocab_size=300, n_embd=LLM_DIM, n_layer=1, n_head=2, **ids)
    directory = decoder_of(GPT2LMHeadModel(config), "gpt2")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.unk_token = tokenizer.eos_token
    tokenizer.save_pretrained(directory)
    decoder = ASRModel(ASRConfig(encoder=encoder_dir(), decoder=directory)).decoder
    assert decoder.end_id == tokenizer.eos_token_id
    assert len(write(decoder, audio(), LENGTHS, max_new_tokens=3)[0]) == 3
