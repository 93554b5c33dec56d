"""ASRModel: encoder, projector and decoder joined, and everything a user does with them.

    waveform (S,) -> encode -> audio_projector -> decoder -> text

Only the projector is trained, so only the projector is saved: a checkpoint names its two frozen
models and holds a config, a processor and a few megabytes of weights.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutput

from tiny_asr.adapters import lora
from tiny_asr.audio import cut, load_audio, mel_for_encoder, pad_batch, read_audio
from tiny_asr.config import WEIGHTS, ASRConfig
from tiny_asr.decoder import TextDecoder, token_loss
from tiny_asr.device import choose_device, send
from tiny_asr.encoder import AudioEncoder
from tiny_asr.hub import (
    SEED,
    HubOptions,
    load_frozen,
    load_tokenizer,
    others_can_load,
    resolve_checkpoint,
)
from tiny_asr.processor import ASRProcessor, NoSuchPart
from tiny_asr.projectors.registry import fresh_projector
from tiny_asr.search import ctc
from tiny_asr.search.words import TimedText, timed_text
from tiny_asr.search.writing import in_batches, parts, tokens_as_written, whole_texts

log = logging.getLogger("tiny_asr")

BATCH_SIZE = 8  # rows that are decoded side by side


class ASRModel(PreTrainedModel):
    """A speech recogniser: frozen Whisper encoder, trained projector, frozen language model.

    `ASRModel(config)` loads the frozen models that the config names, and the projector's weights
    when the config came from a checkpoint; else the projector is fresh, with a warning.

    Args:
        config: see `ASRConfig`.
        dtype: number format of the frozen models; the projector is always float32.
    """

    config: ASRConfig
    config_class = ASRConfig
    main_input_name = "input_features"
    _supports_sdpa = True

    def __init__(self, config: ASRConfig, dtype: torch.dtype = torch.float32):
        super().__init__(config)
        whisper, heard = load_frozen("encoder", config.encoder, config.encoder_config, dtype)
        llm, read = load_frozen("decoder", config.decoder, config.decoder_config, dtype)
        untrained = [p for p, ok in (("encoder", heard), ("decoder", read)) if not ok]
        tokenizer = load_tokenizer(config.decoder)
        self.encoder = AudioEncoder(whisper, window=config.encoder_padding != "none")
        self.decoder = TextDecoder(llm, tokenizer, config.prompt, config.end_token, config.text)
        self.decoder.no_speech_threshold = config.no_speech_threshold
        self.audio_projector = fresh_projector(config, SEED, self.decoder.some_embeddings())
        self.processor = ASRProcessor.of(config, tokenizer)
        self.post_init()
        if config.projector_weights is None:
            untrained.append("projector")
        else:
            self.audio_projector.load(config.projector_weights)
        self.decoder.ctc = ctc.load_head(config.saved(ctc.FILE), self.decoder.token_embeddings)
        if adapter := config.saved(lora.FOLDER):
            lora.load_adapter(llm, adapter)
        self.untrained: tuple[str, ...] = tuple(untrained)
        if untrained:
            log.warning(
                "untrained: %s. Random weights: whatever text comes out means nothing.",
                ", ".join(untrained),
            )
        self.eval()

    def init_weights(self) -> None:
        """Nothing: the frozen weights came from their checkpoints, the projector is initialised."""

    def reset_projector(self, seed: int = SEED) -> None:
        """Give the projector fresh weights that depend on `seed` alone, as loud as the tokens."""
        fresh = fresh_projector(self.config, seed, self.decoder.some_embeddings())
        self.audio_projector.load_state_dict(fresh.state_dict())
        self.decoder.ctc = None

    # Running it --------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, audio: Tensor, sampling_rate: int) -> Tensor:
        """Waveforms to encoder output: log-mel and encoder; see `config.encoder_padding`.

        Args:
            audio: (S,) or (B, S), any float dtype, -1 to 1; at most 30 s.
            sampling_rate: Hz; resampled to 16 kHz where it differs.
        Returns:
            (B, T, encoder_dim), T a multiple of audio_downsample_rate.
        """
        audio = torch.as_tensor(audio)
        if audio.ndim not in (1, 2):
            raise ValueError(
                f"audio of shape {tuple(audio.shape)} came; expected (S,) or (B, S) samples"
            )
        rows = audio[None] if audio.ndim == 1 else audio
        clips = [load_audio(row, sampling_rate) for row in rows]
        padded, lengths = pad_batch(clips, self.config.samples_per_embedding)
        return self.encode_batch(padded, lengths)[0]

    @torch.no_grad()
    def encode_batch(self, padded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What `pad_batch` gives, through log-mel and the encoder.

        Args:
            padded: (B, S) at 16 kHz, on any device.
            lengths: each clip's own samples (B,), multiples of `config.samples_per_embedding`;
                best on the CPU, where looking at them does not wait for a GPU.
        Returns:
            Encoder output (B, T, encoder_dim), and each clip's own encoder frames (B,), which stay
            where the lengths are.
        """
        bins, padding = self.config.num_mel_bins, self.config.encoder_padding
        mel, frames = mel_for_encoder(send(padded, self.device), lengths, bins, padding)
        return self.encoder(mel, frames), frames // 2

    def forward(
        self,
        input_features: Tensor | None = None,
        feature_lengths: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_output: Tensor | None = None,
        encoder_lengths: Tensor | None = None,
    ) -> CausalLMOutput:
        """One training step's forward: logits (B, L, V) at the text positions only, and their loss.

        Args:
            input_features: (B, M, F) log-mel, with `feature_lengths` (B,) in mel frames.
            encoder_output: (B, T, encoder_dim), with `encoder_lengths` (B,) in encoder frames:
                instead of the features, when they were computed before (a cache).
            labels: (B, L) text and end token, padded with -100.
        """
        if (input_features is None) == (encoder_output is None) or labels is None:
            raise ValueError("expected labels, and either input_features or encoder_output")
        if input_features is not None:
            if feature_lengths is None:
                feature_lengths = torch.full((len(input_features),), input_features.shape[2])
            with torch.no_grad():
                encoder_output = self.encoder(input_features, feature_lengths)
            encoder_lengths = feature_lengths // 2
        assert encoder_output is not None
        if encoder_lengths is None:
            encoder_lengths = torch.full((len(encoder_output),), encoder_output.shape[1])
        audio_embeddings = self.audio_projector(encoder_output, encoder_lengths)
        audio_lengths = self.config.embeddings(encoder_lengths)
        logits = self.decoder.text_logits(audio_embeddings, audio_lengths, labels)
        return CausalLMOutput(loss=token_loss(logits, labels, "mean"), logits=logits)

    @torch.no_grad()
    def _listen(self, waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Audio embeddings (B, A, llm_dim) of clips, and each clip's own number of them (B,)."""
        padded, lengths = pad_batch(list(waveforms), self.config.samples_per_embedding)
        encoder_output, lengths = self.encode_batch(padded, lengths)
        return self.audio_projector(encoder_output, lengths), self.config.embeddings(lengths)

    def generate(
        self, waveforms: Sequence[Tensor], max_new_tokens: int | None = None, **options
    ) -> list[Tensor]:
        """Clips (S,) at 16 kHz, at most 30 s each -> the token ids written for each, on the CPU.

        The end token is included where it was written. Options (beams, hints, temperature, ...):
        see `search.writing.whole_texts`.
        """
        options["max_new_tokens"] = max_new_tokens
        return whole_texts(self.decoder, *self._listen(waveforms), **options)

    def _pieces(self, audio, sampling_rate: int | None) -> tuple[Tensor, list[Tensor]]:
        """A clip (S,), and as it is read: in pieces that the encoder can take."""
        if isinstance(audio, Tensor):  # was loaded before, and what may be doubted in it told
            waveform = read_audio(audio, sampling_rate)[0]
        else:
            waveform = load_audio(audio, sampling_rate)
        return waveform, cut(waveform, self.config.max_seconds)

    def transcribe(
        self,
        audio,
        sampling_rate: int | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        max_new_tokens: int | None = None,
        beams: int = 1,
        hints: Sequence[str] = (),
        words: bool = False,
    ) -> str | TimedText | list[str | TimedText]:
        """Speech to text.

        Args:
            audio: one clip, or a list of clips, each anything `load_audio` takes, of any length.
                Long quiet is left out (see `leave_out_quiet`). The parts between, and parts of
                one that lasts over `config.max_seconds`, are read apart and the texts joined.
            sampling_rate: Hz, for arrays without one.
            batch_size: rows decoded side by side; each piece has as many as there are beams.
            max_new_tokens: a limit on each piece's tokens, instead of the audio's own.
            beams: texts tried side by side for each piece; 1 is greedy.
            hints: words to prefer, such as the names in a meeting.
            words: say when each word is said, too (see `search.words`).
        Returns:
            The text of one clip, or a list of texts; with `words`, `TimedText` in a text's place.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} came; expected at least 1")
        many = isinstance(audio, list | tuple)
        sources = audio if many else [audio]
        clips = [self._pieces(source, sampling_rate) for source in sources]
        pieces = [piece for _, own in clips for piece in own]
        write = partial(self.generate, max_new_tokens=max_new_tokens, beams=beams, hints=hints)
        at_once = max(1, batch_size // max(1, beams))
        rows = iter(in_batches(write, pieces, at_once))
        texts = list[str | TimedText]()
        for waveform, own in clips:
            own_rows = [next(rows) for _ in own]
            text = " ".join(filter(None, self.processor.batch_decode(own_rows)))
            texts.append(timed_text(self, waveform, own, own_rows) if words else text)
        return texts if many else texts[0]

    def stream(
        self, audio, sampling_rate: int | None = None, beams: int = 1, hints: Sequence[str] = ()
    ) -> Iterator[str]:
        """Yield one clip's text as it is written, piece by piece; joined it is `transcribe`'s."""
        said = ""
        for piece in self._pieces(audio, sampling_rate)[1]:
            gap, heard = said, self._listen([piece])
            tokens = tokens_as_written(self.decoder, *heard, beams=beams, hints=hints)
            for text in parts(tokens, self.processor.decode):
                yield gap + text
                gap, said = "", " "

    # Saving and loading ------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **hub) -> None:
        """Write projector, adapter, config and processor, never the frozen models, into a folder
        that is made where it is not there; `push_to_hub` uploads it and takes the other arguments.
        """
        directory = Path(save_directory)
        self.config.architectures = [type(self).__name__]
        self.config.save_pretrained(directory)
        self.processor.save_pretrained(directory)
        self.audio_projector.save(directory / WEIGHTS)
        ctc.save_head(self.decoder.ctc, directory / ctc.FILE)
        if lora.has_adapter(llm := self.decoder.language_model):
            lora.save_adapter(llm, directory / lora.FOLDER, self.config.decoder)
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", directory.name), **hub)

    def push_to_hub(self, repo_id: str, **hub):
        """Upload the checkpoint. Refused while it names a frozen model that only this disk has."""
        for part in (self.config.encoder, self.config.decoder):
            if not others_can_load(part):
                raise ValueError(
                    f"this checkpoint names the local directory {part!r}, which nobody else has; "
                    "expected a hub id: reload it with encoder= or decoder= set to the hub id"
                )
        return super().push_to_hub(repo_id, **hub)  # type: ignore[arg-type]

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        encoder: str | None = None,
        decoder: str | None = None,
        config: ASRConfig | None = None,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str = "cpu",
        trust_remote_code: bool | None = None,
        adapter_kwargs: dict | None = None,
        **hub: Unpack[HubOptions],
    ) -> "ASRModel":
        """Load a recogniser: the config, then the frozen models that it names, then the projector.

        Args:
            name: tiny, small, medium, full, a directory or a hub id.
            encoder, decoder: other frozen models than the config's; see `ASRConfig`.
            config: use this one instead of reading it.
            dtype, device: of the frozen models, see `choose_device`.
            trust_remote_code: refused; a checkpoint of this class holds no code.
            adapter_kwargs: the Auto classes pass it; the adapter is found in the checkpoint.
            hub: of a download, see `HubOptions`.
        """
        if trust_remote_code or "_adapter_model_path" in (adapter_kwargs or {}):
            raise ValueError(
                f"trust_remote_code={trust_remote_code}, adapter_kwargs={adapter_kwargs} came; "
                "tiny_asr runs no code from a checkpoint, and finds its adapter: leave both out"
            )
        if unknown := hub.keys() - HubOptions.__annotations__.keys():
            raise TypeError(
                f"{', '.join(sorted(unknown))} came; expected an argument of ASRModel."
                f"from_pretrained, or one of {', '.join(HubOptions.__annotations__)}"
            )
        if config is None:
            config = ASRConfig.from_pretrained(name, encoder=encoder, decoder=decoder, **hub)
        else:  # the Auto classes bring one, without the folder that it was read from
            config.name_or_path = resolve_checkpoint(name, **hub)
        choice = choose_device(str(device), str(dtype).removeprefix("torch."))
        return cls(config, choice.dtype).to(choice.device)  # type: ignore[arg-type]


AutoConfig.register(ASRConfig.model_type, ASRConfig, exist_ok=True)
AutoModel.register(ASRConfig, ASRModel, exist_ok=True)
AutoModelForSpeechSeq2Seq.register(ASRConfig, ASRModel, exist_ok=True)  # for pipeline(...)
AutoProcessor.register(ASRConfig, ASRProcessor, exist_ok=True)
for auto in (AutoFeatureExtractor, AutoTokenizer):
    auto.register(ASRConfig, NoSuchPart, exist_ok=True)
