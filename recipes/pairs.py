"""Write the configs of the four pairs: data/models/{tiny,small,medium,full}-asr.

    python -m recipes.pairs

A pair's folder holds its config and, once it is trained, its projector. `tiny` and `small` share a
decoder that lies in this repository. The parts of `small`, `medium` and `full` that live on the
model hub are described here by the sizes in their published configs, so that `tiny-asr info` can
speak of them without a network; when they are loaded, their own configs are read.
"""

from pathlib import Path

from transformers import LlamaConfig, SmolLM3Config, WhisperConfig

from tiny_asr.config import ASRConfig
from tiny_asr.hub import BUNDLED, data_dir
from tiny_asr.prompt import AUDIO_MARKER, INSTRUCTION

TURN = f"<|im_start|>user\n{AUDIO_MARKER}{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
# SmolLM3-3B's template with thinking switched off; see tiny_asr/prompt.py.
SMOLLM3_PROMPT = f"<|im_start|>system\n/no_think<|im_end|>\n{TURN}<think>\n\n</think>\n"
RATE = 4  # encoder frames an embedding: 16 % fewer wrong words than with 5 (see README.md)
# Before speech (150 clips) the end token of `small` has at most 0.0013, in training's noise (120)
# all but a fiftieth have more than 0.003.
NO_SPEECH = 0.003
PIECE_SECONDS = 15.0  # tiny-decoder was taught on notes of at most 45 words: three a second


def whisper_base() -> WhisperConfig:
    """Sizes of openai/whisper-base."""
    return WhisperConfig(
        vocab_size=51865,
        d_model=512,
        encoder_layers=6,
        encoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_layers=6,
        decoder_attention_heads=8,
        decoder_ffn_dim=2048,
        num_mel_bins=80,
    )


def whisper_large_v3_turbo() -> WhisperConfig:
    """Sizes of openai/whisper-large-v3-turbo."""
    return WhisperConfig(
        vocab_size=51866,
        d_model=1280,
        encoder_layers=32,
        encoder_attention_heads=20,
        encoder_ffn_dim=5120,
        decoder_layers=4,
        decoder_attention_heads=20,
        decoder_ffn_dim=5120,
        num_mel_bins=128,
    )


def smollm2_135m() -> LlamaConfig:
    """Sizes of HuggingFaceTB/SmolLM2-135M-Instruct."""
    return LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )


def smollm3_3b() -> SmolLM3Config:
    """Sizes of HuggingFaceTB/SmolLM3-3B."""
    return SmolLM3Config(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=11008,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=4,
        tie_word_embeddings=True,
    )


def main() -> None:
    """Write the four configs, and the processor where the tokenizer is here."""
    models = data_dir() / "models"
    pairs = {
        "tiny": ASRConfig(piece_seconds=PIECE_SECONDS),
        "small": ASRConfig(
            encoder="openai/whisper-base",
            encoder_config=whisper_base(),
            audio_downsample_rate=RATE,
            projector_hidden_dim=2048,
            piece_seconds=PIECE_SECONDS,
            no_speech_threshold=NO_SPEECH,
        ),
        "medium": ASRConfig(
            encoder="openai/whisper-base",
            encoder_config=whisper_base(),
            decoder="HuggingFaceTB/SmolLM2-135M-Instruct",
            decoder_config=smollm2_135m(),
            audio_downsample_rate=RATE,
            projector_hidden_dim=2048,
            prompt=TURN,
            end_token="<|im_end|>",
            piece_seconds=PIECE_SECONDS,
            no_speech_threshold=NO_SPEECH,
        ),
        "full": ASRConfig(
            encoder="openai/whisper-large-v3-turbo",
            encoder_config=whisper_large_v3_turbo(),
            decoder="HuggingFaceTB/SmolLM3-3B",
            decoder_config=smollm3_3b(),
            projector_hidden_dim=2048,
            prompt=SMOLLM3_PROMPT,
            end_token="<|im_end|>",
        ),
    }
    for name, config in pairs.items():
        directory: Path = models / f"{name}-asr"
        config.architectures = ["ASRModel"]
        config.save_pretrained(directory)
        print(f"{directory.name}: {config.encoder} + {config.decoder}")
    assert pairs["tiny"].decoder == BUNDLED + "tiny-decoder"


if __name__ == "__main__":
    main()
