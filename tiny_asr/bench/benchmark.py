"""How fast is it here, and where does the time go?

A cache is worth what it saves, and Amdahl's law says how much that can be: however fast it is
read, projector, decoder and optimiser still have to run. So the gain of a whole run is measured
twice: by two real runs of `Trainer`, with a cache and without, and from the parts. Where the two
disagree, something costs time that nobody accounts for.

Machines are noisy, so measurements that are compared take turns on the same batches, and medians
are shown.
"""

import os
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch

from tiny_asr.audio import load_audio
from tiny_asr.bench.random_pair import write_random_pair
from tiny_asr.bench.scaling import INTERVALS, measure_scaling
from tiny_asr.bench.stages import Ceilings, ceilings, now, peak_gib, row, stages, tokens_of, work_of
from tiny_asr.data.batches import Batch, Loader, make_batches
from tiny_asr.device import Choice, choose_device, send
from tiny_asr.fast.activations import kept_bytes_per_second
from tiny_asr.fast.int8 import quantise
from tiny_asr.hub import sample_clip
from tiny_asr.shapes import SAMPLE_RATE
from tiny_asr.training.log import read_log
from tiny_asr.training.settings import TrainingSettings
from tiny_asr.training.trainer import Trainer

MIXES = {"short": (4.5, 1.5, 2, 10), "long": (12.3, 3.8, 2, 20)}  # mean, deviation, from, to: s
BATCHES = {"cpu": [1, 16], "mps": [1, 16], "cuda": [1, 16, 128]}  # clips side by side
STAGE_SECONDS = 12.0  # of the clips that the stages are measured on
TRANSCRIBED = 16  # clips in a measurement of transcription, and the larger batch of the two
FOREVER = 10**9  # utterances until something happens that would take time from a measured epoch
TEXT = "the quick brown fox jumps over the lazy dog and runs away from the old house by the river"


def write_mix(folder: Path, count: int, mix: str = "short", seed: int = 0) -> None:
    """Clips cut from the bundled sentence said over and over: X.flac, and X.txt beside it.

    Their lengths are drawn from a normal distribution: 4.5 s, deviation 1.5 s, within 2 to 10 s for
    the short mix, and 12.3 s, 3.8 s, 2 to 20 s for the long one, which is about what LibriSpeech
    has. The texts have 2.5 words a second, which is 3.6 tokens, and are not what is said.
    """
    folder.mkdir()
    rng = np.random.default_rng(seed)
    sentence, words = load_audio(sample_clip()).numpy(), TEXT.split()
    mean, deviation, shortest, longest = MIXES[mix]
    lengths = np.clip(rng.normal(mean, deviation, count), shortest, longest)
    begins = rng.integers(len(sentence), size=count)

    def write(number: int) -> None:
        samples = int(lengths[number] * SAMPLE_RATE)
        sound = np.resize(np.roll(sentence, -begins[number]), samples)
        soundfile.write(folder / f"clip-{number:04}.flac", sound, SAMPLE_RATE)
        spoken = range(round(2.5 * lengths[number]))
        text = " ".join(words[(number + k) % len(words)] for k in spoken)
        (folder / f"clip-{number:04}.txt").write_text(text, encoding="utf-8")

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))


