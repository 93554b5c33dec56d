"""ASRConfig: which encoder, which decoder, the projector's shape, the prompt.

Everything that can be read off the two frozen models' own configs is read there (widths, mel bins,
vocabulary) and never typed again.
"""

from copy import deepcopy
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig

from tiny_asr.hub import (
    BUNDLED,
    HubOptions,
    checkpoint_source,
    load_or_explain,
    load_tokenizer,
    resolve_checkpoint,
)
from tiny_asr.projectors.registry import check_projector
from tiny_asr.prompt import default_end_token, default_prompt, split_prompt

WEIGHTS = "model.safetensors"  # of a checkpoint: the projector's
PADDINGS = ("none", "window", "window_cut")  # see `mel_for_encoder`
NUMBERS = (int, float)  # by type: bool is a kind of int, too
FITTING = {  # what a field may be, and the words for it; a checkpoint's config.json holds anything
    "audio_downsample_rate": (lambda v: type(v) is int and 1 <= v <= 1500, "1 to 1500, whole"),
    "projector_hidden_dim": (lambda v: type(v) is int and 1 <= v <= 2**16, "1 to 65536, whole"),
    "projector_output_norm": (lambda v: type(v) is bool, "true or false"),
    "encoder_padding": (lambda v: v in PADDINGS, f"one of {PADDINGS}"),
    "piece_seconds": (lambda v: v is None or (type(v) in NUMBERS and v >= 1), "at least 1"),
    "no_speech_threshold": (lambda v: v is None or (type(v) in NUMBERS and 0 < v <= 1), "0 to 1"),
    "text": (lambda v: v in ("plain", "written"), "'plain' or 'written'"),
} | dict.fromkeys(("prompt", "end_token"), (lambda v: isinstance(v, str | None), "text, or None"))
IDENTITY = {
    "encoder": ("d_model", "encoder_layers", "encoder_ffn_dim", "num_mel_bins", "vocab_size"),
    "decoder": ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"),
}


