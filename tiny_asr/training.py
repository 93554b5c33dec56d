"""The training loop: everything frozen but the projector, and nothing lost.

The loop is Accelerate's, so the same code runs on a laptop, on a GPU and, started with
`accelerate launch -m tiny_asr.cli train ...`, on many. A step's clips are chosen before they are
split among the processes and the loss is the summed token loss over all of them divided by their
tokens, so the number of processes changes nothing.

A run can be killed at any moment: `resume=True` continues from the last checkpoint and ends with
the same weights as if nothing had happened.
"""

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import GradScalerKwargs
from torch import Tensor

from tiny_asr.audio import HOP_LENGTH, log_mel
from tiny_asr.augment import Augment
from tiny_asr.cache import EncoderCache, build_cache
from tiny_asr.checkpoint import (
    TrainingState,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
    write_files,
)
from tiny_asr.data import Batch, Loader, load_data, make_batches, noise_utterances, rank_slice
from tiny_asr.decoder import IGNORE
from tiny_asr.device import choose_device
from tiny_asr.evaluation import evaluate
from tiny_asr.model import ASRModel, token_loss
from tiny_asr.runlog import NOT_LEARNING, Interval, append_log, hardly_falling, progress_line
from tiny_asr.settings import TrainingSettings, learning_rate_at

MAX_SKIPPED_IN_A_ROW = 10


