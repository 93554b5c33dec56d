"""Loops are ended and cut; what people do say is left alone."""

import lzma
import random
import re

import pyarrow.parquet
import pytest
import torch
from fixtures_models import LLM_DIM, decoder_of, noise, some_noises, strengthen, talkative
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from tiny_asr import ASRConfig, ASRModel, data_dir
from tiny_asr.search.repetition import LONGEST_PHRASE, Loops, enough, kept
from tiny_asr.shapes import IGNORE

SAID = (
    "no no no no no no",
    "ha ha ha ha ha ha ha ha ha ha ha ha",
    "one one one one one one one",
    "my number is zero zero zero zero zero zero zero zero five",
    "w w w dot a a a dot com",
    "daisy mutlar daisy mutlar daisy mutlar",
    "bells bells bells bells bells bells bells",
    "i won't be a witch i won't be a witch they may burn me but i won't be a witch",
    "row row row your boat gently down the stream merrily merrily merrily merrily life is but a "
    "dream row row row your boat gently down the stream merrily merrily merrily merrily",
)
LOOPED = ("the", "of the", "and he said", "and the king of the north said to the king of the south")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(data_dir() / "models" / "tiny-decoder")


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def first_loop(ids: list[int]) -> int | None:
    """The number of tokens after which the watcher sees a loop."""
    loops = Loops(1, torch.device("cpu"))
    for place, token in enumerate(ids, start=1):
        if loops.add(torch.tensor([token])):
            return place
    return None


@pytest.mark.parametrize("text", SAID)
def test_what_people_say_is_no_loop(tokenizer, text):
    ids = ids_of(tokenizer, text)
    assert first_loop(ids) is None
    assert kept(ids) == len(ids)


@pytest.mark.parametrize("phrase", LOOPED)
def test_a_loop_is_seen_and_cut_to_one_copy(tokenizer, phrase):
    start, circle = ids_of(tokenizer, "once upon a time"), ids_of(tokenizer, f" {phrase}")
    ids = start + circle * 40
    end = first_loop(ids)
    assert end == len(start) + len(circle) + enough(len(circle))
    assert ids[: kept(ids[:end])] == start + circle
    assert all(kept(ids[:place]) == place for place in range(end))  # not before it is seen
    said = [kept(ids[:place], ended=False) for place in range(1, end + 1)]
    assert said == sorted(said)  # what was shown is never taken back
    assert said[-1] == len(start + circle)


def test_a_loop_of_the_longest_phrase_is_seen():
    circle = list(range(LONGEST_PHRASE))
    assert first_loop(circle * 9) == len(circle) + enough(len(circle))
    assert first_loop([*circle, 99] * 9) is None


def test_each_row_is_watched_for_itself_and_can_be_carried_on():
    loops = Loops(2, torch.device("cpu"))
    for step in range(21):
        seen = loops.add(torch.tensor([step, 7]))
    assert seen.tolist() == [0, 20]
    loops.select(torch.tensor([1, 0]))
    assert loops.add(torch.tensor([7, 7])).tolist() == [21, 0]


@pytest.mark.slow
def test_no_transcript_or_sentence_of_a_novel_is_taken_for_a_loop(shared, tokenizer):
    texts = []
    for file in sorted((shared / "speech").glob("[td]*.parquet")):
        texts += pyarrow.parquet.read_table(file, columns=["text"])["text"].to_pylist()
    assert len(texts) > 8_000
    with lzma.open(shared / "text" / "public-domain-english.txt.xz", "rt") as file:
        lines = [line.strip() for line in file if not line.startswith("###")]
    texts += random.Random(0).sample(lines, 100_000)
    plain = [re.sub(r"[^a-z0-9']+", " ", text.lower()).strip() for text in texts]
    rows = tokenizer(plain, add_special_tokens=False).input_ids
    width = max(map(len, rows))
    padding = torch.arange(width) - 10 * width  # no two alike, so that they never repeat
    table = padding.repeat(len(rows), 1)
    for row, ids in zip(table, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    loops = Loops(len(rows), torch.device("cpu"))
    found = torch.zeros(len(rows), dtype=torch.bool)
    for token in table.T:
        found |= loops.add(token) > 0
    assert [text for text, loop in zip(plain, found, strict=True) if loop] == []


# In a model -------------------------------------------------------------------------------------


def circling() -> ASRModel:
    """A model that soon writes the same few tokens over and over, whichever the sound."""
    torch.manual_seed(1)
    sizes = {"n_embd": LLM_DIM, "n_layer": 1, "n_head": 2, "n_positions": 512}
    language_model = GPT2LMHeadModel(GPT2Config(vocab_size=300, tie_word_embeddings=False, **sizes))
    with torch.no_grad():
        language_model.transformer.wpe.weight.zero_()
        language_model.lm_head.weight.normal_(0, 1)
    config = ASRConfig(
        encoder=talkative().config.encoder, decoder=decoder_of(language_model, "circling")
    )
    return strengthen(ASRModel(config))


def test_a_model_in_a_loop_is_stopped():
    model, clips = circling(), [*some_noises(), noise(9.7)]
    whole = model.generate(clips, end_loops=False)
    rows = model.generate(clips)
    assert len(rows[-1]) < len(whole[-1]) == 97 + 8
    for clip, row, all_of_it in zip(clips, rows, whole, strict=True):
        ids = all_of_it.tolist()
        end = first_loop(ids)
        assert row.tolist() == ids[: kept(ids[:end])]
        assert row.tolist() == model.generate([clip])[0].tolist()
        text = model.transcribe(clip, 16_000)
        assert text == "".join(model.stream(clip, 16_000))
    for row, seldom in zip(rows, model.generate(clips, look_every=8), strict=True):
        assert torch.equal(row, seldom)


def test_a_row_in_a_loop_ends_and_the_others_go_on():
    model = circling()
    padded = torch.randn(2, 60, LLM_DIM, generator=torch.Generator().manual_seed(0))
    steps = model.decoder.write(padded, torch.tensor([60, 2]))
    rows = torch.stack(list(steps), dim=1)
    assert (rows[1] == IGNORE).any()
    assert (rows[0] != IGNORE).sum() > (rows[1] != IGNORE).sum()
