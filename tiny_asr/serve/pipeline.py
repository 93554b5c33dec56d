"""ASRPipeline: a recogniser for those who know `pipeline("automatic-speech-recognition", ...)`.

It is a class of its own because the stock one takes every model that it does not know for a CTC
model, and decodes files with FFmpeg. So `pipeline_class=ASRPipeline` has to be named.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from transformers import Pipeline

from tiny_asr.audio import load_audio
from tiny_asr.shapes import SAMPLE_RATE

GENERATION = ("max_new_tokens", "beams", "hints")


class ASRPipeline(Pipeline):
    """`pipeline("automatic-speech-recognition", model=..., pipeline_class=ASRPipeline)`.

    Takes one clip or a list, generator or data set of them, each whatever `load_audio` takes or
    `{"raw": ..., "sampling_rate": ...}`, of any length, and returns `{"text": ...}` for each.
    Besides those of every pipeline (`batch_size`: clips decoded side by side) its options are

    - `return_timestamps="word"`: `chunks` too, a `{"text": ..., "timestamp": (begin, end)}` for
      each word, in seconds; the texts of the chunks, joined, are the text;
    - `max_new_tokens`, `beams`, `hints` as in `ASRModel.transcribe`, by name or in
      `generate_kwargs`;
    - `sampling_rate` in Hz, for arrays without one.

    Raises ValueError for others, when the pipeline is made or called.
    """

    model: Any  # an ASRModel
    _load_processor = _load_image_processor = False  # type: ignore[assignment]
    _load_feature_extractor = _load_tokenizer = False  # type: ignore[assignment]

    def _sanitize_parameters(self, sampling_rate=None, return_timestamps=None, **options):
        options |= options.pop("generate_kwargs", None) or {}
        if unknown := sorted(options.keys() - set(GENERATION)):
            expected = ("sampling_rate", "return_timestamps", "generate_kwargs", *GENERATION)
            raise ValueError(f"{', '.join(unknown)} came; expected {', '.join(expected)}")
        if return_timestamps not in (None, False, "word"):
            what = f"return_timestamps {return_timestamps!r} came; expected 'word' or False"
            raise ValueError(f"{what}: times are those of words here")
        if return_timestamps is not None:
            options["words"] = return_timestamps == "word"
        return {} if sampling_rate is None else {"sampling_rate": sampling_rate}, options, {}

    def preprocess(self, inputs, sampling_rate: int | None = None) -> dict:
        """Load one clip."""
        if isinstance(inputs, dict) and "raw" in inputs:
            inputs = {"array": inputs["raw"], "sampling_rate": inputs.get("sampling_rate")}
        return {"waveform": load_audio(inputs, sampling_rate)}

    def _forward(self, inputs: dict, **options) -> dict:
        return self._answers([inputs], **options)[0]

    def postprocess(self, outputs: dict) -> dict:
        """The text, as the stock pipeline returns it."""
        return outputs

    def get_iterator(
        self, inputs, num_workers, batch_size, preprocess_params, forward_params, _
    ) -> Iterator[dict]:
        """The answers of many clips, of which `batch_size` are decoded side by side."""
        clips = (self.preprocess(one, **preprocess_params) for one in inputs)
        while batch := list(islice(clips, batch_size)):
            yield from self._answers(batch, batch_size=batch_size, **forward_params)

    def _answers(self, inputs: list[dict], words: bool = False, **options) -> list[dict]:
        waveforms = [one["waveform"] for one in inputs]
        found = self.model.transcribe(waveforms, SAMPLE_RATE, words=words, **options)
        if not words:
            return [{"text": text} for text in found]
        return [
            {"text": text, "chunks": [{"text": w, "timestamp": (b, e)} for w, b, e in timed]}
            for text, timed in found
        ]
