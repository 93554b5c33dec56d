"""Beam search: against transformers' own, against every text there is, in a batch as alone."""

from itertools import product

import pytest
import torch
from fixtures_models import LLM_DIM, decoder_of, noise, pair, some_noises, talkative
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from tiny_asr import TextDecoder, data_dir
from tiny_asr.decoder import EXTRA_TOKENS
from tiny_asr.search.beam import beam_search
from tiny_asr.search.repetition import enough

LENGTHS = torch.tensor([3, 9, 6])


@pytest.fixture(scope="module")
def bundled() -> TextDecoder:
    """The bundled language model: its end token is likely enough to end texts of unlike lengths."""
    directory = data_dir() / "models" / "tiny-decoder"
    return TextDecoder(
        AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32),
        AutoTokenizer.from_pretrained(directory),
        "<audio>Transcript: ",
        "<|im_end|>",
    )


def audio_of(decoder: TextDecoder, clips: int = 3, seed: int = 0) -> torch.Tensor:
    """Embeddings (clips, 9, llm_dim) between those of random tokens, so that much is likely."""
    generator = torch.Generator().manual_seed(seed)
    table = decoder.token_embeddings.detach()
    ids = torch.randint(len(table), (2, clips, 9), generator=generator)
    return table[ids].mean(dim=0)


