"""The training loop: everything frozen but the projector, and nothing lost.

Accelerate spreads the loop, so the same code runs on a laptop, on a GPU and, started with
`accelerate launch -m tiny_asr.cli train ...`, on many. A step's clips are chosen before they are
split among the processes and the loss is the summed token loss over all of them divided by their
tokens, so the number of processes changes nothing.

A run can be killed at any moment: `resume=True` continues from the last checkpoint and ends with
the same weights as if nothing had happened.
"""

import gc
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from itertools import chain, count
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from tiny_asr.adapters.lora import adapter_parameters, add_adapter
from tiny_asr.config import ASRConfig
from tiny_asr.data.augment import Augment
from tiny_asr.data.batches import Batch, Loader, make_batches
from tiny_asr.data.dataset import load_data, noise_utterances, write_left_out
from tiny_asr.decoder import token_loss
from tiny_asr.device import choose_device, send
from tiny_asr.evaluation.normalisers import FOR_TEXT
from tiny_asr.evaluation.score import evaluate
from tiny_asr.fast.activations import make_it_fit
from tiny_asr.fast.compiling import compile_layers
from tiny_asr.fast.fp8 import check_device, use_fp8
from tiny_asr.fast.outcomes import Outcomes
from tiny_asr.model import ASRModel
from tiny_asr.shapes import IGNORE
from tiny_asr.training.cache import EncoderCache, build_cache, cache_keys, heard
from tiny_asr.training.checkpoint import (
    TrainingState,
    alone_in,
    explain_failure,
    has_checkpoint,
    has_run,
    load_checkpoint,
    save_checkpoint,
    save_model,
)
from tiny_asr.training.log import NOT_LEARNING, Interval, append_log, hardly_falling, progress_line
from tiny_asr.training.settings import TrainingSettings, learning_rate_at
from tiny_asr.training.texts import lost_by_tokenizer
from tiny_asr.training.tracking import check_trackers, start_trackers, track
from tiny_asr.training.trained import parameter_groups, what_is_trained

MAX_SKIPPED_IN_A_ROW = 10
# Others wait while the main process evaluates or fills a cache, longer than the usual 10 minutes.
LONGEST_WAIT = timedelta(days=2)
LEFT_OUT = "left_out.csv"  # in a run's folder: which clips, and why


