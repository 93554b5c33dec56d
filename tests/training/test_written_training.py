"""Text as it is written through tokenizer, training, decoding and scoring."""

import os
from pathlib import Path

import pytest
import torch
from fixtures_models import decoder_dir, encoder_dir, folder, noise, once
from small_runs import encoded, small_run, train, write_rows
from transformers import AutoTokenizer
from written import GERMAN, MIXED, SENTENCES

from tiny_asr import ASRConfig, ASRModel, ASRProcessor
from tiny_asr.data.dataset import load_data
from tiny_asr.evaluation.score import evaluate
from tiny_asr.training.texts import lost_by_tokenizer
from tiny_asr.training.trainer import Trainer


@once
def speech() -> Path:
    """A clip for each sentence, three times."""
    rows = [
        {"id": str(i), "text": SENTENCES[i % 4], "audio": encoded(noise(4.0, i % 4))}
        for i in range(12)
    ]
    return write_rows(folder("written.parquet"), rows)


def test_a_run_learns_to_write_what_is_written(tmp_path):
    settings = small_run(tmp_path / "run", data=speech(), eval_data=speech(), text="written")
    trainer, said = train(settings)
    assert [clip.text for clip in trainer.data][:4] == list(SENTENCES)
    assert "are changed by the decoder's tokenizer" not in said
    model = ASRModel.from_pretrained(tmp_path / "run")
    assert model.config.text == "written"
    labels = model.processor.labels([clip.text for clip in trainer.data])
    assert [model.processor.decode(row[row >= 0]) for row in labels][:4] == list(SENTENCES)
    again = small_run(tmp_path / "again", model=str(tmp_path / "run"), data=speech())
    assert train(again)[0].data[3].text == SENTENCES[3]  # the checkpoint's setting stays
    assert model.decoder.tokens_per_embedding == trainer.model.decoder.tokens_per_embedding == 3
    with pytest.raises(ValueError, match=r"text='plain' came with a model that writes 'written'"):
        Trainer(small_run(tmp_path / "no", data=speech(), text="plain"), model=model)


def test_a_sentence_learnt_by_heart_is_written_and_scored_without_an_error(tmp_path):
    """The decoder is trained too: random and frozen it could not write any sentence."""
    rows = [{"id": "a", "text": MIXED, "audio": encoded(noise(4.0))}]
    clips = load_data(write_rows(tmp_path / "one.parquet", rows), text="written")
    config = ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(), text="written")
    torch.manual_seed(0)
    model = ASRModel(config)
    batch = model.processor(clips[0].load(), clips[0].text, 16_000)
    assert batch["labels"].shape[1] > 40 + 8  # more than plain text may have in 4 s
    weights = [*model.decoder.requires_grad_().parameters(), *model.audio_projector.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    for _ in range(200):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if loss.item() < 0.02:
            break
    result = evaluate(model, clips, normaliser="none")
    assert [row.hypothesis for row in result.rows] == [MIXED]
    assert result.wer.value == result.cer == 0 and result.normalizer == "none"
    assert result.words == 8 + 6  # words, and characters of Mandarin with their full stop
    assert "".join(model.stream(clips[0].load(), 16_000)) == MIXED


def test_a_tokenizer_that_loses_something_is_told():
    bundled = ASRModel.from_pretrained("tiny").processor  # its decoder knows lower case only
    said = lost_by_tokenizer(bundled, [GERMAN.lower(), GERMAN, ""])
    assert said.startswith("1 of the first 2 texts are changed")
    assert repr(GERMAN)[:30] in said and "choose another --decoder" in said
    assert lost_by_tokenizer(bundled, [text.lower() for text in SENTENCES]) == ""


def test_a_real_tokenizer_keeps_every_script():
    place = Path(os.environ.get("TINY_ASR_REAL", "/nonexistent"), "smollm2-135m-instruct")
    if not place.is_dir():
        pytest.skip(f"no {place}: set TINY_ASR_REAL to the folder with the public models")
    processor = ASRProcessor(AutoTokenizer.from_pretrained(place))
    assert lost_by_tokenizer(processor, SENTENCES) == ""


def test_a_config_of_another_kind_of_text_is_refused():
    with pytest.raises(ValueError, match=r"text='cased' came; expected 'plain' or 'written'"):
        ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(), text="cased")
    old = ASRConfig(encoder=encoder_dir(), decoder=decoder_dir())
    assert old.text == "plain" and old.to_dict()["text"] == "plain"
