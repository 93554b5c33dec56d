"""What a training would cost on GPUs that are not here, before anything is downloaded.

Everything comes from the configs: the work is counted (`flops`), and what a step keeps in memory is
asked of PyTorch with models that have shapes and no weights (`fast.activations`). Hours are that
work at the share of a GPU's peak that was measured on one H200 with the full pair, or at the speed
that a CPU reached with `tiny`; memory, peak and price of each stand in `gpus.csv`. An estimate,
then, and it says so.
"""

import csv
import math
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import try_to_load_from_cache
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import WhisperModel

from tiny_asr.adapters.lora import FOLDER, about_adapter, adapter_parameters, add_adapter
from tiny_asr.bench.flops import Work, empty_parts, training_bytes
from tiny_asr.bench.random_pair import FILLER, PROMPT_TOKENS
from tiny_asr.config import ASRConfig
from tiny_asr.data.dataset import load_data
from tiny_asr.data.mixing import parts_of
from tiny_asr.decoder import TextDecoder
from tiny_asr.fast.activations import (
    SECONDS,
    SPARE,
    TEXT_TOKENS_PER_SECOND,
    compute_twice,
    kept_bytes_per_second,
    ready_bytes_between_steps,
)
from tiny_asr.hub import BUNDLED, load_tokenizer
from tiny_asr.prompt import AUDIO_MARKER
from tiny_asr.training.cache import cache_bytes
from tiny_asr.training.settings import TrainingSettings

GPUS = Path(__file__).with_name("gpus.csv")
COLUMNS = ("gpu", "memory_gb", "tflops", "dollars_per_hour")
# Measured on one H200 (docs/speed): by (compiled, cached) the share of its nominal 989 TFLOP/s that
# training `full` reached, and how much of the activations compiled layers keep.
SHARES = {(False, False): 0.259, (False, True): 0.361, (True, False): 0.468, (True, True): 0.520}
COMPILED_KEEPS = 0.69
# And by `medium`, whose small models wait for Python: 731 h in 699 s (its card).
SOUND_PER_SECOND = 731 * 3600 / 699
MOST_SECONDS = 128 * 30.0  # of a batch: see `make_batches`
CLIP_SECONDS = 12.7  # where the data is not here: the mean of LibriSpeech's train-clean-100
NOTES = """\
Estimated, not measured: memory from the shapes; hours from the work, at {share:.0%} of
the peak that NVIDIA names (full reached that on one H200), and at most {sound:,.0f} s
of sound a second (as medium did). Of 70 W only, T4 and L4 may take far longer.
A CPU computes in 32 bits, at the speed that tiny reached on two cores.
Loading and evaluation come on top. Prices are assumed: --gpus FILE has yours.
twice: layers keep only their input and are computed twice, as train decides.
"""
ADAPTER = "adapter    rank {}, {:,} parameters of 16 bytes, with gradient and moments"


class GPU(NamedTuple):
    """One GPU: GB (10^9 bytes) of memory, dense TFLOP/s of 16 bits, dollars an hour. Of a CPU,
    which its name begins with, the TFLOP/s of 32 bits that a training reaches."""

    name: str
    memory: float
    tflops: float
    dollars: float

    @property
    def is_cpu(self) -> bool:
        """Whether it is a CPU after all."""
        return self.name.startswith("CPU")


def read_gpus(path: str | Path = GPUS) -> list[GPU]:
    """A table of GPUs: CSV with the COLUMNS; lines that begin with # are comments."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return [GPU(row[COLUMNS[0]], *(float(row[name]) for name in COLUMNS[1:])) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is no table of GPUs ({error!r}); expected CSV with the columns "
            f"{', '.join(COLUMNS)}, as in {GPUS}"
        ) from error


class _Kept(torch.autograd.Function):
    """What a GPU's attention keeps: queries, keys, values, output, and a number for each row."""

    @staticmethod
    def forward(ctx, query, key, value):
        output, sums = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float)
        ctx.save_for_backward(query, key, value, output, sums)
        return output


