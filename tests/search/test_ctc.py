"""CTC beside the decoder: against sums over all ways, and against PyTorch's own loss."""

import shutil
from itertools import groupby, product

import pytest
import torch
from fixtures_models import checkpoint_dir, once
from torch.nn import functional as F

from tiny_asr import ASRModel, puzzle_clip, sample_clip
from tiny_asr.audio import load_audio
from tiny_asr.hub import data_dir
from tiny_asr.search.ctc import FILE, NEVER, CTCHead, CTCScores, grown, moved, save_head
from tiny_asr.search.writing import ctc_weight, set_ctc_weight

PLACES, TOKENS, END = 4, 3, 2  # small enough to go through all ways


class Toy:
    """What `CTCScores` needs of a decoder: a table, a head, an end token."""

    def __init__(self, tokens: int = TOKENS, end: int = END):
        generator = torch.Generator().manual_seed(1)
        self.token_embeddings = torch.randn(tokens, 5, generator=generator)
        self.end_id, self.ctc = end, CTCHead(self.token_embeddings)
        self.ctc.scale = torch.tensor(2.0)
        self.ctc.blank = torch.randn(5, generator=generator)


def embeddings(rows: int, places: int = PLACES) -> torch.Tensor:
    return torch.randn(rows, places, 5, generator=torch.Generator().manual_seed(2))


def logs(toy: Toy, heard: torch.Tensor) -> torch.Tensor:
    """(A, V + 1) log-probabilities of each token, and last of none."""
    goals = torch.cat([toy.token_embeddings, toy.ctc.blank[None]])
    return (2.0 * F.normalize(heard, dim=1) @ F.normalize(goals, dim=1).T).log_softmax(dim=1)


