"""What the commands share: their options, each declared once, and loading a model.

The heavy libraries are imported inside the functions, so that help comes at once.
"""

import gc
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

Model = Annotated[
    str | None, typer.Option(help="tiny, small, medium, full, a checkpoint's directory or a hub id")
]
Encoder = Annotated[str | None, typer.Option(help="another Whisper encoder: directory or hub id")]
Decoder = Annotated[str | None, typer.Option(help="another language model: directory or hub id")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N, or mps")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="of the frozen models: auto, float32; half as big: bfloat16, float16; to write text "
        "int8, the decoder's matrices: on a CPU faster, with --device cuda smaller"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="one object on stdout, the rest on stderr")]
Beams = Annotated[
    int, typer.Option(min=1, max=64, help="texts tried side by side for each clip; 1 is greedy")
]
Hints = Annotated[
    str, typer.Option(help="words to prefer, such as names, with commas: 'Siobhan, Nguyen'")
]
Words = Annotated[bool, typer.Option("--words", help="when each word is said, in seconds")]
Format = Annotated[str, typer.Option("--format", help="text, or subtitles of one file: srt, vtt")]
Data = Annotated[
    str | None,
    typer.Option(
        help="a parquet file, a folder, a hub id (owner/name:config), or a name such as "
        "librispeech:test-clean, tedlium:test, mls:german"
    ),
]
Split = Annotated[str | None, typer.Option(help="train, dev, ... of a folder or a hub id")]
AudioColumn = Annotated[str | None, typer.Option(help="where the sound is; audio if not given")]
TextColumn = Annotated[str | None, typer.Option(help="where the text is; text if not given")]
Text = Annotated[
    str | None,
    typer.Option(help="plain: a-z and digits; written: case, punctuation, any script, as they are"),
]
Limit = Annotated[int | None, typer.Option(help="the first so many clips only")]


def finite(number: float | None) -> float | None:
    """For an option's callback: typer takes NaN and infinity for numbers."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} came; expected a finite number")
    return number


BatchSeconds = Annotated[
    float | None, typer.Option(help="padded seconds of audio in a batch", callback=finite)
]

NO_PICTURES = (
    "no matplotlib here, which draws them; expected the extra `course`: "
    "pip install '.[course]' in the clone"
)


def can_draw() -> bool:
    """Whether matplotlib is installed, which recognising and training do without."""
    return find_spec("matplotlib") is not None


def check_target(option: str, path: Path | str | None, folder: bool = False) -> None:
    """Refuse, before minutes of work, a place that nothing can be written to.

    Args:
        path: a file in a folder that is there; or a `folder`, which is made where it is not there.
    """
    if path is None:
        return
    path, problem = Path(path), ""
    try:
        os.fsencode(path).decode()
        home = path if folder else path.parent
        while folder and not home.exists() and home != home.parent:
            home = home.parent
        if "\0" in str(path):
            problem = "its name holds a null character"
        elif not home.is_dir():
            problem = f"{home} is a file" if home.exists() else f"there is no folder {home}"
        elif not folder and path.exists() and not path.is_file():
            problem = "it is a folder or a device"
        elif shut := [p for p in (path, home) if p.exists() and not os.access(p, os.W_OK)]:
            problem = f"{shut[0]} can't be written to"  # files are replaced by whole new ones
    except UnicodeError:
        problem = "its name is not UTF-8"
    except OSError as error:  # such as a name that is too long
        problem = str(error.strerror)
    if problem:
        what = "a folder" if folder else "a file"
        raise ValueError(f"{option} {str(path)!r}: {problem}; expected {what} to write: choose one")


def stdin() -> BinaryIO:
    """What comes on stdin; ValueError where it is closed."""
    if sys.stdin is None:
        raise ValueError("stdin is closed; expected sound on it: pipe some in, or name a file")
    return sys.stdin.buffer


def words_of(hints: str) -> list[str]:
    """The words of the option --hints."""
    return [word.strip() for word in hints.split(",") if word.strip()]


@contextmanager
def collecting_nothing() -> Iterator[None]:
    """Importing and loading make a million objects that stay: a fifth of the time goes into Python
    looking for garbage among them. What is there at the end is never looked through again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@collecting_nothing()
