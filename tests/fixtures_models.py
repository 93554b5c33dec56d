"""Checkpoints, models and clips that several test files share, made once a run.

The tests call plain cached functions rather than pytest fixtures, so that each file says in its
imports what it uses. Nobody may change a model that came from here: load a fresh one for that.
"""

import shutil
from functools import cache, wraps
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet
import torch
from checkpoints import write_decoder, write_whisper
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny_asr import ASRConfig, ASRModel, load_audio

ARCHITECTURES = ("smollm3", "llama")
ENCODER_DIM, LLM_DIM = 48, 32  # of the checkpoints that checkpoints.py writes
_FOLDER = TemporaryDirectory(prefix="tiny_asr_tests_")  # removed when the process ends


def once(make):
    """Call `make` once for each choice of arguments; a default left out is the same as given."""
    cached = cache(make)

    @wraps(make)
    def wrapper(*args):
        bound = signature(make).bind(*args)
        bound.apply_defaults()
        return cached(*bound.args)

    return wrapper


def folder(name: str) -> Path:
    """A place for one checkpoint, in this run's temporary folder."""
    return Path(_FOLDER.name) / name


@once
def encoder_dir(num_mel_bins: int = 80) -> Path:
    """A random Whisper checkpoint."""
    return write_whisper(folder(f"whisper-{num_mel_bins}"), num_mel_bins)


@once
def decoder_dir(architecture: str = "smollm3") -> Path:
    """A random language model, initialised as usual: it says the same whatever it hears."""
    return write_decoder(folder(architecture), architecture)


@once
def talkative_decoder_dir(architecture: str = "smollm3") -> Path:
    """A random language model with large weights: what it says depends on all that it reads."""
    source, directory = decoder_dir(architecture), folder(f"talkative-{architecture}")
    shutil.copytree(source, directory)
    language_model = AutoModelForCausalLM.from_pretrained(source)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in language_model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.3)
    language_model.save_pretrained(directory)
    return directory


def decoder_of(language_model, name: str, architecture: str = "llama") -> Path:
    """Write any language model beside the tokenizer that `architecture` has here."""
    language_model.save_pretrained(folder(name))
    AutoTokenizer.from_pretrained(decoder_dir(architecture)).save_pretrained(folder(name))
    return folder(name)


def strengthen(model: ASRModel) -> ASRModel:
    """Make a fresh projector's output depend on the sound enough to change what is written."""
    with torch.no_grad():
        for weight in model.audio_projector.parameters():
            if weight.ndim == 2:
                weight.mul_(5)
    return model


def parameters(module: torch.nn.Module) -> int:
    """How many numbers a model holds."""
    return sum(weight.numel() for weight in module.parameters())


@once
def pair_config(architecture: str = "smollm3") -> ASRConfig:
    """The config of random encoder and decoder."""
    return ASRConfig(encoder=encoder_dir(), decoder=decoder_dir(architecture))


@once
def pair(architecture: str = "smollm3") -> ASRModel:
    """Random encoder and decoder with a fresh projector."""
    return ASRModel(pair_config(architecture))


@once
def talkative(architecture: str = "smollm3") -> ASRModel:
    """A model whose random text differs from clip to clip."""
    config = ASRConfig(encoder=encoder_dir(), decoder=talkative_decoder_dir(architecture))
    return strengthen(ASRModel(config))


@once
def checkpoint_dir(architecture: str = "smollm3") -> Path:
    """The talkative model, saved."""
    talkative(architecture).save_pretrained(folder(f"asr-{architecture}"))
    return folder(f"asr-{architecture}")


@once
def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    """A clip (S,) at 16 kHz: noise that gets louder and softer twice a second, as speech does."""
    samples = int(seconds * 16_000)
    generator = torch.Generator().manual_seed(seed)
    loudness = 0.1 * (1 + torch.sin(torch.arange(samples) * (2 * torch.pi * 2 / 16_000)))
    return loudness * torch.randn(samples, generator=generator)


def some_noises() -> list[torch.Tensor]:
    """Four clips of unlike lengths, none of them a whole number of audio embeddings."""
    return [noise(seconds, seed) for seed, seconds in enumerate((0.53, 1.01, 1.77, 2.38))]


@once
def human_clips(shared: Path, count: int = 4) -> tuple[torch.Tensor, ...]:
    """The first clips of real speech in the shared material."""
    file = pyarrow.parquet.ParquetFile(shared / "speech" / "dev.parquet")
    rows = next(file.iter_batches(batch_size=count, columns=["audio"])).to_pylist()
    return tuple(load_audio(row["audio"]) for row in rows)
