"""A pair with random weights, of any size, in the hub's layout: for measuring and for testing.

How fast a model runs does not depend on the values of its weights, and neither does whether a run
can be killed and resumed. So both can be tried at full size where no hub can be reached.
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tiny_asr.config import ASRConfig
from tiny_asr.encoder import EncoderOfCheckpoint
from tiny_asr.hub import load_tokenizer, progress_for
from tiny_asr.prompt import AUDIO_MARKER, default_prompt, split_prompt

PROMPT_TOKENS = 20
FILLER = " the"  # one token, to lengthen the prompt


def write_random_pair(
    folder: str | Path, model: str, device: torch.device, dtype: torch.dtype
) -> Path:
    """Write `encoder/`, `decoder/` and a `config.json` that names them; 7.4 GB for `full`.

    The tokenizer is that of the bundled decoder, so transcripts of any model are pieces of it; the
    prompt has 20 tokens.

    Args:
        folder: made if it is not there.
        model: whose sizes to take: a pair, a directory or a hub id.
        device: where the weights are drawn, as a GPU is much faster.
        dtype: of the files.
    """
    folder, config = Path(folder), ASRConfig.from_pretrained(model)
    tokenizer = load_tokenizer("bundled:tiny-decoder")
    folder.mkdir(parents=True, exist_ok=True)
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus), progress_for(str(folder)):
        torch.manual_seed(0)
        with device:
            encoder = EncoderOfCheckpoint(config.encoder_config).to(dtype)
            encoder.save_pretrained(folder / "encoder")
            del encoder
            decoder = AutoModelForCausalLM.from_config(config.decoder_config, dtype=dtype)
            decoder.save_pretrained(folder / "decoder")
            del decoder
    tokenizer.save_pretrained(folder / "decoder")
    prompt = default_prompt(tokenizer)
    parts = tokenizer(list(split_prompt(prompt)), add_special_tokens=False).input_ids
    missing = PROMPT_TOKENS - sum(map(len, parts))
    prompt = prompt.replace(AUDIO_MARKER, AUDIO_MARKER + FILLER * missing)
    ASRConfig(
        str(folder / "encoder"),
        str(folder / "decoder"),
        audio_downsample_rate=config.audio_downsample_rate,
        projector_hidden_dim=config.projector_hidden_dim,
        projector_type=config.projector_type,
        encoder_padding=config.encoder_padding,
        prompt=prompt,
    ).save_pretrained(folder)
    return folder
