"""Checkpoints of `mazesmazes/tiny-audio`, the project that the course's text names, as ours.

Its repositories hold a `config.json` of type `asr_model`, which names a Whisper encoder and a
language model, and the projector's weights. What these are called, and so which projector they
are, changed over time; here the layouts are told apart by the names of their weights, and by
nothing else. The encoder always heard 30 s, the clip and silence behind it, so what is imported
has `encoder_padding` set.

Only JSON and safetensors are read. The Python files in those repositories are not even fetched.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tiny_asr.config import WEIGHTS, ASRConfig
from tiny_asr.hub import load_or_explain, load_tokenizer
from tiny_asr.processor import ASRProcessor
from tiny_asr.projectors.registry import projector_class
from tiny_asr.prompt import AUDIO_MARKER, default_end_token, split_prompt

MODEL_TYPE = "asr_model"
WEIGHT_FILES = ("model.safetensors", "projector.safetensors")
ADAPTERS = "adapter_config.json"
RATES = ("projector_pool_stride", "audio_downsample_rate", "encoder_projector_ds_rate")


@dataclass(frozen=True)
class Layout:
    """What a projector's weights are called there and here, and how it was used.

    names: theirs -> ours, without ".weight".
    projector_type: of ours, which computes the same.
    hidden: our name of the weight whose rows are the hidden width; None where there is none.
    padding: see `mel_for_encoder`.
    user_prompt: where the config has none.
    """

    names: dict[str, str]
    projector_type: str
    hidden: str | None
    padding: str
    user_prompt: str = f"Transcribe: {AUDIO_MARKER}"


ENDS = {"ln_pre": "input_norm", "ln_post": "output_norm"}
NORMED = {"linear_1": "linear1", "norm": "hidden_norm", "linear_2": "linear2"}
LATER_PROMPT = f"{AUDIO_MARKER} Transcribe the speech to text"
LAYOUTS = (
    # From 19 November 2025.
    Layout(
        ENDS | {"proj.w1": "gate", "proj.w2": "up", "proj.w3": "down"}, "swiglu", "gate", "window"
    ),
    # Early November 2025: the same by other names, or a single matrix.
    Layout(
        ENDS | {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"},
        "swiglu",
        "gate",
        "window",
    ),
    Layout(ENDS | {"proj": "linear"}, "linear", None, "window"),
    # 2026: the decoder reads the embeddings of the clip alone, first without a norm at the end.
    Layout(NORMED | {"norm_2": "output_norm"}, "normed_mlp", "linear1", "window_cut", LATER_PROMPT),
    Layout(NORMED, "normed_mlp", "linear1", "window_cut", LATER_PROMPT),
)


def import_checkpoint(
    source: str | Path,
    out: str | Path,
    revision: str | None = None,
    encoder: str | None = None,
    decoder: str | None = None,
    user_prompt: str | None = None,
) -> ASRConfig:
    """Write one of those checkpoints as one of ours, which `ASRModel.from_pretrained` takes.

    Neither encoder nor decoder is downloaded for it, but their configs and the tokenizer are.

    Args:
        source: hub id or a local folder.
        out: the new checkpoint's folder; must not be there, or be empty.
        revision: branch, tag or commit of a hub id.
        encoder, decoder: where these are now, say local copies; else as the checkpoint names them.
        user_prompt: what the user's turn says, `<audio>` in it; else the checkpoint's own.
    Returns:
        The config, as it was saved.
    Raises ValueError for another model, an encoder that is no Whisper, a projector of an unknown
    layout (with the names of its weights), adapters, and files that are missing or damaged.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; expected a new or empty folder: choose another")
    folder, source = _folder(source, revision), str(source)

    def refuse(what: str) -> ValueError:
        return ValueError(f"cannot import {source!r}: {what}")

    fields = _fields(folder, refuse)
    weights = _weights(folder, refuse)
    layout = _layout(weights, refuse)
    state = {ours: weights[f"{theirs}.weight"] for theirs, ours in layout.names.items()}
    end_norm = "output_norm" in state
    stated = encoder or fields["audio_model_id"], decoder or fields["text_model_id"]
    tokenizer = load_tokenizer(stated[1])
    config = ASRConfig(
        *stated,
        projector_type=layout.projector_type,
        projector_output_norm=end_norm,
        projector_hidden_dim=len(state[layout.hidden]) if layout.hidden else 1024,
        encoder_padding=layout.padding,
        prompt=_prompt(tokenizer, fields, user_prompt or layout.user_prompt, user_prompt is None),
        end_token=default_end_token(tokenizer),
        imported_from=source if revision is None else f"{source}@{revision}",
    )
    first = state.get("input_norm", state.get("linear1"))
    assert first is not None
    config.audio_downsample_rate = _rate(first.shape[-1], config.encoder_dim, fields, refuse)
    projector = projector_class(config.projector_type)(config)
    try:
        projector.load_state_dict({f"{name}.weight": tensor for name, tensor in state.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise refuse(
            f"its projector does not fit {stated[0]} ({config.encoder_dim} wide) and {stated[1]} "
            f"({config.llm_dim} wide): {reason}; expected the models that it was trained with"
        ) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.") as partial:
        whole = Path(partial, "checkpoint")
        config.architectures = ["ASRModel"]
        config.save_pretrained(whole)
        ASRProcessor.of(config, tokenizer).save_pretrained(whole)
        projector.save(whole / WEIGHTS)
        whole.replace(out)
    return config


def _folder(source: str | Path, revision: str | None) -> Path:
    """Where the files are; of the hub's, only those that are read here are fetched."""
    if Path(source).expanduser().is_dir():
        if revision is not None:
            raise ValueError(
                f"--revision {revision} came with the folder {str(source)!r}; expected a hub id "
                "with it: leave it out"
            )
        return Path(source).expanduser()
    files = ["config.json", *WEIGHT_FILES, ADAPTERS]
    options = {"revision": revision, "allow_patterns": files}
    return Path(load_or_explain(snapshot_download, "checkpoint", str(source), **options))


def _fields(folder: Path, refuse: Callable[[str], ValueError]) -> dict:
    """What config.json says, once it is known that this can be imported."""
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refuse(f"its config.json cannot be read ({error})") from error
    if fields.get("model_type") != MODEL_TYPE:
        raise refuse(
            f"it is a {fields.get('model_type')!r} model; expected {MODEL_TYPE!r}, as "
            "mazesmazes/tiny-audio has them"
        )
    if missing := {"audio_model_id", "text_model_id"} - fields.keys():
        raise refuse(f"its config.json does not say {' and '.join(sorted(missing))}")
    encoder = fields["audio_model_id"]
    kind = (fields.get("audio_config") or {}).get("model_type")
    if kind is None and not Path(encoder).is_dir():  # then its name has to tell
        kind = "whisper" if "whisper" in encoder.lower() else "another"
    if kind not in ("whisper", None):
        raise refuse(
            f"its encoder {encoder!r} is no Whisper ({kind} model); expected one: this package "
            "hears with Whisper's encoder only. Choose an earlier or later --revision"
        )
    if fields.get("use_lora") or (folder / ADAPTERS).exists():
        raise refuse(
            "its decoder has adapters (LoRA), without which the projector is not worth much; "
            "expected a frozen decoder: choose another --revision"
        )
    return fields


def _weights(folder: Path, refuse: Callable[[str], ValueError]) -> dict[str, Tensor]:
    """The projector's weights in float32, by their names without the prefix."""
    found = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not found:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise refuse(
            f"there is none of {', '.join(WEIGHT_FILES)} ({there}); other weight formats run code "
            "when they are loaded, and are never read"
        )
    try:
        state = load_file(found[0])
    except (OSError, SafetensorError) as error:
        raise refuse(f"{found[0].name} is damaged ({error}); fetch it again") from error
    if odd := [name for name, tensor in state.items() if tensor.ndim not in (1, 2)]:
        raise refuse(f"{', '.join(odd[:3])} in {found[0].name} is neither a vector nor a matrix")
    return {name.removeprefix("projector."): tensor.float() for name, tensor in state.items()}


def _layout(weights: dict[str, Tensor], refuse: Callable[[str], ValueError]) -> Layout:
    """The one that these weights have."""
    for layout in LAYOUTS:
        if weights.keys() == {f"{name}.weight" for name in layout.names}:
            return layout
    names = sorted(weights)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    known = "; ".join(", ".join(layout.names) for layout in LAYOUTS)
    raise refuse(
        f"its projector has an unknown layout, with the weights {', '.join(names[:12])}{more}; "
        f"expected one of: {known}. Another --revision may have one"
    )


def _rate(width: int, encoder_dim: int, fields: dict, refuse: Callable[[str], ValueError]) -> int:
    """Frames in a stack, by the width of the first weight; the config has to agree."""
    rate, left = divmod(width, encoder_dim)
    stated = {name: fields[name] for name in RATES if fields.get(name) is not None}
    if left or rate < 1 or any(number != rate for number in stated.values()):
        raise refuse(
            f"its projector reads {width} numbers at a time and its config.json says {stated}, "
            f"while the encoder's frames have {encoder_dim}; expected a whole number of frames, "
            "the same in both"
        )
    return rate


def _prompt(tokenizer, fields: dict, user_prompt: str, own: bool) -> str:
    """The chat as its template writes it, up to where the assistant answers."""
    if own:
        user_prompt = fields.get("user_prompt") or user_prompt
    split_prompt(user_prompt)
    chat = [{"role": "user", "content": user_prompt}]
    if fields.get("system_prompt"):
        chat.insert(0, {"role": "system", "content": fields["system_prompt"]})
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    return tokenizer.apply_chat_template(chat, **options)


def describe(config: ASRConfig, out: str | Path) -> str:
    """What was imported, and what to do next, for a terminal."""
    with torch.device("meta"):
        projector = projector_class(config.projector_type)(config)
    count = sum(weight.numel() for weight in projector.parameters())
    rows = {
        "projector": f"{config.projector_type}, {count / 1e6:.2f} M parameters, "
        f"{config.audio_downsample_rate} frames an embedding",
        "encoder": f"{config.encoder}, padding {config.encoder_padding}",
        "decoder": config.decoder,
        "prompt": repr(config.prompt),
        "next": f"tiny-asr transcribe FILE --model {out}",
    }
    return "\n".join(f"{name:<10} {value}" for name, value in rows.items())
