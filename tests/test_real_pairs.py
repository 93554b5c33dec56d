"""The pairs whose parts are public models hear with these as they were published."""

import jiwer
import pytest

from tiny_asr import ASRModel, sample_clip
from tiny_asr.data.dataset import load_data
from tiny_asr.evaluation.score import normalise

SENTENCE = "she listens to the sea and its waves turn into words"


@pytest.fixture(scope="module")
def parts(real) -> dict[str, dict]:
    """Local copies of the parts of each pair that live on the hub."""
    encoder = {"encoder": str(real / "whisper-base")}
    return {
        "small": encoder,
        "medium": encoder | {"decoder": str(real / "smollm2-135m-instruct")},
    }


@pytest.mark.parametrize("name", ["small", "medium"])
def test_a_pair_of_public_models_transcribes(name, parts, shared):
    model = ASRModel.from_pretrained(name, **parts[name])
    assert model.untrained == () and model.config.audio_downsample_rate == 4
    clips = load_data(shared / "speech" / "dev.parquet", limit=4)
    found = [model.transcribe(sample_clip())]
    found += [model.transcribe(clip.load(), 16_000) for clip in clips]
    said = [normalise(text) for text in (SENTENCE, *(clip.text for clip in clips))]
    assert jiwer.wer(said, [normalise(text) for text in found]) < 0.5  # chance is above 1
