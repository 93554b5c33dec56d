"""Makes what the tiny pair needs before anyone has trained it: two configs and a tokenizer.

    data/models/tiny-encoder/   config.json preprocessor_config.json
    data/models/tiny-decoder/   config.json generation_config.json tokenizer.json
                                tokenizer_config.json chat_template.jinja

Both folders have the hub's layout, so `transformers` reads them as it reads any checkpoint. Without
the weights that encoder.py and decoder.py train, the package draws some from a fixed seed and says
"untrained".

    python -m recipes.tiny_parts

reads the transcripts that text.py made. Nothing is random: the same versions of tokenizers and
transformers write the same bytes again.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    SmolLM3Config,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from recipes.text import CHECKOUT, WORK

# Encoder: Whisper's architecture, about 7 million parameters.
ENCODER_DIM = 256
NUM_MEL_BINS = 80
# Decoder: SmolLM3's architecture, about 8 million parameters.
LLM_DIM = 288
VOCABULARY = 2048
MAX_POSITIONS = 1024  # 30 s are 300 audio embeddings; prompt and text fit beside them
PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
SILENCE = "<|silence|>"  # stands in messy notes where nothing was said; never in a transcript

EVERY = 6  # of the text's lines: a sixth of each book is enough for 2048 pieces
# The words of the prompt, whole, as often as it takes to become pieces of their own: each piece
# less in the prompt is a position less to compute for every clip.
PROMPT_WORDS = ("user\n", "assistant\n", "transcribe the speech.")
PROMPT_EVERY = 20  # lines

# ChatML with SmolLM3's roles. SmolLM3 thinks unless told not to; this decoder is too small to, so
# its template has neither /no_think nor an empty <think> block.
CHAT_TEMPLATE = """\
{%- for message in messages %}
{%- if message.role not in ['system', 'user', 'assistant'] %}
{{- raise_exception("unknown role '" + message.role + "'; expected system, user or assistant") }}
{%- endif %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def lines_to_learn(text: Path) -> Iterator[str]:
    """Some of the transcripts, and the prompt's words between them."""
    with open(text, encoding="utf-8") as lines:
        for number, line in enumerate(islice(lines, 0, None, EVERY)):
            yield line.strip()
            if number % PROMPT_EVERY == 0:
                yield from PROMPT_WORDS


def train_tokenizer(text: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of VOCABULARY pieces: lower case, one token a digit.

    Byte-level pieces (as GPT-2's) spell anything, so nothing is ever unknown, and carry their
    space in front: " words" is one piece, "words" at the very beginning another. No space is added
    in front, so decoding gives back exactly the lower-cased text, and a target that follows
    "assistant\\n" is tokenised as it is written, without a space.
    """
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END, SILENCE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(lines_to_learn(text), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START, SILENCE],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def write_encoder(directory: Path) -> None:
    """The encoder's config. Whisper's own decoder is never built, so its fields are the least."""
    WhisperConfig(
        architectures=["WhisperForConditionalGeneration"],
        num_mel_bins=NUM_MEL_BINS,
        d_model=ENCODER_DIM,
        encoder_layers=8,
        encoder_attention_heads=4,
        encoder_ffn_dim=4 * ENCODER_DIM,
        max_source_positions=1500,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=ENCODER_DIM,
        max_target_positions=1,
        vocab_size=4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        begin_suppress_tokens=None,
    ).save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=NUM_MEL_BINS).save_pretrained(directory)


def write_decoder(directory: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The decoder's config and its tokenizer."""
    config = SmolLM3Config(
        architectures=["SmolLM3ForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=LLM_DIM,
        intermediate_size=3 * LLM_DIM,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        no_rope_layer_interval=4,  # as in SmolLM3: every 4th layer has no rotary positions
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        use_sliding_window=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.save_pretrained(directory)
    GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    ).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the tiny pair's configs and tokenizer.")
    parser.add_argument(
        "--text",
        type=Path,
        default=WORK / "text" / "train.txt",
        help="transcripts to train the tokenizer on, one a line",
    )
    parser.add_argument(
        "--out", type=Path, default=CHECKOUT / "data" / "models", help="where the folders go"
    )
    arguments = parser.parse_args()
    if not arguments.text.is_file():
        parser.error(f"no text at {arguments.text}; run recipes/text.py, or use --text")
    write_encoder(arguments.out / "tiny-encoder")
    tokenizer = train_tokenizer(arguments.text)
    write_decoder(arguments.out / "tiny-decoder", tokenizer)
    print(f"wrote tiny-encoder and tiny-decoder to {arguments.out}: {len(tokenizer)} pieces")


if __name__ == "__main__":
    main()