class ASRConfig(PretrainedConfig):
    """A recogniser's configuration.

    Args:
        encoder: the frozen Whisper encoder: `bundled:NAME`, a directory or a hub id.
        decoder: the frozen causal language model, named the same way.
        encoder_config, decoder_config: their configs; read from their sources when not given.
        audio_downsample_rate: encoder frames stacked into one audio embedding; 5 gives 10 Hz.
        projector_type: which projector, by its name in `projectors/registry.py`.
        projector_hidden_dim: width between the projector's two linear layers.
        projector_output_norm: give audio embeddings the RMS of the decoder's token embeddings.
        encoder_padding: "none", or how the encoder's 30 s are filled up: see `mel_for_encoder`.
        prompt: the literal prompt with `<audio>` in it; from the decoder's tokenizer when None.
        end_token: the token that ends a transcript; from the decoder's tokenizer when None.
        piece_seconds: transcribe longer clips in pieces of at most so many seconds; None: in the
            longest that the encoder can take. For a decoder that loses its place in long ones.
        text: what it was trained to write: `plain`, lower-case a-z and digits, or `written`, case,
            punctuation and any script as the transcripts have them.
        no_speech_threshold: write nothing where the end is likelier than this before the first
            word (see `search.silence`); None: the decoder decides.
        fresh_projector: start with random weights, though the config is a checkpoint's.
    """

    model_type = "tiny_asr"
    has_no_defaults_at_init = True

    def __init__(
        self,
        encoder: str = BUNDLED + "tiny-encoder",
        decoder: str = BUNDLED + "tiny-decoder",
        encoder_config: dict | PretrainedConfig | None = None,
        decoder_config: dict | PretrainedConfig | None = None,
        audio_downsample_rate: int = 5,
        projector_hidden_dim: int = 1024,
        projector_output_norm: bool = True,
        projector_type: str = "mlp",
        encoder_padding: str = "none",
        prompt: str | None = None,
        end_token: str | None = None,
        piece_seconds: float | None = None,
        text: str = "plain",
        no_speech_threshold: float | None = None,
        fresh_projector: bool = False,
        **kwargs,
    ):
        for name, (fits, expected) in FITTING.items():
            if not fits(value := locals()[name]):
                raise ValueError(f"{name}={value!r} came; expected {expected}")
        super().__init__(**kwargs)
        self.encoder = str(encoder)
        self.encoder_config = _part_config(encoder_config, "encoder", self.encoder)
        self.decoder = str(decoder)
        self.decoder_config = _part_config(decoder_config, "decoder", self.decoder)
        self.audio_downsample_rate = audio_downsample_rate
        self.projector_hidden_dim = projector_hidden_dim
        self.projector_output_norm = projector_output_norm
        self.projector_type = check_projector(projector_type)
        self.encoder_padding = encoder_padding
        self.prompt, self.end_token = _words(self.decoder, prompt, end_token)
        self.piece_seconds = piece_seconds
        self.text = text
        self.no_speech_threshold = no_speech_threshold
        self.fresh_projector = fresh_projector

    @property
    def num_mel_bins(self) -> int:
        """M: mel bins the encoder expects, 80 or 128."""
        return self.encoder_config.num_mel_bins

    @property
    def encoder_dim(self) -> int:
        """Width of an encoder frame."""
        return self.encoder_config.d_model

    @property
    def llm_dim(self) -> int:
        """Width of the decoder's token embeddings."""
        return self.decoder_config.hidden_size

    @property
    def vocab_size(self) -> int:
        """V: tokens the decoder knows."""
        return self.decoder_config.vocab_size

    @property
    def samples_per_embedding(self) -> int:
        """Samples of the waveform behind one audio embedding: 320 an encoder frame, stacked."""
        return 320 * self.audio_downsample_rate

    def embeddings(self, frames):
        """A: audio embeddings of so many encoder frames, a number or (B,)."""
        return -(-frames // self.audio_downsample_rate)

    @property
    def max_seconds(self) -> float:
        """The longest piece that is transcribed at once: `piece_seconds`, but at most the whole
        embeddings in the encoder's 30 s."""
        embeddings = self.encoder_config.max_source_positions // self.audio_downsample_rate
        window = embeddings * self.samples_per_embedding / 16_000
        return window if self.piece_seconds is None else min(window, self.piece_seconds)

    @property
    def projector_weights(self) -> Path | None:
        """The file with the projector's weights; None where the projector starts fresh."""
        return self.saved(WEIGHTS)

    def saved(self, name: str) -> Path | None:
        """A part of the checkpoint; None if it has none, or its projector does not count."""
        if self.fresh_projector or not self.name_or_path:
            return None
        place = Path(self.name_or_path, name)
        return place if place.exists() else None

    def with_parts(
        self,
        encoder: str | Path | None = None,
        decoder: str | Path | None = None,
        prompt: str | None = None,
        end_token: str | None = None,
        piece_seconds: float | None = None,
        projector: str | None = None,
    ) -> "ASRConfig":
        """The same with another encoder, decoder or kind of projector, named as in `ASRConfig`.

        A part of the same sizes counts as the same part (a local copy of the hub's model, say):
        then the projector fits, and the prompt stays. Otherwise the projector starts fresh, and
        another decoder brings a prompt, an end token and a length of pieces: the given ones, or
        its own.
        """
        config = deepcopy(self)
        if encoder is not None:
            config.encoder = str(encoder)
            config.encoder_config = _part_config(None, "encoder", config.encoder)
        if decoder is not None:
            config.decoder = str(decoder)
            config.decoder_config = _part_config(None, "decoder", config.decoder)
        other_decoder = _identity("decoder", config) != _identity("decoder", self)
        if other_decoder:
            config.prompt, config.end_token = _words(config.decoder, prompt, end_token)
            config.piece_seconds = piece_seconds
        if other_decoder or _identity("encoder", config) != _identity("encoder", self):
            config.fresh_projector = True
            config.no_speech_threshold = None
        if projector not in (None, self.projector_type):
            config.projector_type, config.fresh_projector = check_projector(projector), True
        return config

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, encoder: str | None = None, decoder: str | None = None, **kwargs
    ) -> "ASRConfig":
        """Read a checkpoint's config, with another encoder or decoder in it if asked.

        Args:
            name: tiny, small, medium, full, a directory or a hub id.
            encoder, decoder: see `with_parts`.
            kwargs: `HubOptions`, fields to set, and what the Auto classes pass besides; as in
                `PretrainedConfig.from_pretrained`.
        """
        hub = {key: kwargs.pop(key) for key in kwargs.keys() & HubOptions.__annotations__.keys()}
        first = checkpoint_source(name)  # look before downloading what may be another model
        fields, _ = load_or_explain(cls.get_config_dict, "model", first, **hub)
        model_type = fields.get("model_type") if isinstance(fields, dict) else fields
        if model_type != cls.model_type:
            raise ValueError(
                f"{str(name)!r} is a {model_type!r} model; expected a tiny_asr checkpoint: name it "
                "with --encoder or --decoder if it is to be a part of one"
            )
        source = resolve_checkpoint(name, **hub)
        result = load_or_explain(super().from_pretrained, "model", source, **kwargs)
        config, *unused = result if isinstance(result, tuple) else (result,)
        config.name_or_path = source
        of_decoder = {key: kwargs.get(key) for key in ("prompt", "end_token", "piece_seconds")}
        config = config.with_parts(encoder, decoder, **of_decoder)
        if unused:  # the Auto classes ask for what is left over, too
            return (config, *unused)  # type: ignore[return-value]
        return config

    def to_dict(self) -> dict:
        """As saved, without the folders of this machine that the parts' configs were read from."""
        fields = super().to_dict()
        for part in ("encoder_config", "decoder_config"):
            fields[part].pop("_name_or_path", None)
        fields.pop("fresh_projector", None)  # what is saved has a projector
        return fields


def _part_config(given, what: str, source: str) -> PretrainedConfig:
    """A part's config: as given, rebuilt from a saved dict, or read from its source."""
    if given is None:
        given = load_or_explain(AutoConfig.from_pretrained, what, source, trust_remote_code=False)
    elif isinstance(given, dict):
        fields = {key: value for key, value in given.items() if key != "model_type"}
        given = AutoConfig.for_model(given["model_type"], **fields)
    if not isinstance(given, PretrainedConfig):
        raise ValueError(f"{what}_config={given!r:.60} came; expected its fields: {{...}}")
    came = f"the {what} {source!r} is a {given.model_type!r} model"
    if what == "encoder" and given.model_type != "whisper":
        raise ValueError(f"{came}; expected a Whisper checkpoint")
    if what == "decoder" and given.is_encoder_decoder:
        raise ValueError(f"{came}; expected a causal language model")
    return given


def _words(decoder: str, prompt: str | None, end_token: str | None) -> tuple[str, str]:
    """Prompt and end token: as given, or what the decoder's tokenizer asks for."""
    if prompt is None or end_token is None:
        tokenizer = load_tokenizer(decoder)
        prompt = default_prompt(tokenizer) if prompt is None else prompt
        end_token = default_end_token(tokenizer) if end_token is None else end_token
    split_prompt(prompt)
    return prompt, end_token


def _identity(part: str, config: ASRConfig) -> list:
    """What tells two parts apart; Whisper's vocabulary tells .en from multilingual."""
    return [getattr(getattr(config, f"{part}_config"), field) for field in IDENTITY[part]]
