"""The projectors by name: what `config.projector_type` and `--projector` may say.

Each is named by its module and class, and imported when it is first asked for. A checkpoint names
a projector by its key here and can name nothing else, so that loading it runs no code of its own.
"""

from importlib import import_module
from typing import Any

PROJECTORS = {
    "mlp": "tiny_asr.projector:AudioProjector",
    "linear": "tiny_asr.projectors.linear:LinearProjector",
    "swiglu": "tiny_asr.projectors.swiglu:SwiGLUProjector",
    "normed_mlp": "tiny_asr.projectors.normed_mlp:NormedMLPProjector",
    "convolution": "tiny_asr.projectors.convolution:ConvolutionProjector",
    "cross_attention": "tiny_asr.projectors.cross_attention:CrossAttentionProjector",
}


def check_projector(name: str) -> str:
    """The name, if there is a projector of that name; else ValueError."""
    if name not in list(PROJECTORS):  # a config.json may hold what has no hash
        raise ValueError(
            f"projector_type={name!r} came; expected one of {', '.join(PROJECTORS)}: choose one, "
            "or add yours to tiny_asr.projectors.registry.PROJECTORS first"
        )
    return name


def projector_class(name: str) -> Any:
    """The class (a `Projector`) of that name."""
    module, _, attribute = PROJECTORS[check_projector(name)].partition(":")
    return getattr(import_module(module), attribute)


def fresh_projector(config, seed: int, token_embeddings) -> Any:
    """A fresh projector of the config's kind: see `Projector.fresh`."""
    return projector_class(config.projector_type).fresh(config, seed, token_embeddings)