def load_model(model: str, encoder: str | None, decoder: str | None, device: str, dtype: str):
    """The model that the shared options ask for, and the device and dtype chosen for it."""
    import torch

    from tiny_asr.adapters.lora import has_adapter, merge_adapter
    from tiny_asr.config import ASRConfig
    from tiny_asr.device import available_memory_bytes, choose_device
    from tiny_asr.fast.int8 import quantise
    from tiny_asr.model import ASRModel

    int8 = dtype == "int8"
    device = "cpu" if int8 and device == "auto" else device
    choice = choose_device(device, "auto" if int8 else dtype)
    if int8 and choice.device.type == "mps":
        raise ValueError(f"dtype int8 came with device {device}; expected cpu or cuda")
    config = ASRConfig.from_pretrained(model, encoder=encoder, decoder=decoder)
    first = choice._replace(device=torch.device("cpu")) if int8 else choice
    less = {2: "int8" if choice.device.type == "cuda" else "", 4: "bfloat16"}[choice.dtype.itemsize]
    for here in dict.fromkeys((first, choice)):  # said before gigabytes are downloaded and read
        need, free = memory_bytes(config, here, int8), available_memory_bytes(here.device)
        if need > free:
            raise ValueError(
                f"not enough memory on {here.device}: needs about {need / 1e9:.1f} GB as "
                f"{'int8' if int8 else place(choice)['dtype']}, {free / 1e9:.1f} GB free; use "
                f"{f'--dtype {less} or ' if less and not int8 else ''}a smaller model"
            )
    recogniser = ASRModel.from_pretrained(
        model, encoder=encoder, decoder=decoder, dtype=choice.dtype, device=first.device
    )
    llm = recogniser.decoder.language_model
    if has_adapter(llm) and (int8 or choice.dtype.itemsize == 4):
        merge_adapter(llm)
    if int8:
        quantise(recogniser)
        recogniser.to(choice.device)
        choice = choice._replace(dtype=torch.int8)
    return recogniser, choice


def place(choice) -> dict[str, str]:
    """The device and dtype of a `Choice`, for JSON."""
    return {"device": str(choice.device), "dtype": str(choice.dtype).removeprefix("torch.")}


def memory_bytes(config, choice, int8: bool = False) -> int:
    """What the parameters take, the frozen models in their dtype and the projector in float32; on a
    GPU with the key-value caches that lie ready there, the decoder's matrices in 8 bits if int8."""
    from tiny_asr.bench.flops import sizes

    numbers, width = sizes(config), choice.dtype.itemsize
    weights = (numbers["encoder"] + numbers["decoder"]) * width + numbers["projector"] * 4
    if choice.device.type != "cuda":
        return weights
    if int8:  # a head in 8 bits is not the embeddings' any more
        heads = numbers["head"] * (1 if config.decoder_config.tie_word_embeddings else 1 - width)
        weights += heads - numbers["decoder layers"] * (width - 1)
    from tiny_asr.decoder import most_columns
    from tiny_asr.fast.ready_caches import ready_bytes
    from tiny_asr.model import BATCH_SIZE
    from tiny_asr.prompt import USUAL_TOKENS

    audio = config.max_seconds * 16_000 // config.samples_per_embedding
    columns = most_columns(USUAL_TOKENS, int(audio))
    return weights + ready_bytes(numbers["cached"], width, BATCH_SIZE, columns)


def printable(text: str) -> str:
    """An untrained decoder writes control characters too, which would upset a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def error_line(error: Exception | str) -> str:
    """What a user reads of an error, on one line; what is not UTF-8 is shown as an escape."""
    return f"tiny-asr: {' '.join(str(error).split())}".encode(errors="backslashreplace").decode()