def own(embeddings: torch.Tensor, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    return embeddings[row : row + 1, : LENGTHS[row]], LENGTHS[row : row + 1]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("beams", [2, 4, 8])
def test_the_best_text_and_its_score_are_those_of_transformers(bundled, beams, penalty):
    audio = audio_of(bundled)
    found = beam_search(bundled, audio, LENGTHS, beams, length_penalty=penalty, end_loops=False)
    for row in range(len(LENGTHS)):
        spliced = bundled.splice(*own(audio, row))
        expected = bundled.language_model.generate(
            inputs_embeds=spliced.embeddings,
            attention_mask=spliced.mask.long(),
            num_beams=beams,
            num_return_sequences=beams,
            length_penalty=penalty,
            max_new_tokens=int(LENGTHS[row]) + EXTRA_TOKENS,
            eos_token_id=bundled.end_id,
            pad_token_id=bundled.end_id,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        best = expected.sequences[0].tolist()
        if bundled.end_id in best:
            best = best[: best.index(bundled.end_id) + 1]
        length = int(found.lengths[row, 0])
        assert found.ids[row, 0, :length].tolist() == best
        torch.testing.assert_close(found.scores[row], expected.sequences_scores, atol=1e-4, rtol=0)


def test_beams_find_likelier_texts_than_greedy_writing(bundled):
    audio = audio_of(bundled, clips=12)
    lengths = torch.full((12,), 9)
    scores = [beam_search(bundled, audio, lengths, n).scores[:, 0] for n in (1, 8)]
    assert (scores[1] - scores[0]).min() > -1e-4
    assert (scores[1] - scores[0]).max() > 0.01


def toy() -> TextDecoder:
    """A language model that knows five tokens, the last of which ends a text."""
    torch.manual_seed(0)
    sizes = {"n_embd": LLM_DIM, "n_layer": 1, "n_head": 2, "n_positions": 256}
    language_model = GPT2LMHeadModel(GPT2Config(vocab_size=300, tie_word_embeddings=False, **sizes))
    language_model.lm_head = nn.Linear(LLM_DIM, 5, bias=False)
    nn.init.normal_(language_model.lm_head.weight, 0, 0.5)
    directory = decoder_of(GPT2LMHeadModel(GPT2Config(vocab_size=300, **sizes)), "toy")
    decoder = TextDecoder(
        language_model, AutoTokenizer.from_pretrained(directory), "<audio>: ", "</s>"
    )
    decoder.end_id = 4
    return decoder


@torch.no_grad()
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_with_enough_beams_the_best_of_all_texts_is_found(penalty):
    decoder, most = toy(), 4
    audio = torch.randn(1, 3, LLM_DIM, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([3])
    texts = [
        ids
        for size in range(1, most + 1)
        for ids in product(range(5), repeat=size)
        if 4 not in ids[:-1] and (ids[-1] == 4 or size == most)
    ]

    def score(ids: tuple[int, ...]) -> float:
        labels = torch.tensor([ids])
        logits = decoder.text_logits(audio, lengths, labels).log_softmax(dim=-1)
        return float(logits.gather(2, labels[..., None]).sum()) / len(ids) ** penalty

    best = max(texts, key=score)
    found = beam_search(decoder, audio, lengths, 64, max_new_tokens=most, length_penalty=penalty)
    assert tuple(found.ids[0, 0, : found.lengths[0, 0]].tolist()) == best
    assert float(found.scores[0, 0]) == pytest.approx(score(best), abs=1e-5)


# In a model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["smollm3", "llama"])
def test_a_batch_gives_the_same_texts_as_its_clips_alone(architecture):
    model = talkative(architecture)
    together = model.generate(some_noises(), beams=4)
    for clip, row in zip(some_noises(), together, strict=True):
        assert row.tolist() == model.generate([clip], beams=4)[0].tolist()
    assert any(
        row.tolist() != other.tolist()
        for row, other in zip(together, model.generate(some_noises()), strict=True)
    )


def test_one_beam_is_greedy():
    model = talkative()
    embeddings, lengths = model._listen(some_noises())
    found = beam_search(model.decoder, embeddings, lengths, 1, end_loops=False)
    for row, ids in enumerate(model.generate(some_noises(), end_loops=False)):
        assert found.ids[row, 0, : found.lengths[row, 0]].tolist() == ids.tolist()


def test_looking_seldom_changes_nothing(bundled):
    audio = audio_of(bundled)
    often = beam_search(bundled, audio, LENGTHS, 4)
    seldom = beam_search(bundled, audio, LENGTHS, 4, look_every=8)
    assert torch.equal(often.lengths, seldom.lengths)
    torch.testing.assert_close(often.scores, seldom.scores)


def test_transcribing_and_streaming_with_beams():
    model = talkative()
    clips = [*some_noises(), noise(33)]
    texts = model.transcribe(clips, 16_000, beams=3)
    assert texts == model.transcribe(clips, 16_000, beams=3, batch_size=1)
    assert texts[-1] == "".join(model.stream(clips[-1], 16_000, beams=3))
    for row in model.generate(some_noises(), max_new_tokens=3, beams=3):
        assert len(row) <= 3
    assert model.transcribe(noise(1), 16_000, max_new_tokens=0, beams=3) == ""


def test_the_cache_has_a_fixed_size(monkeypatch):
    """Both caches are made once: the prompt's with a row a clip, the text's with one a beam."""
    decoder, made = talkative().decoder, []
    plain = decoder.kv_cache

    def watched(rows, columns):
        made.append((rows, columns))
        return plain(rows, columns)

    monkeypatch.setattr(decoder, "kv_cache", watched)
    embeddings = torch.randn(3, 9, LLM_DIM)
    beam_search(decoder, embeddings, LENGTHS, 5)
    prompt = decoder.prompt_length + 9
    assert made == [(3, prompt), (15, prompt + 9 + EXTRA_TOKENS)]


def test_a_text_in_a_loop_pays_for_its_repeats():
    """A model that says one thing over and over, whatever it reads."""
    decoder = toy()
    with torch.no_grad():
        for weight in decoder.language_model.transformer.parameters():
            weight.zero_()
        decoder.language_model.transformer.ln_f.bias.fill_(1.0)
        decoder.language_model.lm_head.weight.copy_(
            torch.tensor([5.0, 0, 0, 0, -50])[:, None].expand(-1, LLM_DIM) / LLM_DIM
        )
    audio = torch.zeros(1, 40, LLM_DIM)
    found = beam_search(decoder, audio, torch.tensor([40]), 1)
    step = float(torch.tensor([5.0, 0, 0, 0, -50]).log_softmax(0)[0])
    assert found.ids[0, 0, : found.lengths[0, 0]].tolist() == [0]
    assert float(found.scores[0, 0]) == pytest.approx(step * (1 + enough(1)), rel=1e-4)
    whole = beam_search(decoder, audio, torch.tensor([40]), 1, end_loops=False)
    assert int(whole.lengths[0, 0]) == 40 + EXTRA_TOKENS


@pytest.mark.parametrize("beams", [0, -1, 65])
def test_a_number_of_beams_that_makes_no_sense(beams):
    with pytest.raises(ValueError, match=rf"beams {beams} came; expected 1 \(greedy\) to 64"):
        pair().transcribe(noise(1), 16_000, beams=beams)


def test_beams_and_sampling_exclude_each_other():
    with pytest.raises(ValueError, match="beams 2 came with sampling; expected one of the two"):
        pair().generate([noise(1)], beams=2, temperature=1.0)
