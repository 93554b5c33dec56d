"""LoRA: small trained matrices beside the decoder's frozen ones.

A frozen matrix W becomes W + (alpha / r) B A, with A (r, in) random and B (out, r) zero at first,
so that training begins with the decoder as it was (Hu et al. 2021, arXiv:2106.09685). The adapters
are those of the package `peft`, and are saved in its own format, beside the projector:
`adapter/adapter_model.safetensors` and `adapter/adapter_config.json`.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from tiny_asr.hub import seeded

FOLDER = "adapter"  # in a checkpoint
WEIGHTS = "adapter_model.safetensors"


def add_adapter(language_model: Any, rank: int, seed: int = 0) -> None:
    """Put a fresh adapter on all matrices of the language model's layers, with alpha = 2 r.

    Args:
        language_model: changed in place; its own weights stay frozen.
        rank: r, the inner width; 8 to 64 is usual.
        seed: of A's random numbers.
    Raises ValueError where peft is missing, there is an adapter already, or r is too large.
    """
    peft = _peft()
    if has_adapter(language_model):
        raise ValueError(
            f"adapter_rank={rank} came for a decoder that has an adapter; expected one without: "
            "leave it out to train on the adapter that there is"
        )
    if rank > (width := language_model.config.hidden_size):
        raise ValueError(
            f"adapter_rank={rank} came for a decoder that is {width} wide; expected at most so "
            "many, since no matrix has a higher rank: 8 to 64 is usual"
        )
    how = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    with seeded(seed), _strict():
        _keep(language_model, peft.get_peft_model(language_model, how))


def load_adapter(language_model: Any, folder: Path) -> None:
    """Put the adapter in a folder on the language model, ready to be trained on.

    Raises ValueError where peft is missing, or the adapter can't be read or does not fit.
    """
    if not (folder / WEIGHTS).is_file():  # peft would look for a pickle, or on the hub
        raise ValueError(f"{folder} holds no {WEIGHTS}; expected a whole adapter: copy it again")
    load = _peft().PeftModel.from_pretrained
    try:
        with _strict():
            _keep(language_model, load(language_model, str(folder), is_trainable=True))
    except (RuntimeError, ValueError, TypeError, OSError, SafetensorError, UserWarning) as error:
        raise ValueError(
            f"cannot load the adapter {folder}: {str(error).splitlines()[0]}; expected one that "
            "was trained for this decoder"
        ) from error


def about_adapter(folder: Path) -> dict:
    """What is known of a saved adapter without loading it: rank, alpha, matrices that it changes,
    bytes of its weights. Raises ValueError where it can't be read."""
    try:
        how = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS, "np") as file:
            matrices = sum(".lora_A." in name for name in file.keys())  # noqa: SIM118 (no dict)
        size = (folder / WEIGHTS).stat().st_size
        return {"rank": how["r"], "alpha": how["lora_alpha"], "matrices": matrices, "bytes": size}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        what = f"cannot read the adapter {folder} ({error}); expected {WEIGHTS} and its config"
        raise ValueError(f"{what}: copy it again") from error


def save_adapter(language_model: Any, folder: Path, decoder: str) -> None:
    """Write the adapter; its config names the decoder that it belongs to."""
    adapter = vars(language_model)["adapter"]
    adapter.peft_config["default"].base_model_name_or_path = decoder
    # Embeddings are never trained here; unless told, peft looks for their config on the hub.
    adapter.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's form for a model card


def merge_adapter(language_model: Any) -> None:
    """Add B A to the matrices for as long as this model lives: then writing costs no more.

    In 16 bits it would be rounded away in part, so only do this in float32.
    """
    vars(language_model)["adapter"].merge_adapter()


def has_adapter(language_model: Any) -> bool:
    """Whether `add_adapter` or `load_adapter` was here."""
    return "adapter" in vars(language_model)


def adapter_parameters(language_model: Any) -> list[nn.Parameter]:
    """The matrices A and B of all layers; none without an adapter."""
    return [p for name, p in language_model.named_parameters() if "lora_" in name]


def _keep(language_model: Any, adapter: Any) -> None:
    """Remember peft's view of the model, without making it a part of the model again."""
    vars(language_model)["adapter"] = adapter
    language_model.eval()


@contextmanager
def _strict() -> Iterator[None]:
    """Weights that a file lacks are an error for us; peft warns and goes on with random ones."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        yield


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ValueError(
            "no peft here, which has the adapters; expected the extra `adapters`: "
            "pip install '.[adapters]' in the clone"
        ) from error
    return peft
