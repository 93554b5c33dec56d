"""Tiny random checkpoints in the hub's layout, written to disk by the tests that need them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

# The parts of SmolLM3's chat template that a prompt depends on: its roles, and its thinking switch.
SMOLLM3_LIKE_TEMPLATE = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{%- if '/no_think' in messages[0].content %}{{ '<think>\n\n</think>\n' }}{%- endif %}"
    "{%- endif %}"
)
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def write_tokenizer(directory: Path, chatml: bool) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of some 300 tokens: ChatML, or with a begin-of-text token."""
    special = ["<|im_start|>", "<|im_end|>"] if chatml else ["<s>", "</s>"]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "the cat sat on the mat and then the other one sat there too"
    raw.train_from_iterator([text], trainer)
    if not chatml:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=None if chatml else "<s>",
        eos_token=special[1],
        pad_token=special[1],
    )
    if chatml:
        tokenizer.chat_template = SMOLLM3_LIKE_TEMPLATE
    tokenizer.save_pretrained(directory)
    return tokenizer


def write_decoder(directory: Path, architecture: str = "smollm3", seed: int = 0) -> Path:
    """A random SmolLM3 (ChatML, thinking switch) or Llama (no chat template) checkpoint."""
    tokenizer = write_tokenizer(directory, chatml=architecture == "smollm3")
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(seed)
    if architecture == "smollm3":
        config = SmolLM3Config(
            vocab_size=len(tokenizer), bos_token_id=None, use_sliding_window=False, **ids, **SIZES
        )
        model = SmolLM3ForCausalLM(config)
    else:
        config = LlamaConfig(
            vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, **ids, **SIZES
        )
        model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    return directory


def write_whisper(directory: Path, num_mel_bins: int = 128, seed: int = 0) -> Path:
    """A whole random Whisper checkpoint, decoder included, as the hub has them."""
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=300,
        num_mel_bins=num_mel_bins,
        d_model=48,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    WhisperForConditionalGeneration(config).save_pretrained(directory)
    return directory
