"""ASRProcessor: the model behind `transformers`' own conventions.

The processor turns waveforms into the model's tensors and token ids back into text. The pipeline of
`transformers` has a class of its own here, `serve.pipeline`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin

from tiny_asr.audio import load_audio, mel_for_encoder, pad_batch
from tiny_asr.shapes import IGNORE, SAMPLES_PER_ENCODER_FRAME


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

    def to_dict(self) -> dict:
        """What is saved; the empty part leads whoever looks for one to `NoSuchPart`."""
        return super().to_dict() | {"feature_extractor": {}}

    def decode(self, token_ids, **options) -> str:
        """Token ids (L,) -> the transcript, without special tokens."""
        options = {"skip_special_tokens": True} | options
        return self.tokenizer.decode(token_ids, **options).strip()

    def batch_decode(self, rows, **options) -> list[str]:
        """`decode` for every row."""
        return [self.decode(row, **options) for row in rows]


class NoSuchPart:
    """What the Auto classes find where a recogniser has no feature extractor or tokenizer."""

    @classmethod
    def from_pretrained(cls, name, *_, **__):
        """Raises ValueError: the stock pipeline asks for these, as of a CTC model."""
        raise ValueError(
            f"{name} is a recogniser of tiny_asr: a processor with neither feature extractor nor "
            "tokenizer beside it. In a pipeline, pass pipeline_class=tiny_asr.ASRPipeline"
        )
