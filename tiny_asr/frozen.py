"""Loading the two frozen models: whole, and without running anybody's code.

A checkpoint that lacks weights would be filled with random numbers by the loader, one in another
format than safetensors could run code, and one with code in it could ask to run that. All three
are refused here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.utils import logging as hf_logging

from tiny_asr.config import BUNDLED, load_or_explain, resolve_source
from tiny_asr.encoder import HUB_PREFIX, EncoderOfCheckpoint

SEED = 0  # of the weights of parts that nobody has trained yet


@contextmanager
def progress_for(source: str) -> Iterator[None]:
    """Progress bars for a model from the hub, which may take minutes; none for one on this disk.

    What the loader finds missing is raised as an error, and not shown as a table besides.
    """
    shown, level = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    if Path(source).is_dir():
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if shown:
            hf_logging.enable_progress_bar()


def load_frozen(part: str, name: str, config: PretrainedConfig, dtype: torch.dtype):
    """Load the encoder or the decoder with all its weights, from safetensors only.

    A bundled model that nobody has trained yet gets random weights, the same ones each time.

    Args:
        part: "encoder" or "decoder".
        name: `bundled:NAME`, a directory or a hub id.
        config: the part's own config.
        dtype: of the weights.
    Returns:
        The model, and whether it was trained.
    """
    source = resolve_source(name, part)
    has_weights = not Path(source).is_dir() or any(Path(source).glob("*.safetensors"))
    loader = EncoderOfCheckpoint if part == "encoder" else AutoModelForCausalLM
    if has_weights:
        options = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
        options |= (
            {"key_mapping": HUB_PREFIX} if part == "encoder" else {"trust_remote_code": False}
        )
        with progress_for(source):
            model, loaded = load_or_explain(loader.from_pretrained, part, name, **options)
        if loaded["missing_keys"]:
            missing = ", ".join(sorted(loaded["missing_keys"])[:3])
            raise ValueError(
                f"cannot load the {part} {name!r}: it lacks {len(loaded['missing_keys'])} weights "
                f"({missing}, ...); expected all of them: download it again"
            )
        return model, True
    if not name.startswith(BUNDLED):
        raise ValueError(
            f"the {part} directory {name!r} holds no *.safetensors; expected a checkpoint in the "
            "hub's layout (other weight formats run code when they are loaded, and are refused)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = loader(config) if part == "encoder" else loader.from_config(config)
    return model.to(dtype), False
