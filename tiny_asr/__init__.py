"""tiny_asr: a speech recogniser small enough to read in an afternoon.

    audio -> log-mel -> Whisper encoder (frozen) -> projector (trained) -> decoder (frozen) -> text

Importing this package is instant: each public name below loads its module, and with it torch and
transformers, only when it is first used (PEP 562).
"""

from importlib import import_module

__version__ = "0.1.0"

_MODULE_OF = {
    "ASRConfig": "config",
    "data_dir": "hub",
    "puzzle_clip": "hub",
    "sample_clip": "hub",
    "load_audio": "audio",
    "log_mel": "audio",
    "AudioEncoder": "encoder",
    "AudioProjector": "projector",
    "TextDecoder": "decoder",
    "ASRModel": "model",
    "ASRProcessor": "processor",
    "ASRPipeline": "serve.pipeline",
    "trace_clip": "figures.trace",
}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tiny_asr' has no attribute {name!r}")
    return getattr(import_module(f"tiny_asr.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
