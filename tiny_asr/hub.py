"""Where models are found, and how they are loaded: whole, and without running anybody's code.

A model's name is `bundled:NAME` for one in this repository or wheel, a local directory, or a hub
id. A checkpoint that lacks weights would be filled with random numbers by the loader, one in
another format than safetensors could run code, and one with code in it could ask to run that. All
three are refused here.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig
from transformers.utils import logging as hf_logging

PAIRS = ("tiny", "small", "medium", "full")
BUNDLED = "bundled:"
OWNER_AND_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")  # of a model; a path may begin with "."
MISTYPED = (TypeError, AttributeError, StrictDataclassError)  # of a config.json
SEED = 0  # of the weights of parts that nobody has trained yet


class HubOptions(TypedDict, total=False):
    """Of a download from the hub, as everywhere in `transformers`."""

    revision: str | None
    token: str | None
    cache_dir: str | Path | None
    force_download: bool
    local_files_only: bool


def data_dir() -> Path:
    """The folder of bundled models and clips.

    `TINY_ASR_DATA` if set, else `data/` of the checkout, else `tiny_asr/_data` inside a wheel.
    """
    package = Path(__file__).resolve().parent
    places = [package.parent / "data", package / "_data"]
    if "TINY_ASR_DATA" in os.environ:
        places = [Path(os.environ["TINY_ASR_DATA"])]
    for place in places:
        if (place / "models").is_dir():
            return place
    raise ValueError(
        f"no bundled models at {' or '.join(map(str, places))}; expected a folder with models/ in "
        "it: set TINY_ASR_DATA to it, or reinstall tiny-asr"
    )


def sample_clip() -> Path:
    """The bundled sentence that the trace and the notebooks use."""
    return data_dir() / "sample.flac"


def puzzle_clip() -> Path:
    """The same sentence spoken by a robot, which the course asks about."""
    return data_dir() / "puzzle.flac"


def resolve_source(name: str | Path, what: str = "model") -> str:
    """Turn a model's name into what `transformers` can load: a directory or a hub id.

    Args:
        name: `bundled:NAME`, a local directory, or a hub id `owner/name`.
        what: the word for it in an error message.
    """
    name = str(name)
    if name.startswith(BUNDLED):
        models = data_dir() / "models"
        directory = models / name.removeprefix(BUNDLED)
        if not (directory / "config.json").is_file():
            known = ", ".join(sorted(BUNDLED + p.parent.name for p in models.glob("*/config.json")))
            raise ValueError(f"no {what} {name!r} is bundled; expected one of: {known}")
        return str(directory)
    directory = Path(name).expanduser()
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise ValueError(
                f"the {what} directory {name!r} has no config.json; expected a checkpoint in the "
                "hub's layout (config.json and safetensors)"
            )
        return str(directory)
    if OWNER_AND_NAME.fullmatch(name):
        return name
    raise ValueError(
        f"{what} {name!r} was not found; expected a directory with a config.json, a hub id "
        f"owner/name, or {BUNDLED}NAME"
    )


def others_can_load(name: str) -> bool:
    """Whether a model's name means the same on another machine: it is bundled, or a hub id."""
    on_this_disk = Path(name).exists() or not OWNER_AND_NAME.fullmatch(name)
    return name.startswith(BUNDLED) or not on_this_disk


def checkpoint_source(name: str | Path) -> str:
    """Like `resolve_source`, for a whole recogniser: the pairs of `PAIRS` work too."""
    if str(name) in PAIRS:
        return resolve_source(f"{BUNDLED}{name}-asr")
    try:
        return resolve_source(name)
    except ValueError as error:
        raise ValueError(f"{error}, or one of the pairs: {', '.join(PAIRS)}") from None


def resolve_checkpoint(name: str | Path, **hub: Unpack[HubOptions]) -> str:
    """The directory of a recogniser's checkpoint; one from the hub is downloaded (a few MB)."""
    source = checkpoint_source(name)
    if Path(source).is_dir():
        return source
    files = ["*.json", "*.jinja", "model.safetensors", "ctc.safetensors", "adapter/*.safetensors"]
    return load_or_explain(snapshot_download, "model", source, allow_patterns=files, **hub)


def load_or_explain(load, what: str, name: str, **options):
    """Call one of transformers' loaders; a failure becomes one ValueError that says what to do."""
    source = resolve_source(name, what)
    try:
        return load(source, **options)
    except (OSError, LookupError, ValueError, RuntimeError, SafetensorError, *MISTYPED) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "ignore_mismatched_sizes" in reason:
            reason = "it has weights of other sizes than its config.json says"
        advice = (
            "is it complete and in the hub's layout?"
            if Path(source).is_dir()
            else f"there is no folder {name!r}, and no hub model of that name could be reached: "
            "check the spelling; without network, or with HF_HUB_OFFLINE=1, name a local copy or "
            "use --model tiny"
        )
        raise ValueError(f"cannot load the {what} {name!r}: {reason} ({advice})") from error


def load_tokenizer(decoder: str):
    """The tokenizer of a decoder; code that its checkpoint may hold is not run."""
    return load_or_explain(
        AutoTokenizer.from_pretrained, "decoder", decoder, trust_remote_code=False
    )


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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this block, random numbers on the CPU depend on `seed` alone; the ones outside on
    whatever they did. (`torch.manual_seed` would seed the GPUs as well.)"""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


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
    from tiny_asr.encoder import (  # seconds that `info` need not wait
        HUB_PREFIX,
        EncoderOfCheckpoint,
    )

    source = resolve_source(name, part)
    has_weights = not Path(source).is_dir() or any(Path(source).glob("*.safetensors"))
    loader: Any = EncoderOfCheckpoint if part == "encoder" else AutoModelForCausalLM
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
    with seeded(SEED):
        model = loader(config) if part == "encoder" else loader.from_config(config)
    return model.to(dtype), False
