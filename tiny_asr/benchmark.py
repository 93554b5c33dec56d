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
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch

from tiny_asr.audio import SAMPLE_RATE, load_audio
from tiny_asr.config import sample_clip
from tiny_asr.data import Batch, Loader, make_batches
from tiny_asr.runlog import read_log
from tiny_asr.settings import TrainingSettings
from tiny_asr.training import Trainer

TRANSCRIBED = 16  # clips in a measurement of transcription, and the larger batch of the two
FOREVER = 10**9  # utterances until something happens that would take time from a measured epoch
TEXT = "the quick brown fox jumps over the lazy dog and runs away from the old house by the river"


def write_mix(folder: Path, count: int, seed: int = 0) -> None:
    """Clips cut from the bundled sentence said over and over: X.flac of 2 to 10 s, and X.txt.

    They last 4.5 s on average. The texts are as long as such clips' usually are (2.5 words a
    second), and not what is said.
    """
    folder.mkdir()
    rng = np.random.default_rng(seed)
    sentence, words = load_audio(sample_clip()).numpy(), TEXT.split()
    for number, seconds in enumerate(np.clip(rng.normal(4.5, 1.5, count), 2, 10)):
        begin = rng.integers(len(sentence))
        sound = np.resize(np.roll(sentence, -begin), int(seconds * SAMPLE_RATE))
        soundfile.write(folder / f"clip-{number:04}.flac", sound, SAMPLE_RATE)
        text = " ".join(words[(number + k) % len(words)] for k in range(round(2.5 * seconds)))
        (folder / f"clip-{number:04}.txt").write_text(text, encoding="utf-8")


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
    say: Callable[[str], None] = print,
) -> dict:
    """Time everything; the result is plain numbers, ready for JSON.

    Args:
        data: any source of `load_data`; `write_mix` makes some without it.
        utterances: clips, each seen once in a round.
        rounds: repetitions of each measurement, of which the median counts.
    """
    if utterances < 1 or rounds < 1:
        raise ValueError(f"utterances={utterances}, rounds={rounds} came; expected at least 1")
    with TemporaryDirectory(prefix="tiny_asr_benchmark_") as folder:
        source = data or f"{folder}/mix"
        if data is None:
            write_mix(Path(source), utterances)
        runs = {}
        for name in ("uncached", "cached"):
            settings = TrainingSettings(
                data=source, out=f"{folder}/{name}", model=model, encoder=encoder, decoder=decoder,
                limit=utterances, cache=f"{folder}/cache" if name == "cached" else None,
                batch_seconds=batch_seconds, device=device, dtype=dtype, max_utterances=utterances,
                log_every=FOREVER, save_every=FOREVER, eval_every=FOREVER,
            )  # fmt: skip
            runs[name] = Trainer(settings, say=lambda line: None)
        parts = _Parts(runs["cached"])
        recogniser, clips = parts.model, parts.data
        untrained = list(recogniser.untrained)  # before the runs below touch the projector
        times: dict[str, list[float]] = {}
        for epoch in range(rounds + 1):
            say(f"benchmark: round {epoch} of {rounds}" + " (to warm up)" * (epoch == 0))
            for name, run in runs.items():
                times.setdefault(name, []).append(_epoch_of_training(run))
            for name, part in parts.all(batch_seconds, epoch).items():
                times.setdefault(name, []).append(part / len(clips))
        speeds = {f"rtfx_batch_{size}": parts.rtfx(size, rounds) for size in (1, TRANSCRIBED)}
    # In the first round memory is taken, kernels are chosen and files come from the disk.
    each = {name: median(values[1:]) for name, values in times.items()}
    rest = each["cached"] - each["read"]
    return {
        "model": model,
        "untrained": untrained,
        "data": data or "a mix of the bundled sentence",
        "utterances": len(clips),
        "mean_seconds": sum(clip.seconds for clip in clips) / len(clips),
        "batch_seconds": batch_seconds,
        "rounds": rounds,
        "device": _device_name(recogniser.device),
        "dtype": str(recogniser.dtype).removeprefix("torch."),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "parameters": {
            part: sum(weight.numel() for weight in module.parameters())
            for part, module in recogniser.named_children()
        },
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
    }


def _device_name(device: torch.device) -> str:
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu"


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
        started = self._now()
        for batch in Loader(self.data, order, multiple=multiple, workers=workers):
            if len(batch):
                self.model.encode_batch(batch.waveforms, batch.lengths)
        front, started = self._now() - started, self._now()
        for batch in self.cache.batches(self.data, order, 0, 1):
            self._read(batch)
        read = self._now() - started
        return {"front": front, "read": read, **self._models(order)}

    def _models(self, order: list[list[int]]) -> dict[str, float]:
        """The models alone: the encoder, and projector and decoder there and back."""
        bins, encoder, models = self.model.config.num_mel_bins, 0.0, 0.0
        for batch in self.cache.batches(self.data, order, 0, 1):
            frames, lengths = self._read(batch)
            labels = self.model.processor.labels(batch.texts).to(frames.device)
            mel = torch.zeros(len(batch), bins, 2 * frames.shape[1], device=frames.device)
            started = self._now()
            with torch.no_grad():
                self.model.encoder(mel, 2 * lengths)
            middle = self._now()
            with torch.autocast(
                frames.device.type, self.run.dtype, self.run.dtype is not torch.float32
            ):
                output = self.model(encoder_output=frames, encoder_lengths=lengths, labels=labels)
            output.loss.backward()
            encoder, models = encoder + middle - started, models + self._now() - middle
        self.model.audio_projector.zero_grad()
        return {"encoder": encoder, "models": models}

    def rtfx(self, batch_size: int, rounds: int) -> float:
        """Seconds of audio transcribed in a second; decoding of files is not in it."""
        clips = [clip.load() for clip in list(self.data)[:TRANSCRIBED]]
        speeds = []
        for _ in range(rounds):
            started = self._now()
            self.model.transcribe(clips, SAMPLE_RATE, batch_size=batch_size)
            speeds.append(sum(map(len, clips)) / SAMPLE_RATE / (self._now() - started))
        return median(speeds)

    def _read(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        frames, lengths = self.cache.batch(batch.ids)
        return frames.to(self.run.device), lengths.to(self.run.device)

    def _now(self) -> float:
        if self.run.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