class _FusedAttention(TorchFunctionMode):
    """Without a GPU, PyTorch would keep all attention weights (Dao et al. 2022, arXiv:2205.14135,
    is how a GPU does without)."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            return _Kept.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class Memory(NamedTuple):
    """Bytes on one GPU: weights with what trains them, caches that evaluation leaves, and what each
    second of a batch keeps, where layers are computed once and where twice; parameters of the
    adapter, which the weights include."""

    weights: float
    ready: float
    once: float
    twice: float
    adapter: int = 0

    def largest(self, memory: float, per_second: float) -> float:
        """The most seconds of a batch in so many bytes, as `make_it_fit` judges; 0 if none."""
        most = (SPARE * (memory - self.weights) - self.ready) / per_second
        return min(max(0.0, most), MOST_SECONDS)


def memory_of(
    config: ASRConfig, compiled: bool = False, adapter_rank: int | None = None, cpu: bool = False
) -> Memory:
    """What a training of this pair needs on one GPU, or on a CPU, from its config alone.

    Args:
        adapter_rank: of the adapter that is trained too; ValueError where peft is missing.
    """
    parts, tokenizer = empty_parts(config), load_tokenizer(BUNDLED + "tiny-decoder")
    prompt = AUDIO_MARKER + FILLER * PROMPT_TOKENS
    decoder = TextDecoder(parts["decoder"], tokenizer, prompt, tokenizer.eos_token).to("meta")
    model = torch.nn.Module()
    model.audio_projector, model.decoder = parts["projector"], decoder
    model.config, model.device = config, torch.device("meta")
    if adapter_rank is not None:
        add_adapter(decoder.language_model, adapter_rank)
    adapter = sum(weight.numel() for weight in adapter_parameters(decoder.language_model))
    weights = training_bytes(config) + 16 * adapter
    with _FusedAttention():
        once = kept_bytes_per_second(model) * (COMPILED_KEEPS if compiled else 1)
        if cpu:  # in 32 bits, and layers are never computed twice
            weights += 2 * (sum(w.numel() for w in parts["encoder"].parameters()) - adapter)
            weights += 2 * sum(w.numel() for w in decoder.parameters())
            decoder.float()
            once *= 2  # for mixtures of experts, of which PyTorch has no such shapes
            with suppress(RuntimeError):
                once = kept_bytes_per_second(model)
            return Memory(weights, 0, once, math.inf, adapter)
        compute_twice(decoder)
        twice = kept_bytes_per_second(model)
    # The inputs that layers keep are not saved for a gradient, and so were not counted.
    positions = Work(config, PROMPT_TOKENS).positions(SECONDS, SECONDS * TEXT_TOKENS_PER_SECOND)
    inputs = 2 * config.llm_dim * len(decoder.layers) * positions / SECONDS
    ready = ready_bytes_between_steps(model)
    return Memory(weights, ready, once, twice + inputs, adapter)


def plan(settings: TrainingSettings, gpus: list[GPU]) -> dict:
    """A run's needs on each GPU; see `describe` for the fields. Data on this disk is read for its
    lengths; of data on the hub nothing is asked.

    Raises ValueError for settings whose models or local data can't be read.
    """
    s = settings
    config = ASRConfig.from_pretrained(s.model, encoder=s.encoder, decoder=s.decoder)
    config = config.with_parts(projector=s.projector)
    clips, seconds = _clips(s)
    tokens = round(TEXT_TOKENS_PER_SECOND * seconds) + 1
    work, cached = Work(config, PROMPT_TOKENS), s.cache is not None
    padded = seconds if config.encoder_padding == "none" else config.max_seconds
    versions = max(1, s.cache_versions)
    heard = versions * clips if cached and clips else s.max_utterances
    flops = heard * work.encode(padded) + s.max_utterances * (
        work.train_projector(seconds) + work.train_decoder(seconds, tokens)
    )
    positions = s.max_utterances * work.positions(seconds, tokens)
    again = 2 * work.sizes["decoder layers"] * positions
    there = config.saved(FOLDER)
    rank = about_adapter(there)["rank"] if there else s.adapter_rank
    kinds = {gpu.is_cpu for gpu in gpus}
    memories = {cpu: memory_of(config, s.compile and not cpu, rank, cpu) for cpu in kinds}
    adapter = max((memory.adapter for memory in memories.values()), default=0)
    share, rows = SHARES[s.compile, cached], []
    flops += 6 * adapter * positions
    for gpu in gpus:
        memory, room = memories[gpu.is_cpu], 1e9 * gpu.memory
        once, twice = (memory.largest(room, each) for each in (memory.once, memory.twice))
        fits = "yes" if once >= s.batch_seconds else "twice" if twice >= s.batch_seconds else "no"
        kept = memory.once if fits == "yes" else min(memory.once, memory.twice)
        need = memory.weights + memory.ready + kept * s.batch_seconds
        total = flops + again * (fits == "twice")
        least = s.max_utterances * seconds / SOUND_PER_SECOND
        speed = 1e12 * gpu.tflops * (1 if gpu.is_cpu else share)
        hours = max(total / speed, least) / 3600
        rows.append(
            {"gpu": gpu.name, "memory_gb": gpu.memory, "needs_gb": need / 1e9, "fits": fits}
            | {"largest_batch_seconds": once, "largest_batch_seconds_twice": twice}
            | {"hours": None if fits == "no" else hours, "dollars_per_hour": gpu.dollars}
            | {"dollars": None if fits == "no" else hours * gpu.dollars}
        )
    cache = cache_bytes(config, clips, clips * seconds) * versions if cached and clips else None
    return {
        **{"model": s.model, "utterances": s.max_utterances, "clips": clips},
        **{"clip_seconds": seconds, "batch_seconds": s.batch_seconds},
        **{"compiled": s.compile, "cached": cached},
        **{"adapter_rank": rank, "adapter_parameters": adapter},
        **{"petaflop": flops / 1e15, "share_of_peak": share},
        "cache_gb": None if cache is None else cache / 1e9,
        "cache_gb_per_hour": versions * cache_bytes(config, 3600 / seconds, 3600) / 1e9,
        "download_gb": _downloads(config),
        "stream": _streamed(s.data, s.eval_data, s.noise_data),
        "gpus": rows,
    }


def _streamed(*sources) -> list[str]:
    """Those of some sources of data that are no files here."""
    parts = [part for source in sources for part in parts_of(source or ())]
    return [part.data for part in parts if not Path(part.source).exists() and "/" in part.source]


def _clips(settings: TrainingSettings) -> tuple[int | None, float]:
    """How many clips there are, None if that is not known here, and their mean length in s."""
    s = settings
    if _streamed(s.data):
        return s.limit, CLIP_SECONDS
    columns = {"audio_column": s.audio_column, "text_column": s.text_column}
    data = load_data(s.data, split=s.split, limit=s.limit, text=s.text or "plain", **columns)
    return len(data), sum(clip.seconds for clip in data) / len(data)


def _downloads(config: ASRConfig) -> dict[str, float]:
    """GB of each model that is neither on this disk nor in the hub's cache. OpenAI's checkpoints
    hold 32 bits a weight, those with 128 mel bins 16, and Whisper's own decoder too."""
    needed = {}
    with torch.device("meta"):
        whisper = sum(w.numel() for w in WhisperModel(config.encoder_config).parameters())
    language_model = sum(w.numel() for w in empty_parts(config)["decoder"].parameters())
    width = 2 if config.num_mel_bins == 128 else 4
    for name, size in ((config.encoder, width * whisper), (config.decoder, 2 * language_model)):
        local = name.startswith(BUNDLED) or Path(name).is_dir()
        files = () if local else ("model.safetensors", "model.safetensors.index.json")
        if not (local or any(isinstance(try_to_load_from_cache(name, f), str) for f in files)):
            needed[name] = size / 1e9
    return needed