def measure(
    model: str = "tiny",
    data: str | None = None,
    *,
    encoder: str | None = None,
    decoder: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    utterances: int = 64,
    rounds: int = 3,
    batch_seconds: float = 60.0,
    mix: str = "short",
    random_weights: bool = False,
    compile: bool = False,
    fp8: bool = False,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> dict:
    """Time everything; the result is plain numbers, ready for JSON.

    Args:
        data: any source of `load_data`; `write_mix` makes some without it.
        utterances: clips, each seen once in a round.
        rounds: repetitions of each measurement, of which the median counts.
        mix: short or long clips; see `write_mix`.
        random_weights: the model's sizes, with weights that are drawn: nothing is fetched.
        compile, fp8, workers: as in `TrainingSettings`. With fp8 training alone is measured.
    """
    if mix not in MIXES:
        raise ValueError(f"mix {mix!r} came; expected {' or '.join(MIXES)}")
    if utterances < 1 or rounds < 1:
        raise ValueError(f"utterances={utterances}, rounds={rounds} came; expected at least 1")
    with TemporaryDirectory(prefix="tiny_asr_benchmark_") as folder:
        source = data or f"{folder}/mix"
        if data is None:
            write_mix(Path(source), utterances, mix)
        sizes = model
        if random_weights:
            model = _drawn(model, folder, choose_device(device, dtype), say)
        runs: dict[str, Trainer] = {}
        shared = None
        for name in ("uncached", "cached"):
            settings = TrainingSettings(
                data=source, out=f"{folder}/{name}", model=model, encoder=encoder, decoder=decoder,
                limit=utterances, cache=f"{folder}/cache" if name == "cached" else None,
                batch_seconds=batch_seconds, device=device, dtype=dtype, max_utterances=utterances,
                log_every=FOREVER, save_every=FOREVER, eval_every=FOREVER,
                compile=compile and shared is None, fp8=fp8 and shared is None, workers=workers,
            )  # fmt: skip
            runs[name] = Trainer(settings, say=lambda line: None, model=shared)
            shared = runs[name].model
        parts = _Parts(runs["cached"])
        recogniser, clips = parts.model, parts.data
        untrained = list(recogniser.untrained)  # before the runs below touch the projector
        limits = ceilings(recogniser.device, recogniser.dtype)
        times: dict[str, list[float]] = {}
        peaks: dict[str, float | None] = {}
        for epoch in range(rounds + 1):
            say(f"benchmark: round {epoch} of {rounds}" + " (to warm up)" * (epoch == 0))
            for name, run in runs.items():
                if run.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                times.setdefault(name, []).append(_epoch_of_training(run))
                peaks[name] = peak_gib(run.device)
                say(f"training, {name}: {1 / times[name][-1]:.1f} utterances/s")
            for name, part in parts.all(batch_seconds, epoch).items():
                times.setdefault(name, []).append(part / len(clips))
        say("benchmark: the stages alone")
        speeds = {} if random_weights or fp8 else {
            f"rtfx_batch_{size}": parts.rtfx(size, rounds) for size in (1, TRANSCRIBED)
        }  # fmt: skip
        batches = [] if fp8 else BATCHES[recogniser.device.type]  # those write, mostly
        rows = stages(recogniser, limits, batches, STAGE_SECONDS, say)
        floors = parts.floors(limits)
        kept = kept_bytes_per_second(recogniser) * batch_seconds / 2**30
        own_dtype = str(recogniser.dtype).removeprefix("torch.")
        parameters = {
            part: sum(weight.numel() for weight in module.parameters())
            for part, module in recogniser.named_children()
        }
        if speeds and recogniser.device.type == "cpu":
            quantise(recogniser)  # last, since its matrices are gone then
            speeds["rtfx_batch_1_int8"] = parts.rtfx(1, rounds)
        per_batch = len(clips) / len(
            make_batches(clips, max_seconds=batch_seconds, seed=0, epoch=0)
        )
    # In the first round memory is taken, kernels are chosen and files come from the disk.
    each = {name: median(values[1:]) for name, values in times.items()}
    rest = each["cached"] - each["read"]
    training = [
        row(f"training, {name}", round(per_batch), "clips", 1, each[name], floors[name],
            peak_gib=peaks[name])
        for name in runs
    ]  # fmt: skip
    return {
        "model": f"{sizes}, random weights" if random_weights else model,
        "untrained": untrained,
        "data": data or "a mix of the bundled sentence",
        "utterances": len(clips),
        "mean_seconds": sum(clip.seconds for clip in clips) / len(clips),
        "batch_seconds": batch_seconds,
        "compiled": compile,
        "fp8": fp8,
        "rounds": rounds,
        "device": _device_name(recogniser.device),
        "dtype": own_dtype,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "parameters": parameters,
        "train_uncached_per_second": 1 / each["uncached"],
        "train_cached_per_second": 1 / each["cached"],
        "decode_mel_encoder_per_second": 1 / each["front"],
        "cache_read_per_second": 1 / each["read"],
        "read_speedup": each["front"] / each["read"],
        "gain_measured": each["uncached"] / each["cached"],
        "gain_predicted": (each["front"] + rest) / (each["read"] + rest),
        **speeds,
        "share_outside_models_uncached": 1 - (each["encoder"] + each["models"]) / each["uncached"],
        "share_outside_models_cached": 1 - each["models"] / each["cached"],
        "kept_gib_predicted": kept,
        "stage_seconds": STAGE_SECONDS,
        "stage_tokens": tokens_of(STAGE_SECONDS),
        "matmul_tflops": limits.flops / 1e12,
        "copy_tb_per_second": limits.bytes / 1e12,
        "stages": training + rows,
    }


def measure_gpus(
    gpus: int, model: str, say: Callable[[str], None] = print, mix: str = "short",
    utterances: int = 512, random_weights: bool = False, cached: bool = False, **settings,
) -> dict:  # fmt: skip
    """Train on one GPU and on several; see `measure_scaling`.

    Args:
        cached: train on encoder outputs that are computed before.
        settings: what else `TrainingSettings` takes.
    """
    with TemporaryDirectory(prefix="tiny_asr_benchmark_") as folder:
        choice = choose_device(settings["device"], settings["dtype"])
        # All runs end within their first epoch: at its end the next clips are not yet decoded.
        write_mix(Path(folder) / "mix", INTERVALS * utterances * gpus, mix)
        if random_weights:
            model = _drawn(model, folder, choice, say)
        say(f"benchmark: training on 1, then on {gpus}")
        recipe = TrainingSettings(
            data=f"{folder}/mix", out=f"{folder}/runs", model=model, eval_every=FOREVER,
            save_every=FOREVER, cache=f"{folder}/cache" if cached else None, **settings,
        )  # fmt: skip
        result = measure_scaling(recipe, gpus, utterances)
    machine = {"gpu": _device_name(choice.device), "torch": torch.__version__}
    return {**machine, "compiled": recipe.compile, "fp8": recipe.fp8, "cached": cached, **result}


def _drawn(model: str, folder: str, choice: Choice, say: Callable[[str], None]) -> str:
    """The name of a pair of a model's sizes, with random weights."""
    say("benchmark: drawing random weights")
    return str(write_random_pair(f"{folder}/pair", model, choice.device, choice.dtype))


def _device_name(device: torch.device) -> str:
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def _epoch_of_training(run: Trainer) -> float:
    """Seconds for each clip of one more epoch, by the run's own log: start-up is not in it."""
    run.settings.max_utterances = run.state.utterances + len(run.data)
    run.train(resume=True)
    return 1 / read_log(run.out / "log.csv")[-1]["utterances_per_second"]


class _Parts:
    """The pieces of a training step, each timed alone over one epoch of the run's batches."""

    def __init__(self, run: Trainer):
        self.run, self.model, self.data, self.cache = run, run.model, run.data, run.caches[0]

    def all(self, batch_seconds: float, epoch: int) -> dict[str, float]:
        """Seconds for one epoch of: front (decode, mel, encoder), read, encoder, models."""
        order = make_batches(self.data, max_seconds=batch_seconds, seed=0, epoch=epoch)
        multiple, workers = self.model.config.samples_per_embedding, self.run.settings.workers
        started = now(self.run.device)
        pin = self.run.device.type == "cuda"
        for batch in Loader(self.data, order, multiple=multiple, workers=workers, pin=pin):
            if len(batch):
                self.model.encode_batch(batch.waveforms, batch.lengths)
        front, started = now(self.run.device) - started, now(self.run.device)
        for batch in self.cache.batches(self.data, order, 0, 1):
            self._read(batch)
        read = now(self.run.device) - started
        return {"front": front, "read": read, **self._models(order)}

    def _models(self, order: list[list[int]]) -> dict[str, float]:
        """The models alone: the encoder, and projector and decoder there and back."""
        bins, encoder, models = self.model.config.num_mel_bins, 0.0, 0.0
        for batch in self.cache.batches(self.data, order, 0, 1):
            frames, lengths = self._read(batch)
            labels = self.model.processor.labels(batch.texts).to(frames.device)
            mel = torch.zeros(len(batch), bins, 2 * frames.shape[1], device=frames.device)
            started = now(self.run.device)
            with torch.no_grad():
                self.model.encoder(mel, 2 * lengths)
            middle = now(self.run.device)
            with torch.autocast(
                frames.device.type, self.run.dtype, self.run.dtype is not torch.float32
            ):
                output = self.model(encoder_output=frames, encoder_lengths=lengths, labels=labels)
            output.loss.backward()
            encoder, models = encoder + middle - started, models + now(self.run.device) - middle
        self.model.audio_projector.zero_grad()
        return {"encoder": encoder, "models": models}

    def floors(self, limits: Ceilings) -> dict[str, float]:
        """The seconds for each clip that a training step takes at least, without and with cache."""
        work, labels = work_of(self.model), self.model.processor.labels
        clips = list(self.data)
        encoder = sum(work.encode(clip.seconds) for clip in clips) / len(clips)
        rest = sum(
            work.train_projector(clip.seconds)
            + work.train_decoder(clip.seconds, labels([clip.text]).numel())
            for clip in clips
        )
        return {
            "uncached": limits.floor(encoder + rest / len(clips)),
            "cached": limits.floor(rest / len(clips)),
        }

    def rtfx(self, batch_size: int, rounds: int) -> float:
        """Seconds of audio transcribed in a second; decoding of files is not in it."""
        clips = [clip.load() for clip in list(self.data)[:TRANSCRIBED]]
        speeds = []
        for _ in range(rounds):
            started = now(self.run.device)
            self.model.transcribe(clips, SAMPLE_RATE, batch_size=batch_size)
            speeds.append(sum(map(len, clips)) / SAMPLE_RATE / (now(self.run.device) - started))
        return median(speeds)

    def _read(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        frames, lengths = self.cache.batch(batch.ids)
        return send(frames, self.run.device), lengths
