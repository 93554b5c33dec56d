"""The command `tiny-asr import`: another project's checkpoint as one of ours."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tiny_asr.cli.options import Decoder, Encoder, Json, check_target


def import_(
    source: Annotated[
        str, typer.Argument(metavar="ID", help="hub id (mazesmazes/tiny-audio) or a local folder")
    ],
    out: Annotated[Path, typer.Option(help="folder for the checkpoint; new or empty")],
    revision: Annotated[
        str | None, typer.Option(help="branch, tag or commit: layouts changed over time")
    ] = None,
    user_prompt: Annotated[
        str | None, typer.Option(help="what the user's turn says, <audio> in it; else its own")
    ] = None,
    encoder: Encoder = None,
    decoder: Decoder = None,
    as_json: Json = False,
) -> None:
    """Take over a trained projector of mazesmazes/tiny-audio; none of its code is run.

    Only config.json and safetensors are read. Projectors with a Whisper encoder and a frozen
    decoder are known, such as whisper-large-v3-turbo with SmolLM3-3B from November 2025 on.
    """
    check_target("--out", out, folder=True)
    from tiny_asr.projectors.tiny_audio import describe, import_checkpoint

    config = import_checkpoint(source, out, revision, encoder, decoder, user_prompt)
    if as_json:
        fields = ("projector_type", "audio_downsample_rate", "projector_hidden_dim", "encoder")
        fields += ("decoder", "encoder_padding", "prompt", "end_token", "imported_from")
        report = {"out": str(out)} | {name: vars(config)[name] for name in fields}
        print(json.dumps(report, indent=2))
    else:
        print(describe(config, out))
