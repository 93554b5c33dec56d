"""ASRProcessor and ASRPipeline: the model behind `transformers`' own conventions.

The processor turns waveforms into the model's tensors and token ids back into text. The pipeline
lets someone who knows `pipeline("automatic-speech-recognition", ...)` use this model without
learning anything new; it is a class of its own because the stock one takes every model that it does
not know for a CTC model, and decodes files with FFmpeg.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, Pipeline, ProcessorMixin

from tiny_asr.audio import load_audio, mel_for_encoder, pad_batch
from tiny_asr.shapes import IGNORE, SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME


class ASRProcessor(ProcessorMixin):
    """Waveforms to model inputs, transcripts to labels, ids to text.

    Args:
        tokenizer: the decoder's tokenizer.
        num_mel_bins: M of the encoder.
        audio_downsample_rate: encoder frames per audio embedding.
        end_token: the token that ends a transcript.
        encoder_padding: as in `ASRConfig`.
    """

    def __init__(
        self,
        tokenizer,
        num_mel_bins: int = 80,
        audio_downsample_rate: int = 5,
        end_token: str = "<|im_end|>",
        encoder_padding: str = "none",
    ):
        super().__init__(tokenizer)
        self.num_mel_bins = num_mel_bins
        self.audio_downsample_rate = audio_downsample_rate
        self.end_token = end_token
        self.encoder_padding = encoder_padding

    @classmethod
    def of(cls, config, tokenizer) -> "ASRProcessor":
        """The one that an `ASRConfig` asks for."""
        sizes = (config.num_mel_bins, config.audio_downsample_rate)
        return cls(tokenizer, *sizes, config.end_token, config.encoder_padding)

    def __call__(
        self,
        audio=None,
        text: str | Sequence[str] | None = None,
        sampling_rate: int | None = None,
        device: torch.device | str = "cpu",
    ) -> BatchFeature:
        """Prepare a batch.

        Args:
            audio: one clip or a list of clips, each anything `load_audio` takes, at most 30 s.
            text: the transcripts, one a clip, when the batch is for training.
            sampling_rate: Hz, for arrays without one.
            device: where the log-mel is computed.
        Returns:
            `input_features` (B, M, F), `feature_lengths` (B,) in mel frames, and with text
            `labels` (B, L).
        """
        batch: dict[str, Tensor] = {}
        if audio is None and text is None:
            raise ValueError("neither audio nor text came; expected at least one of them")
        if audio is not None:
            clips = audio if isinstance(audio, list | tuple) else [audio]
            waveforms = [load_audio(clip, sampling_rate) for clip in clips]
            batch |= self.features(waveforms, device)
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            if audio is not None and len(texts) != len(clips):
                raise ValueError(f"{len(clips)} clips, {len(texts)} texts came; expected as many")
            batch["labels"] = self.labels(texts).to(device)
        return BatchFeature(batch)

    def features(self, waveforms: Sequence[Tensor], device: torch.device | str = "cpu") -> dict:
        """Log-mel of clips (S,) at 16 kHz: `input_features` (B, M, F), `feature_lengths` (B,)."""
        multiple = SAMPLES_PER_ENCODER_FRAME * self.audio_downsample_rate
        padded, lengths = pad_batch(list(waveforms), multiple)
        padded, lengths = padded.to(device), lengths.to(device)
        mel, frames = mel_for_encoder(padded, lengths, self.num_mel_bins, self.encoder_padding)
        return {"input_features": mel, "feature_lengths": frames}

    def labels(self, texts: Sequence[str]) -> Tensor:
        """Transcripts -> (B, L) token ids: each text and the end token, padded with -100."""
        end = self.tokenizer.convert_tokens_to_ids(self.end_token)
        rows = [
            torch.tensor([*ids, end])
            for ids in self.tokenizer(
                list(texts), add_special_tokens=False, split_special_tokens=True
            ).input_ids
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORE)

    def decode(self, token_ids, **options) -> str:
        """Token ids (L,) -> the transcript, without special tokens."""
        options = {"skip_special_tokens": True} | options
        return self.tokenizer.decode(token_ids, **options).strip()

    def batch_decode(self, rows, **options) -> list[str]:
        """`decode` for every row."""
        return [self.decode(row, **options) for row in rows]


class ASRPipeline(Pipeline):
    """`pipeline("automatic-speech-recognition", model=..., pipeline_class=ASRPipeline)`.

    Takes whatever `load_audio` takes, of any length, and returns `{"text": ...}`.
    """

    model: Any  # an ASRModel, whose module needs this one
    _load_processor = _load_image_processor = False  # type: ignore[assignment]
    _load_feature_extractor = _load_tokenizer = False  # type: ignore[assignment]

    def _sanitize_parameters(self, max_new_tokens: int | None = None, sampling_rate=None):
        forward = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
        preprocess = {} if sampling_rate is None else {"sampling_rate": sampling_rate}
        return preprocess, forward, {}

    def preprocess(self, inputs, sampling_rate: int | None = None) -> dict:
        """Load one clip."""
        return {"waveform": load_audio(inputs, sampling_rate)}

    def _forward(self, inputs: dict, max_new_tokens: int | None = None) -> dict:
        waveform = inputs["waveform"]
        text = self.model.transcribe(waveform, SAMPLE_RATE, max_new_tokens=max_new_tokens)
        return {"text": text}

    def postprocess(self, outputs: dict) -> dict:
        """The text, as the stock pipeline returns it."""
        return outputs
