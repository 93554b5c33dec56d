"""The command `tiny-asr serve`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tiny_asr.cli.options import Decoder, Device, Dtype, Encoder, Model, load_model


def serve(
    host: Annotated[str, typer.Option(help="other than this machine's own: needs a token")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="TINY_ASR_TOKEN", help="what clients have to send as their API key"),
    ] = None,
    max_mb: Annotated[float, typer.Option(help="megabytes of an upload")] = 25.0,
    max_seconds: Annotated[float, typer.Option(help="seconds of sound in an upload")] = 1500.0,
    queue: Annotated[int, typer.Option(help="requests open at the same time")] = 64,
    batch_size: Annotated[int, typer.Option(help="pieces of sound decoded together")] = 8,
    model: Model = "tiny",
    encoder: Encoder = None,
    decoder: Decoder = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Transcribe for other programs, by HTTP: POST /v1/audio/transcriptions as OpenAI has it."""
    if missing := [
        name for name in ("fastapi", "uvicorn", "python_multipart") if not find_spec(name)
    ]:
        raise ValueError(
            f"no {' or '.join(missing)} here; expected the extra `serve`: "
            "pip install '.[serve]' in the clone"
        )
    from tiny_asr.serve.limits import Limits
    from tiny_asr.serve.run import listen
    from tiny_asr.serve.run import serve as run

    limits = Limits(max_mb, max_seconds, queue, batch_size)
    address = listen(host, port, token or None)  # before minutes of loading
    with address:
        recogniser, _ = load_model(model, encoder, decoder, device, dtype)
        name = Path(model).name if Path(model).is_dir() else str(model)
        run(recogniser, name, address, limits, token or None)