def describe(plan: dict) -> str:
    """A plan for a terminal of 80 columns."""
    p, title = plan, "once  twice"
    length = f"{p['clip_seconds']:.1f} s"
    known = "" if p["clips"] else " (assumed)"
    how = [name for name in ("compiled", "cached") if p[name]]
    downloads = [f"{name}, {size:.1f} GB" for name, size in p["download_gb"].items()]
    lines = [
        f"plan       {p['model']}: {p['utterances']:,} utterances of {length}{known}, "
        f"{p['petaflop']:,.3g} PFLOP",
        f"batches    of {p['batch_seconds']:g} s{', '.join(['', *how])}",
        *[ADAPTER.format(p["adapter_rank"], p["adapter_parameters"])] * bool(p["adapter_rank"]),
        *(f"download   {line}" for line in downloads or ["no model"]),
        *(f"stream     {name}, as FLAC 0.07 GB for each hour of sound" for name in p["stream"]),
    ]
    if p["cached"]:
        total = f", {p['cache_gb']:.1f} GB in all" if p["cache_gb"] else ""
        lines.append(f"cache      {p['cache_gb_per_hour']:.2f} GB for each hour of sound{total}")
    lines += ["", f"{'':<13}{'GB':>6}{'needed':>9}  fits  {'largest batch, s':>17}"]
    lines[-1] += f"{'hours':>9}{'$/h':>7}{'$':>9}"
    lines.append(f"{'':<36}{title:>17}".rstrip())
    for row in p["gpus"]:
        sizes = [row[f"largest_batch_seconds{k}"] // 10 * 10 for k in ("", "_twice")]
        sizes = [f"{size:,.0f}" if size else "-" for size in sizes]
        line = f"{row['gpu']:<13}{row['memory_gb']:>6g}{row['needs_gb']:>9.1f}  {row['fits']:<6}"
        line += f"{sizes[0]:>10}{sizes[1]:>7}"
        time, price = (f"{v:,.2f}" if v else "-" for v in (row["hours"], row["dollars"]))
        lines.append(f"{line}{time:>9}{row['dollars_per_hour']:>7.2f}{price:>9}")
    notes = NOTES.format(share=p["share_of_peak"], sound=SOUND_PER_SECOND)
    return "\n".join([*lines, "", notes.rstrip()])