def text_of(way: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(token for token, _ in groupby(way) if token != blank)


def all_texts(toy: Toy, heard: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The probability of each text, by going through all ways."""
    p, found = logs(toy, heard).exp().tolist(), {}
    for way in product(range(TOKENS + 1), repeat=len(p)):
        chance = 1.0
        for place, token in enumerate(way):
            chance *= p[place][token]
        text = text_of(way, TOKENS)
        found[text] = found.get(text, 0.0) + chance
    return found


@pytest.mark.parametrize("text", [(), (0,), (0, 0), (0, 1), (1, 0, 1), (0, 1, 1), (1, 1)])
def test_a_text_goes_on_with_the_probability_of_all_texts_that_begin_so(text):
    toy, heard = Toy(), embeddings(1)
    scores, texts = CTCScores(toy, heard, torch.tensor([PLACES]), 1.0), all_texts(toy, heard[0])

    def begins(so: tuple[int, ...]) -> float:
        return sum(chance for one, chance in texts.items() if one[: len(so)] == so)

    flat = torch.zeros(1, TOKENS)
    for token in text:
        scores(flat)
        scores.add(torch.tensor([token]))
    gains = scores(flat)[0].double().exp()
    for token in (0, 1):
        expected = begins((*text, token)) / begins(text)
        assert gains[token].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert gains[END].item() == pytest.approx(texts.get(text, 0.0) / begins(text), rel=1e-4)


def test_the_whole_text_has_the_probability_of_pytorchs_loss():
    toy, heard, text = Toy(40, end=39), embeddings(1, 30), [3, 3, 7, 1, 20, 7]
    scores = CTCScores(toy, heard, torch.tensor([30]), 1.0)
    for token in [*text, 39]:
        logits = torch.zeros(1, 40)
        logits[0, token] = 1.0  # among the candidates
        scores(logits)
        scores.add(torch.tensor([token]))
    loss = F.ctc_loss(
        logs(toy, heard[0])[:, None].double(), torch.tensor([text]), torch.tensor([30]),
        torch.tensor([6]), blank=40, reduction="sum",
    )  # fmt: skip
    assert scores.score.item() == pytest.approx(-loss.item(), rel=1e-5)


def test_rows_are_as_if_they_were_alone():
    toy, heard, lengths = Toy(40, end=39), embeddings(3, 30), torch.tensor([30, 11, 24])
    logits = torch.randn(4, 3, 40, generator=torch.Generator().manual_seed(3))

    def run(rows: list[int], width: int) -> torch.Tensor:
        scores, found = CTCScores(toy, heard[rows, :width], lengths[rows], 0.5), []
        for step in logits[:, rows]:
            found.append(scores(step))
            scores.add(found[-1].argmax(dim=1))
        return torch.stack(found)

    together = run([0, 1, 2], 30)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(together[:, [row]], run([row], length))


def test_beams_go_on_where_others_stood():
    toy, heard = Toy(40, end=39), embeddings(1, 20)
    one, two = (CTCScores(toy, heard, torch.tensor([20]), 0.5, beams=n) for n in (1, 2))
    first = torch.randn(1, 40, generator=torch.Generator().manual_seed(4))
    one(first)
    one.add(one.ids[:, 0])
    two(first.expand(2, -1))
    two.select(torch.tensor([1, 0]))
    two.add(two.ids[[0, 1], [1, 0]])  # the second beam is what `one` is
    torch.testing.assert_close(two(first.expand(2, -1))[1:], one(first), rtol=0, atol=0)


def test_the_helpers_are_the_loops_that_they_replace():
    stay, come = (torch.randn(2, 3, 9, dtype=torch.float64) for _ in range(2))
    before = moved(come, NEVER)
    sums, last = [], torch.full((2, 3), NEVER, dtype=torch.float64)
    for place in range(9):
        last = stay[..., place] + torch.logaddexp(last, before[..., place])
        sums.append(last)
    torch.testing.assert_close(grown(stay, before), torch.stack(sums, dim=-1))


@once
def tiny() -> ASRModel:
    return ASRModel.from_pretrained("tiny")


def test_a_bundled_pair_writes_by_both_and_the_decoder_alone_without():
    heard = [load_audio(sample_clip()), load_audio(puzzle_clip())]
    both, alone = tiny().generate(heard), tiny().generate(heard, ctc_weight=0.0)
    steps = list(tiny().decoder.write(*tiny()._listen(heard)))
    for row, rest in zip(alone, torch.stack(steps, dim=1), strict=True):
        assert row.tolist() == rest[rest >= 0].tolist()
    assert ctc_weight(tiny().decoder) > 0
    # With a weight that leaves the decoder no say, the puzzle is spelled as it sounds.
    heavy = tiny().generate(heard, ctc_weight=30.0)
    assert heavy[1].tolist() != both[1].tolist()


@pytest.mark.parametrize("options", [{}, {"beams": 3}, {"hints": ["seal"]}], ids=str)
def test_clips_are_written_alike_alone_and_together(options):
    heard = [load_audio(sample_clip()), load_audio(puzzle_clip())]
    together = tiny().generate(heard, **options)
    alone = [tiny().generate([clip], **options)[0] for clip in heard]
    assert [row.tolist() for row in together] == [row.tolist() for row in alone]
    if "beams" not in options:
        clips = [tiny().transcribe(clip, 16_000, **options) for clip in heard]
        assert clips == ["".join(tiny().stream(clip, 16_000, **options)) for clip in heard]


def test_what_nobody_has_trained_has_no_head(tmp_path):
    model = ASRModel.from_pretrained(checkpoint_dir())
    assert model.decoder.ctc is None and ctc_weight(model.decoder) == 0
    set_ctc_weight(model.decoder, 0.0)
    with pytest.raises(ValueError, match="no CTC head"):
        set_ctc_weight(model.decoder, 0.5)
    with pytest.raises(ValueError, match="no CTC head"):
        model.generate([torch.randn(8000)], ctc_weight=0.5)
    with pytest.raises(ValueError, match="0 or more"):
        tiny().generate([torch.randn(8000)], ctc_weight=-1.0)
    fresh = ASRModel.from_pretrained("tiny")
    fresh.reset_projector()
    fresh.save_pretrained(tmp_path)
    assert fresh.decoder.ctc is None and not (tmp_path / FILE).exists()


def test_a_head_is_saved_and_loaded(tmp_path):
    set_ctc_weight(tiny().decoder, 0.7)
    try:
        tiny().save_pretrained(tmp_path)
    finally:
        set_ctc_weight(tiny().decoder, 0.4)
    again = ASRModel.from_pretrained(tmp_path).decoder.ctc
    assert again.weight == pytest.approx(0.7)
    torch.testing.assert_close(again.blank, tiny().decoder.ctc.blank, rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["torn", "other decoder", "not a number"])
def test_a_damaged_head_is_said(tmp_path, damage):
    folder = shutil.copytree(data_dir() / "models" / "tiny-asr", tmp_path / "pair")
    file = folder / FILE
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:-20])
    else:
        head = CTCHead(torch.ones(4, 7 if damage == "other decoder" else 288))
        head.scale = head.scale * (torch.nan if damage == "not a number" else 1.0)
        save_head(head, file)
    with pytest.raises(ValueError, match=r"ctc\.safetensors (is damaged|does not fit)"):
        ASRModel.from_pretrained(folder)