class Trainer:
    """One run: model, data, optimiser, and the state that a checkpoint keeps.

    Args:
        settings: see `TrainingSettings`.
        say: takes the lines of progress; `print` by default, on the main process only.
        on_log: called with the state and the model after each logged interval.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        say: Callable[[str], None] = print,
        on_log: Callable[[TrainingState, ASRModel], None] | None = None,
    ):
        self.settings, self.on_log = settings, on_log
        self.out = Path(settings.out)
        choice = choose_device(settings.device, settings.dtype)
        precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(choice.dtype, "no")
        self.accelerator = Accelerator(
            cpu=choice.device.type == "cpu",
            mixed_precision=precision,
            kwargs_handlers=[GradScalerKwargs(init_scale=1024.0)],
        )
        self.say = say if self.accelerator.is_main_process else _silent
        self.say(f"device: {self.accelerator.device}, {precision} autocast ({choice.reason})")
        self.model = self._load_model(choice.dtype)
        self._load_data()
        self.projector = self.model.audio_projector
        optimizer = torch.optim.AdamW(
            self.projector.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=settings.weight_decay,
        )
        self.wrapped, self.optimizer = self.accelerator.prepare(self.projector, optimizer)
        self.augment = Augment(settings.augment, seed=settings.seed, noise=self.noise)
        self.state = TrainingState()
        self.stop_signal: int | None = None

    def _load_model(self, dtype: torch.dtype) -> ASRModel:
        s = self.settings
        model = ASRModel.from_pretrained(
            s.model,
            encoder=s.encoder,
            decoder=s.decoder,
            dtype=dtype,
            device=self.accelerator.device,
        )
        if s.fresh:
            model.reset_projector(s.seed)
        return model

    def _load_data(self) -> None:
        s = self.settings
        columns = {"audio_column": s.audio_column, "text_column": s.text_column}
        self.data = load_data(s.data, split=s.split, limit=s.limit, **columns)
        self.say(self.data.summary())
        self.noise = []
        if s.noise_data is not None:
            noise = noise_utterances(s.noise_data)
            self.data = self.data.with_noise(noise, s.noise_fraction)
            if s.augment.noise_probability > 0:
                self.noise = [clip.load() for clip in noise]
        self.eval_data = None
        if s.eval_data is not None:
            self.eval_data = load_data(s.eval_data, split=s.eval_split, **columns)
        self.cache = None
        if s.cache is not None:
            with self.accelerator.main_process_first():
                self.cache = open_cache(self.model, self.data, s.cache, s.workers, self.say)

    # The loop ----------------------------------------------------------------------------------

    def train(self, resume: bool = False) -> TrainingState:
        """Run to `max_utterances`; the best model lies in `out` afterwards.

        Args:
            resume: continue from the last checkpoint in `out`, if there is one.
        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM, when a checkpoint is saved.
        """
        s = self.settings
        if has_checkpoint(self.out):
            if not resume:
                raise ValueError(
                    f"{self.out} holds a run already; expected an empty folder: choose another, or "
                    "continue that run with --resume"
                )
            self.state = load_checkpoint(self.out, self.projector, self.optimizer, self.say)
            self.say(f"resumed at step {self.state.step}, {self.state.utterances} utterances")
        state = self.state
        if self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            s.save(self.out / "run.yaml")
        self._stream = self._epoch()
        interval, skipped_in_a_row = Interval(state), 0
        with self._stop_on_signal():
            while state.utterances < s.max_utterances:
                before = state.utterances
                stop, finite = self._step(interval)
                skipped_in_a_row = 0 if finite else skipped_in_a_row + 1
                if skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                    raise ValueError(
                        f"{skipped_in_a_row} steps in a row had a loss or gradient that is not "
                        "finite; stopped. Lower the learning rate, or use float32 or bfloat16; "
                        f"the last checkpoint in {self.out} is from before"
                    )
                done = state.utterances >= s.max_utterances

                def due(every: int, before=before, done=done) -> bool:
                    return done or state.utterances // every > before // every

                if due(s.log_every) or due(s.eval_every):
                    self._log(interval.row(), evaluate_now=due(s.eval_every))
                    interval = Interval(state)
                if stop or due(s.save_every):
                    self._save()
                if stop and not done:
                    self.say(f"stopped; a checkpoint of step {state.step} is saved: use --resume")
                    raise KeyboardInterrupt
        return state

    def _step(self, interval: "Interval") -> tuple[bool, bool]:
        """One optimiser step. Returns whether a stop was asked for, and whether all was finite."""
        s, state, accelerator = self.settings, self.state, self.accelerator
        batches = self._next_batches()
        labels = [self.model.processor.labels(batch.texts) for batch in batches]
        local = [
            sum(int((rows != IGNORE).sum()) for rows in labels),
            sum(len(batch) for batch in batches),
            int(self.stop_signal is not None),
        ]
        counts = torch.tensor(local, device=accelerator.device)
        tokens, clips, stop = accelerator.reduce(counts, "sum").tolist()
        rate = learning_rate_at(state.utterances, s)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        summed = torch.zeros((), device=accelerator.device)
        for number, (batch, rows) in enumerate(zip(batches, labels, strict=True), 1):
            with self._sync_only_at(number == len(batches)):
                loss = self._summed_loss(batch, rows)
                # DDP takes the mean over processes; times their number that is the sum.
                accelerator.backward(loss * accelerator.num_processes / max(1, tokens))
            summed += loss.detach()
        loss = float(accelerator.reduce(summed, "sum")) / max(1, tokens)
        norm = float(accelerator.clip_grad_norm_(self.projector.parameters(), s.max_grad_norm))
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite or accelerator.scaler is not None:
            self.optimizer.step()  # a gradient scaler leaves out a bad step itself, and adapts
        self.optimizer.zero_grad()
        state.step += 1
        state.utterances += clips
        state.skipped += not finite
        interval.add(loss, norm, rate, finite)
        return bool(stop), finite

    def _sync_only_at(self, last: bool):
        """DDP sends gradients around in the last of the accumulated passes only."""
        return nullcontext() if last else self.accelerator.no_sync(self.wrapped)

    def _summed_loss(self, batch: Batch, labels: Tensor) -> Tensor:
        """The token losses of this process's share of a batch, added up."""
        if len(batch) == 0:  # nothing to learn, but DDP waits for this process's gradients
            config = self.model.config
            silence = torch.zeros(1, config.audio_downsample_rate, config.encoder_dim)
            return self.wrapped(silence.to(self.accelerator.device)).sum() * 0
        frames, lengths = self._encoder_output(batch)
        rate = self.model.config.audio_downsample_rate
        labels = labels.to(self.accelerator.device)
        logits = self.model.decoder.text_logits(self.wrapped(frames), lengths // rate, labels)
        return token_loss(logits, labels, "sum")

    @torch.no_grad()
    def _encoder_output(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encoder frames (B, T, encoder_dim) and each clip's own (B,): cached, or heard anew."""
        device, epoch = self.accelerator.device, self.state.epoch
        if self.cache is not None:
            frames, lengths = self.cache.batch(batch.ids)
            frames, lengths = frames.to(device), lengths.to(device)
        else:
            multiple, bins = self.model.config.samples_per_embedding, self.model.config.num_mel_bins
            waveforms, lengths = self.augment.waveform(
                batch.waveforms.to(device), batch.lengths, batch.ids, epoch, multiple
            )
            mel, lengths = log_mel(waveforms, bins, lengths), lengths // HOP_LENGTH
            mel = self.augment.mel(mel, lengths, batch.ids, epoch)
            frames, lengths = self.model.encoder(mel, lengths), (lengths // 2).to(device)
        return self.augment.encoder(frames, lengths, batch.ids, epoch), lengths

    def _next_batches(self) -> list[Batch]:
        """This process's share of the next step's batches; the next epoch begins where one ends."""
        state, batches = self.state, []
        while len(batches) < self.settings.accumulation:
            batch = next(self._stream, None)
            if batch is None:
                state.epoch, state.batch = state.epoch + 1, 0
                self._stream = self._epoch()
                continue
            state.batch += 1
            batches.append(batch)
        return batches

    def _epoch(self) -> Iterator[Batch]:
        """The rest of the current epoch, from `state.batch` on."""
        s, state, ranks = self.settings, self.state, self.accelerator.num_processes
        batches = make_batches(
            self.data, max_seconds=s.batch_seconds, seed=s.seed, epoch=state.epoch
        )[state.batch :]
        share = {"rank": self.accelerator.process_index, "num_processes": ranks}
        if self.cache is not None:
            return iter(CachedLoader(self.data, batches, self.cache, **share))
        return iter(Loader(self.data, batches, workers=s.workers, **share))

    # What is kept ------------------------------------------------------------------------------

    def _save(self) -> None:
        """A checkpoint to resume from; without evaluation data it is also the model to use."""
        if self.accelerator.is_main_process:
            save_checkpoint(self.out, self.projector, self.optimizer, self.state)
            if self.eval_data is None:
                self._keep_model()
        self.accelerator.wait_for_everyone()

    def _keep_model(self) -> None:
        """Put the present model into `out`, each file whole."""
        folder = self.out / "best.partial"
        write_files(folder, self.out, self.model.save_pretrained)

    def _log(self, row: dict, evaluate_now: bool) -> None:
        """A line of progress and of `log.csv`; the best model so far is kept in `out`."""
        state, s = self.state, self.settings
        if evaluate_now and self.eval_data is not None and self.accelerator.is_main_process:
            row["wer"] = evaluate(self.model, self.eval_data, limit=s.eval_limit).wer
            if state.best is None or row["wer"] < state.best:
                state.best = row["wer"]
                self._keep_model()
        if self.accelerator.is_main_process:
            append_log(self.out / "log.csv", row)
        self.say(progress_line(row, s.max_utterances))
        state.losses.append(row["loss"])
        if hardly_falling(state.losses):
            self.say(NOT_LEARNING.format(utterances=state.utterances))
        if self.on_log is not None:
            self.on_log(state, self.model)

    @contextmanager
    def _stop_on_signal(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for a stop after the step at hand; a second one stops at once."""

        def ask(number, frame):
            if self.stop_signal is not None:
                raise KeyboardInterrupt
            self.stop_signal = number

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class CachedLoader:
    """Batches like those of `Loader`, with nothing decoded: the cache knows the clips by their ids.

    Clips that could not be decoded when the cache was made are not in it, and are left out.
    """

    def __init__(self, data, batches, cache: EncoderCache, rank: int, num_processes: int):
        self.data, self.batches, self.cache = data, batches, cache
        self.rank, self.num_processes = rank, num_processes

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            share = rank_slice(batch, self.rank, self.num_processes)
            clips = [self.data[i] for i in share if self.data[i].id in self.cache.clips]
            yield Batch(
                ids=[clip.id for clip in clips],
                waveforms=torch.zeros(0, 0),
                lengths=torch.zeros(0, dtype=torch.int64),
                texts=[clip.text for clip in clips],
                seconds=[clip.seconds for clip in clips],
            )


def open_cache(model, data, directory: str, workers: int, say) -> EncoderCache:
    """The cache of a data set, made if need be; see `build_cache`."""

    def batches(clips):
        order = make_batches(clips, max_seconds=120.0, seed=0, epoch=0, shuffle=False)
        return Loader(clips, order, multiple=model.config.samples_per_embedding, workers=workers)

    return build_cache(model, data, directory, batches, say)


def _silent(line: str) -> None:
    """Only the main process speaks."""
