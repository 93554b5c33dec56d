"""What the commands of both command-line modules share: their options, and loading a model.

The same option means the same in every command because it is declared once, here. The heavy
libraries are imported inside the functions, so that help comes at once.
"""

from importlib.util import find_spec
from typing import Annotated

import typer

Model = Annotated[
    str | None, typer.Option(help="tiny, small, full, a checkpoint's directory or a hub id")
]
Encoder = Annotated[str | None, typer.Option(help="another Whisper encoder: directory or hub id")]
Decoder = Annotated[str | None, typer.Option(help="another language model: directory or hub id")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")]
Dtype = Annotated[
    str | None,
    typer.Option(help="of the frozen models: auto, float32; half as big: bfloat16, float16"),
]
Json = Annotated[bool, typer.Option("--json", help="one object on stdout, the rest on stderr")]
Data = Annotated[
    str | None,
    typer.Option(help="a parquet file, a folder, or a hub id (owner/name, owner/name:config)"),
]
Split = Annotated[str | None, typer.Option(help="train, dev, ... of a folder or a hub id")]
AudioColumn = Annotated[str | None, typer.Option(help="where the sound is; audio if not given")]
TextColumn = Annotated[str | None, typer.Option(help="where the text is; text if not given")]
Limit = Annotated[int | None, typer.Option(help="the first so many clips only")]
BatchSeconds = Annotated[float | None, typer.Option(help="padded seconds of audio in a batch")]

NO_PICTURES = (
    "no matplotlib here, which draws them; expected the extra `course`: "
    "pip install 'tiny-asr[course]'"
)


def can_draw() -> bool:
    """Whether matplotlib is installed, which recognising and training do without."""
    return find_spec("matplotlib") is not None


def load_model(model: str, encoder: str | None, decoder: str | None, device: str, dtype: str):
    """The model that the shared options ask for, and the device and dtype chosen for it."""
    from tiny_asr.config import ASRConfig
    from tiny_asr.device import available_memory_bytes, choose_device
    from tiny_asr.model import ASRModel

    choice = choose_device(device, dtype)
    config = ASRConfig.from_pretrained(model, encoder=encoder, decoder=decoder)
    need, free = memory_bytes(config, choice), available_memory_bytes(choice.device)
    if need > free:  # said before gigabytes are downloaded and read
        half = "--dtype bfloat16 or " if choice.dtype.itemsize > 2 else ""
        raise ValueError(
            f"not enough memory on {choice.device}: needs about {need / 1e9:.1f} GB as "
            f"{place(choice)['dtype']}, {free / 1e9:.1f} GB free; use {half}a smaller model"
        )
    recogniser = ASRModel.from_pretrained(
        model, encoder=encoder, decoder=decoder, dtype=choice.dtype, device=choice.device
    )
    return recogniser, choice


def place(choice) -> dict[str, str]:
    """The device and dtype of a `Choice`, for JSON."""
    return {"device": str(choice.device), "dtype": str(choice.dtype).removeprefix("torch.")}


def parameters(config) -> dict[str, int]:
    """Parameters of each part of a pair; no weights are loaded."""
    from tiny_asr.flops import sizes

    numbers = sizes(config)
    return {part: numbers[part] for part in ("encoder", "decoder", "projector")}


def memory_bytes(config, choice) -> int:
    """What the parameters take: the frozen models in their dtype, the projector in float32."""
    numbers = parameters(config)
    return (numbers["encoder"] + numbers["decoder"]) * choice.dtype.itemsize + (
        numbers["projector"] * 4
    )


def error_line(error: Exception | str) -> str:
    """What a user reads of an error, on one line."""
    return "tiny-asr: " + " ".join(str(error).split())