class Trainer:
    """One run: model, data, optimiser, and the state that a checkpoint keeps.

    Args:
        settings: see `TrainingSettings`.
        model: what to train, instead of loading what the settings name.
        say: takes the lines of progress; `print` by default, on the main process only.
        on_log: called with the state and the model after each logged interval.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        say: Callable[[str], None] = print,
        on_log: Callable[[TrainingState, ASRModel], None] | None = None,
        model: ASRModel | None = None,
    ):
        s = self.settings = settings
        self.out, self.on_log = Path(s.out), on_log
        choice = choose_device(s.device, s.dtype)
        if choice.device.index is not None:
            torch.cuda.set_device(choice.device)  # Accelerate takes the current one
        # The autocast is our own: Accelerate's is fixed for the life of the process, and a notebook
        # trains more than once.
        self.accelerator = Accelerator(
            cpu=choice.device.type == "cpu",
            mixed_precision="no",
            log_with=check_trackers(s.trackers) or None,
            project_dir=self.out,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
        )
        self.device, self.dtype = self.accelerator.device, choice.dtype
        if self.device.type != choice.device.type:
            raise ValueError(
                f"device {choice.device.type} came in a process that uses {self.device.type}; "
                f"expected the same: restart it, or set device={self.device.type}"
            )
        if s.fp8:
            check_device(self.device)  # before gigabytes are loaded
        self.say = say if self.accelerator.is_main_process else lambda line: None
        ranks = self.accelerator.num_processes
        self.say(f"device: {self.device}, {self.dtype}, processes: {ranks} ({choice.reason})")
        if model is None:
            config = ASRConfig.from_pretrained(s.model, encoder=s.encoder, decoder=s.decoder)
            config = config.with_parts(projector=s.projector)
            config.text = s.text or config.text
            place = {"dtype": self.dtype, "device": self.device}
            model = ASRModel.from_pretrained(s.model, config=config, **place)
        self.model = model
        if s.adapter_rank is not None:
            add_adapter(self.model.decoder.language_model, s.adapter_rank, s.seed)
        self.trained = what_is_trained(self.model, s.freeze_projector)
        if adapter := sum(p.nbytes for p in adapter_parameters(self.model.decoder.language_model)):
            self.say(f"adapter: {adapter / 1000:.0f} kB of weights on the decoder")
        if s.fp8:
            self.say(use_fp8(self.model))
        if s.compile:
            compile_layers(self.model)
        if self.device.type == "cuda":
            self.say(make_it_fit(self.model, s.batch_seconds / ranks))
        self.goes_on = not s.fresh and "projector" not in self.model.untrained
        if not self.goes_on:
            self.model.reset_projector(s.seed)
        self._load_data()
        self.wrapped = self.accelerator.prepare(self.trained)
        # On a GPU the fused one leaves out a step that is not finite without asking Python.
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.trained, s.learning_rate, s.adapter_learning_rate),
            betas=(0.9, 0.95),
            weight_decay=s.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.half = self.dtype is torch.float16  # only its gradients need to be scaled up
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=1024.0 if self.half else 1)
        self.counting = None  # processes count their tokens on their CPUs
        if self.accelerator.num_processes > 1:
            self.counting = torch.distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
        self.state = TrainingState()
        self.stop_signal: int | None = None

    def _load_data(self) -> None:
        s = self.settings
        style = self.model.config.text
        if s.text not in (None, style):
            raise ValueError(
                f"text={s.text!r} came with a model that writes {style!r}; expected the same: "
                "set the model's config.text before it is loaded"
            )
        columns = {"audio_column": s.audio_column, "text_column": s.text_column, "text": style}
        self.data = load_data(s.data, split=s.split, limit=s.limit, **columns)
        noise = [] if s.noise_data is None else noise_utterances(s.noise_data)
        if noise:
            self.data = self.data.with_noise(noise, s.noise_fraction)
        self.say(self.data.summary())
        texts = (clip.text for clip in self.data if style == "written")
        if lost := lost_by_tokenizer(self.model.processor, texts):
            self.say(lost)
        added = noise.load_all(self.say) if noise and s.augment.noise_probability > 0 else []
        self.augment = Augment(s.augment, seed=s.seed, noise=added)
        self.eval_data, self.caches = None, []
        if s.eval_data is not None:
            self.eval_data = load_data(s.eval_data, split=s.eval_split, **columns)
        self.sets = [each for each in (self.data, noise, self.eval_data) if each]
        if s.cache is not None:
            ranks, augment = self.accelerator, self.augment if s.cache_versions else None
            keys = [None] * max(1, s.cache_versions)
            if ranks.is_main_process:  # all of the data and the encoder is read for them: once
                keys = cache_keys(self.model, self.data, augment, len(keys))
            broadcast_object_list(keys)
            options = {"augment": augment, "workers": s.workers, "say": self.say}
            # The folder may be each machine's own, or one that all of them share.
            with ranks.main_process_first(), ranks.local_main_process_first():
                for epoch, key in enumerate(keys):
                    cache = build_cache(self.model, self.data, s.cache, key, epoch=epoch, **options)
                    self.caches.append(cache)

    # The loop ----------------------------------------------------------------------------------

    def train(self, resume: bool = False) -> TrainingState:
        """Run to `max_utterances`; the best model lies in `out` afterwards.

        Args:
            resume: continue from the last checkpoint in `out`, if there is one.
        Raises:
            KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, when a checkpoint is saved.
            ValueError: `out` holds a run and resume is False, or another run writes there now;
                nothing can be written; 10 steps in a row were not finite. The last checkpoint
                stays.
        """
        if has_run(self.out) and not resume:
            raise ValueError(
                f"{self.out} holds a run already; expected an empty folder: choose another, or "
                "continue that run with --resume"
            )
        with alone_in(self.out) if self.accelerator.is_main_process else nullcontext():
            return self._train(resume)

    def _train(self, resume: bool) -> TrainingState:
        s, state = self.settings, self._begin(resume)
        if self.goes_on and state.step == 0 and self.eval_data is not None:
            if self.accelerator.is_main_process:
                state.beginning = self._evaluate()
                self.say(f"before training: WER {100 * state.beginning:.1f}%")
            self.accelerator.wait_for_everyone()
        stream = self._stream()
        interval = Interval(state)
        with self._stop_on_signal(), _collecting_new_objects_only():
            while state.utterances < s.max_utterances and not self._no_better():
                before = state.utterances
                stop = self._step([next(stream) for _ in range(s.accumulation)])
                done = state.utterances >= s.max_utterances

                def due(every: int, before=before, done=done) -> bool:
                    return done or state.utterances // every > before // every

                evaluate_now, save_now = due(s.eval_every), stop or due(s.save_every)
                log_now = due(s.log_every) or evaluate_now
                hopeless = self._read_outcomes(interval, everything=log_now or save_now)
                if log_now or hopeless:
                    self._log(interval.row(), evaluate_now and not hopeless)
                    interval = Interval(state)
                if hopeless:
                    raise ValueError(
                        f"{MAX_SKIPPED_IN_A_ROW} steps in a row had a loss or gradient that is not "
                        f"finite; the last checkpoint in {self.out} is from before: lower the "
                        "learning rate, or use float32 or bfloat16"
                    )
                if save_now:
                    self._save()
                if stop and not done:
                    self.say(f"stopped; a checkpoint of step {state.step} is saved: use --resume")
                    _exit(self.stop_signal or signal.SIGINT)
        if state.beginning is not None and state.best == state.beginning:
            self.say(f"nothing was better than at the beginning: that model is in {self.out}")
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.model.untrained = tuple(p for p in self.model.untrained if p != "projector")
        return state

    def _no_better(self) -> bool:
        """Whether `patience` has run out."""
        patience, worse = self.settings.patience, self.state.worse
        if patience is None or worse < patience:
            return False
        self.say(f"stopped early: no better in {worse} evaluations; the best is in {self.out}")
        return True

    def _begin(self, resume: bool) -> TrainingState:
        """The state to start from; `run.yaml` is written, all processes agree."""
        recipe = self.out / "run.yaml"
        self.state, self.outcomes, self.skipped_in_a_row = TrainingState(), Outcomes(), 0
        if has_checkpoint(self.out):
            for change in self.settings.changed_since(recipe) if recipe.exists() else ():
                self.say(f"resume: {change}; the weights will differ from an uninterrupted run's")
            self.state = load_checkpoint(self.out, self.trained, self.optimizer, self.say)
            if self.state.scaler:
                self.scaler.load_state_dict(self.state.scaler)
            self.say(f"resumed at step {self.state.step}, {self.state.utterances} utterances")
        elif resume:
            self.say(f"nothing to resume in {self.out}: starting at the beginning")
        steps = self.accelerator.gather(torch.tensor([self.state.step], device=self.device))
        if len(set(steps.tolist())) > 1:
            raise ValueError(
                f"the processes would resume at steps {steps.tolist()}; expected the same one: "
                f"{self.out} must be a folder that all machines share"
            )
        if self.accelerator.is_main_process:
            self.settings.save(recipe)
            if self.state.step == 0:
                (self.out / LEFT_OUT).unlink(missing_ok=True)
        self.named = 0
        self._name_left_out()
        start_trackers(self.accelerator, self.settings, resumed=self.state.step > 0)
        return self.state

    def _step(self, batches: list[tuple[int, Batch]]) -> bool:
        """Queue one optimiser step. Nothing here waits for a GPU, but for the clips of the next
        step and for other processes' counts. Returns whether a stop was asked for."""
        state, accelerator = self.state, self.accelerator
        labels = [self._labels(batch) for _, batch in batches]
        tokens = sum(int((rows != IGNORE).sum()) for rows in labels)
        clips = sum(len(batch) for _, batch in batches)
        counts = torch.tensor([tokens, clips, self.stop_signal is not None])
        if self.counting is not None:
            torch.distributed.all_reduce(counts, group=self.counting)
        tokens, clips, stop = counts.tolist()
        state.step += 1
        if tokens == 0:  # none of these clips could be decoded
            return bool(stop)
        rate = learning_rate_at(state.utterances, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        summed = torch.zeros((), device=self.device)
        for number, ((epoch, batch), rows) in enumerate(zip(batches, labels, strict=True), 1):
            # DDP sends gradients around in the last of the accumulated passes only.
            last = number == len(batches)
            with nullcontext() if last else accelerator.no_sync(self.wrapped):
                loss = self._summed_loss(epoch, batch, rows)
                # DDP takes the mean over processes; times their number that is the sum.
                self.scaler.scale(loss * accelerator.num_processes / tokens).backward()
            summed += loss.detach()
        norm = self._update()
        state.utterances += clips
        self.outcomes.add(accelerator.reduce(summed, "sum"), norm, tokens, rate)
        return bool(stop)

    def _update(self) -> Tensor:
        """Let the gradients change the weights; their norm before it was clipped."""
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.trained.parameters(), self.settings.max_grad_norm)
        self.scaler.step(self.optimizer)  # leaves out a step whose gradients are not finite
        self.scaler.update(None if self.half else 1.0)
        self.optimizer.zero_grad()
        return norm

    def _read_outcomes(self, interval: Interval, everything: bool) -> bool:
        """Count the steps that are done; whether too many in a row were not finite."""
        for summed_loss, norm, tokens, rate in self.outcomes.arrived(everything):
            finite = math.isfinite(summed_loss) and math.isfinite(norm)
            interval.add(summed_loss / tokens, norm, rate, finite)
            self.state.skipped += not finite
            self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
            if self.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                return True
        return False

    def _labels(self, batch: Batch) -> Tensor:
        """Target ids (B, L)."""
        return self.model.processor.labels(batch.texts) if len(batch) else torch.zeros(0, 0).long()

    def _summed_loss(self, epoch: int, batch: Batch, labels: Tensor) -> Tensor:
        """The token losses of this process's share of a batch, added up."""
        if len(batch) == 0:  # nothing to learn, but DDP waits for this process's gradients
            config = self.model.config
            silence = torch.zeros(1, config.audio_downsample_rate, config.encoder_dim)
            nothing = self._project(silence.to(self.device)).sum() * 0
            return nothing + sum(p.sum() * 0 for p in self.trained.parameters() if p.requires_grad)
        frames, lengths = self._encoder_output(epoch, batch)
        labels, audio = send(labels, self.device), self._project(frames, lengths)
        lengths = self.model.config.embeddings(lengths)
        logits = self.model.decoder.text_logits(audio, lengths, labels)
        return token_loss(logits, labels, "sum")

    def _project(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The projector, its weights in float32, its products in the dtype of the frozen models."""
        with torch.autocast(self.device.type, self.dtype, self.dtype is not torch.float32):
            return self.wrapped(frames, lengths)

    @torch.no_grad()
    def _encoder_output(self, epoch: int, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encoder frames (B, T, encoder_dim), cached or heard anew, and each clip's own (B,), on
        the CPU."""
        if self.caches:
            frames, lengths = self._cache(epoch).batch(batch.ids)
            frames = send(frames, self.device)
        else:
            frames, lengths = heard(self.model, batch, self.augment, epoch)
        return self.augment.encoder(frames, lengths, batch.ids, epoch), lengths

    def _cache(self, epoch: int) -> EncoderCache:
        """The version of all clips that an epoch trains on."""
        return self.caches[epoch % len(self.caches)]

    def _stream(self) -> Iterator[tuple[int, Batch]]:
        """This process's share of each batch and its epoch, on from the state."""
        s, state = self.settings, self.state
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        for epoch in count(state.epoch):
            chosen = self.data.epoch(s.seed, epoch)
            how = {"seed": s.seed, "epoch": epoch, "among": chosen}
            order = make_batches(self.data, max_seconds=s.batch_seconds, **how)
            rest = order[state.batch :]
            if self.caches:
                batches = self._cache(epoch).batches(self.data, rest, rank, ranks)
            else:
                how = {"workers": s.workers, "pin": self.device.type == "cuda"}
                batches = Loader(self.data, rest, rank=rank, num_processes=ranks, **how)
            for batch in batches:
                state.batch += 1
                yield epoch, batch
            state.epoch, state.batch = epoch + 1, 0

    # What is kept ------------------------------------------------------------------------------

    def _save(self) -> None:
        """A checkpoint to resume from; without evaluation data it is also the model to use."""
        if self.accelerator.is_main_process:
            # The checkpoint comes last: once that of the last step is there, all is done.
            if self.eval_data is None:
                save_model(self.out, self.model.save_pretrained)
            self.state.scaler = self.scaler.state_dict()
            save_checkpoint(self.out, self.trained, self.optimizer, self.state)
        self.accelerator.wait_for_everyone()

    def _evaluate(self) -> float:
        """The WER now, infinite where no transcript has a word; the best model is kept in `out`."""
        state, limit = self.state, self.settings.eval_limit
        how = {"limit": limit, "normaliser": FOR_TEXT[self.model.config.text]}
        wer = evaluate(self.model, self.eval_data, **how).wer.value
        wer = math.inf if wer is None else wer
        state.worse += 1
        if state.best is None or wer < state.best:
            state.best, state.worse = wer, 0
            save_model(self.out, self.model.save_pretrained)
        return wer

    def _log(self, row: dict, evaluate_now: bool) -> None:
        """A line of progress and of `log.csv`; the best model so far is kept in `out`."""
        state = self.state
        if self.accelerator.is_main_process:
            if evaluate_now and self.eval_data is not None:
                wer = self._evaluate()
                row["wer"] = wer if math.isfinite(wer) else None
            log = self.out / "log.csv"
            with explain_failure(log, "Checkpoints are untouched: make room, then use --resume"):
                append_log(log, row)
            track(self.accelerator, row)
        self.say(progress_line(row, self.settings.max_utterances))
        if self.settings.patience is not None:
            worse = [state.worse]
            broadcast_object_list(worse)  # only the main process evaluates
            state.worse = worse[0]
        self._name_left_out()
        if math.isfinite(row["loss"]):
            state.losses.append(row["loss"])
            if not self.goes_on and hardly_falling(state.losses):
                self.say(NOT_LEARNING.format(utterances=state.utterances))
        if self.on_log is not None:
            self.on_log(state, self.model)

    def _name_left_out(self) -> None:
        """Write down which clips are left out, where these have become more."""
        if self.counting is not None:  # each process has decoded its own
            found = [{}] * self.accelerator.num_processes
            torch.distributed.all_gather_object(found, dict(self.data.bad), group=self.counting)
            for index, clip in chain.from_iterable(bad.items() for bad in found):
                self.data.bad.setdefault(index, clip)
        reasons = sum((each.dropped for each in self.sets), Counter())
        if reasons.total() > self.named and self.accelerator.is_main_process:
            self.named, file = reasons.total(), self.out / LEFT_OUT
            with explain_failure(file, "Checkpoints are untouched: make room, then use --resume"):
                write_left_out(file, self.sets)
            why = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())
            self.say(f"dropped {self.named}: {why}; named in {file}")

    @contextmanager
    def _stop_on_signal(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for a stop after the step at hand; a second one stops at once."""
        self.stop_signal, asked = None, 0.0

        def ask(number, frame):
            nonlocal asked
            # Launchers pass on what the whole group of processes got: that is no second one.
            if self.stop_signal is not None and time.monotonic() - asked > 1:
                _exit(number)
            self.stop_signal, asked = number, time.monotonic()

        before = {}
        if threading.current_thread() is threading.main_thread():  # others can't handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def _collecting_new_objects_only() -> Iterator[None]:
    """Else Python's garbage collector goes through the models' many objects again and again."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _exit(number: int) -> None:
    """End as a process does that the signal itself ended."""
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
