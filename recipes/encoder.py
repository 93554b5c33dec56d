"""Train the tiny encoder: Whisper's architecture, from random weights, taught by a real Whisper.

    python -m recipes.encoder --speech FOLDER --teacher openai/whisper-tiny.en

writes `model.safetensors` (float16) and `log.csv` into `data/models/tiny-encoder/`. It learns from
two teachers at once, and with `--transcribe` from a third:

distillation   each frame predicts, through a linear layer, what the encoder of whisper-tiny.en puts
               out for it (Hinton et al. 2015). That needs sound only, no transcripts. The student
               hears the sound with noise, echo and masks, the teacher without;
CTC            each frame predicts a piece of the tiny tokenizer or nothing (Graves et al. 2006),
               and half-way up a letter or nothing (Lee and Watanabe 2021), where there is a
               transcript. Nothing is the id of `<|silence|>`;
transcription  the frozen tiny-decoder writes the transcript, through a projector that learns at the
               same time; what it would rather have heard goes back into the encoder. So Whisper
               itself was trained (Radford et al. 2022), but for the decoder, which learnt too.

The linear layers are thrown away afterwards; the projector lies in the folder `pair` beside the
log, to begin a `tiny-asr train` with. No weight of the teacher is copied.

All sound lies on the device, and is augmented there, a whole batch at once, as in every training
(`tiny_asr.data.augment`).
"""

import argparse
import io
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import torch
import torchaudio
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoTokenizer
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from recipes.steps import fit, save_half
from recipes.text import CHECKOUT, SHARED, WORK
from tiny_asr.audio import log_mel
from tiny_asr.data.augment import Augment, AugmentConfig
from tiny_asr.data.dataset import load_data
from tiny_asr.encoder import HUB_PREFIX, AudioEncoder, EncoderOfCheckpoint
from tiny_asr.evaluation.score import normalise
from tiny_asr.model import ASRModel
from tiny_asr.shapes import HOP_LENGTH, SAMPLE_RATE

LETTERS = " abcdefghijklmnopqrstuvwxyz'0123456789"  # 0 is CTC's nothing, the space is 1
REAL_SHARE = 0.45  # of batches
SPEEDS = (84, 92, 100, 100, 108, 116)  # per cent
MULTIPLE = 1600  # samples; lengths are rounded up to it
LONGEST = 30  # seconds, at any speed: Whisper's window
COLUMNS = ("step", "clips", "hours", "seconds", "distillation", "ctc", "letters", "wer_dev")
COLUMNS += ("transcription", "transcription_dev")
# Of the losses. Beside CTC, distillation with 1 learns nothing: see README.md.
WEIGHTS = {"distillation": 20.0, "ctc": 0.4, "letters": 0.2, "transcription": 1.0}


class Clips:
    """Clips of 16-bit sound in one long row on the device, the shortest first."""

    def __init__(self, utterances, tokenizer, device, workers: int):
        with ThreadPoolExecutor(workers) as pool:
            sounds = list(pool.map(_load, utterances))
        kept = [i for i, sound in enumerate(sounds) if sound is not None]
        kept.sort(key=lambda i: len(sounds[i]))
        self.texts = [utterances[i].text for i in kept]
        self.lengths = torch.tensor([len(sounds[i]) for i in kept])
        self.starts = (self.lengths.cumsum(0) - self.lengths).to(device)
        self.samples = torch.from_numpy(np.concatenate([sounds[i] for i in kept])).to(device)
        ids = tokenizer(self.texts).input_ids if self.texts else []
        self.pieces = [torch.tensor(i, dtype=torch.long) for i in ids]
        self.letters = [torch.tensor([LETTERS.index(c) + 1 for c in t]).long() for t in self.texts]
        self.ends = np.cumsum(self.lengths.numpy() / SAMPLE_RATE)  # seconds
        self.by_speed = {100: (self.samples, self.starts)}

    def __len__(self) -> int:
        return len(self.texts)

    def add_speeds(self, speeds: Sequence[int]) -> None:
        """Keep the clips at other speeds too: resampling each batch anew would take longer."""
        for speed in set(speeds) - {100}:
            parts, starts = [], []
            for first in range(0, len(self), 1000):
                lengths = self.lengths[first : first + 1000].to(self.starts.device)
                begin = self.starts[first]
                sound = self.samples[begin : begin + lengths.sum()].float()[None]
                sound = torchaudio.functional.resample(sound, speed, 100)[0]
                starts.append((self.starts[first : first + 1000] - begin) * 100 // speed)
                starts[-1] += sum(map(len, parts))
                parts.append(sound.clamp(-32768, 32767).round().to(torch.int16))
            self.by_speed[speed] = (torch.cat(parts), torch.cat(starts))

    def draw(self, seconds: float, speed: int, rng) -> tuple[np.ndarray, int]:
        """Clips alike in length, each second equally likely, and the width to pad them to in s.

        How many there are follows from the width: few shapes occur, and a GPU's libraries, which
        plan a convolution anew for each shape, are soon done with planning.
        """
        middle = int(np.searchsorted(self.ends, rng.random() * self.ends[-1]))
        length = self.lengths[min(middle, len(self) - 1)].item()
        longest = min(1.15 * length, LONGEST * SAMPLE_RATE * speed / 100)
        length = min(length, longest)
        low, high = np.searchsorted(self.lengths.numpy(), (0.85 * length, longest))
        width = math.ceil(longest * 100 / speed / SAMPLE_RATE)
        count = max(1, int(seconds / width))
        near = np.arange(min(low, high - 1), high)  # at least one that fits
        return rng.choice(near, min(count, len(near)), replace=False), width

    def waveforms(self, rows, width: int, speed: int = 100) -> tuple[Tensor, Tensor]:
        """(B, width x 16 000) float32 on the device; each clip's samples (B,) on the CPU."""
        samples, starts = self.by_speed[speed]
        device = samples.device
        lengths = self.lengths[rows] * 100 // speed
        column = torch.arange(width * SAMPLE_RATE, device=device)
        place = starts[torch.as_tensor(rows, device=device)][:, None] + column
        sound = samples[place.clamp(max=len(samples) - 1)].float() / 32768
        return sound.masked_fill(column >= lengths.to(device)[:, None], 0.0), lengths

    def batch(self, seconds: float, rng) -> tuple[np.ndarray, Tensor, Tensor]:
        """Clips as `draw` chooses them, at one of SPEEDS: their rows, waveforms and lengths."""
        speed = int(rng.choice(SPEEDS))
        rows, width = self.draw(seconds, speed, rng)
        return rows, *self.waveforms(rows, width, speed)

    def in_order(self, size: int = 16) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
        """All clips as they are, `size` at a time: their rows, waveforms and lengths."""
        for rows in np.split(np.arange(len(self)), range(size, len(self), size)):
            yield rows, *self.waveforms(rows, LONGEST)


def _load(utterance) -> np.ndarray | None:
    """A clip as 16-bit samples at 16 kHz; None if it can't be read or lasts over LONGEST."""
    try:
        samples, rate = soundfile.read(io.BytesIO(utterance.audio), dtype="int16")
        if rate != SAMPLE_RATE or samples.ndim != 1:
            samples = (utterance.load().clamp(-1, 1) * 32767).round().to(torch.int16).numpy()
    except (ValueError, soundfile.LibsndfileError):
        return None
    return samples if len(samples) <= LONGEST * SAMPLE_RATE else None


def add_sound_arguments(parser: argparse.ArgumentParser) -> None:
    """What `Sources.load` reads."""
    speech = SHARED / "speech"
    parser.add_argument("--speech", type=Path, default=WORK / "bulk", help="synthesised, in bulk")
    parser.add_argument(
        "--real", type=Path, nargs="+", help="real speech with transcripts",
        default=[speech / "train-many-voices.parquet", speech / "train-two-voices.parquet",
                 WORK / "long.parquet"],
    )  # fmt: skip
    parser.add_argument("--untranscribed", type=Path, default=speech / "untranscribed.parquet")
    parser.add_argument("--noise", type=Path, default=WORK / "no-speech" / "train.parquet")
    parser.add_argument("--dev", type=Path, default=speech / "dev.parquet")
    parser.add_argument("--real-share", type=float, default=REAL_SHARE, help="of the batches")
    parser.add_argument("--limit", type=int, help="clips of each source, to try the program out")
    parser.add_argument("--workers", type=int, default=16, help="threads that decode sound")


@dataclass(eq=False)
class Sources:
    """All that is heard: real speech with transcripts and without, made speech, nobody, and dev."""

    real: Clips
    silent: Clips  # without transcripts
    made: Clips
    noise: Clips
    dev: Clips
    real_share: float

    @classmethod
    def load(cls, a: argparse.Namespace, tokenizer, device) -> "Sources":
        """What `add_sound_arguments` names, at all speeds, on the device."""

        def clips(*sources, text=True):
            data = load_data([str(s) for s in sources], limit=a.limit, require_text=text)
            return Clips(list(data), tokenizer, device, a.workers)

        real, silent = clips(*a.real), clips(a.untranscribed, text=False)
        made, noise, dev = clips(a.speech), clips(a.noise, text=False), clips(a.dev)
        for source in (real, silent, made, noise):
            source.add_speeds(SPEEDS)
        return cls(real, silent, made, noise, dev, a.real_share)

    def hours(self) -> dict[str, float]:
        """Of each source that is learnt from."""
        parts = {"real": self.real, "untranscribed": self.silent, "made": self.made}
        parts["noise"] = self.noise
        return {name: round(float(part.ends[-1]) / 3600, 2) for name, part in parts.items()}

    def draw(self, rng) -> Clips:
        """The source of a batch: real ones by their hours, noise in 3 of 100, else made ones."""
        seconds = np.array([self.real.ends[-1], self.silent.ends[-1]])
        shares = [*(self.real_share * seconds / seconds.sum()), 0.03, 0]
        shares[3] = 1 - sum(shares)
        return (self.real, self.silent, self.noise, self.made)[rng.choice(4, p=shares)]


@dataclass
class Heard:
    """What teacher and student hear: log-mels (B, M, F), own encoder frames (B,) on the CPU."""

    teacher: Tensor
    student: Tensor
    encoder_frames: Tensor


# What the student hears of a clip, by the package's own augmentation. Speeds, which change pitch
# and throat with them, are those of SPEEDS: clips are resampled once, and not in each batch.
CHANGES = AugmentConfig(
    reverb_probability=0.33,
    reverb_seconds=(0.1, 0.5),
    noise_probability=0.5,
    noise_snr_db=(0.0, 30.0),
    band_limit_probability=0.2,
    gain_db=(-16.0, 10.0),
    time_masks=2,
    time_mask_frames=40,
    time_mask_share=0.12,
    frequency_masks=2,
    frequency_mask_bins=18,
)


class Listening:
    """From waveforms to log-mels: as they are for the teacher, changed for the student.

    Args:
        noise: clips of noise to mix in.
        bins: M of the encoder.
        seed: with the number of the batch and the row, it decides what happens to a clip.
    """

    def __init__(self, noise: Clips, bins: int, seed: int):
        sounds = noise.samples.cpu().split(noise.lengths.tolist())
        recorded = [sound.float() / 32768 for sound in sounds]
        self.augment, self.bins, self.batches = Augment(CHANGES, seed=seed, noise=recorded), bins, 0

    def __call__(self, waveforms: Tensor, lengths: Tensor, change: bool) -> Heard:
        """Waveforms (B, S), S a multiple of 1600, and lengths (B,); `change` them or not."""
        padded = -(-lengths // MULTIPLE) * MULTIPLE
        teacher = student = log_mel(waveforms, self.bins, padded)
        if change:
            ids = [str(row) for row in range(len(waveforms))]
            dirty, own = self.augment.waveform(waveforms, lengths, ids, self.batches, MULTIPLE)
            dirty = F.pad(dirty, (0, waveforms.shape[1] - dirty.shape[1]))
            frames = own // HOP_LENGTH
            student = self.augment.mel(log_mel(dirty, self.bins, own), frames, ids, self.batches)
            self.batches += 1
        return Heard(teacher, student, padded // (2 * HOP_LENGTH))


class Student(nn.Module):
    """The encoder to be, and what it needs for learning: linear layers, a decoder, a projector.

    Args:
        pair: a recogniser whose frozen decoder is to write down what the encoder hears, through
            a projector that learns with it; None to do without.
    """

    def __init__(self, config, teacher_dim: int, vocabulary: int, pair: ASRModel | None = None):
        super().__init__()
        self.pair = pair
        self.encoder = AudioEncoder(WhisperEncoder(config))
        self.encoder.whisper.requires_grad_(True)
        self.encoder.whisper.embed_positions.requires_grad_(False)  # sinusoids
        self.half_way = config.encoder_layers // 2
        self.to_teacher = nn.Linear(config.d_model, teacher_dim)
        self.to_pieces = nn.Linear(config.d_model, vocabulary)
        self.to_letters = nn.Linear(config.d_model, len(LETTERS) + 1)

    def forward(self, sound: Heard, apart: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predictions of the teacher's frames, pieces (logits), letters (logits); the output.

        `apart`: the losses of the three predictions teach their own layers only.
        """
        hidden, mask = self.encoder.embed(sound.student, 2 * sound.encoder_frames)
        for number, layer in enumerate(self.encoder.whisper.layers, 1):
            hidden = layer(hidden, mask)
            if number == self.half_way:
                half = hidden.detach() if apart else hidden
                letters = self.to_letters(F.layer_norm(half, half.shape[-1:]))
        hidden = self.encoder.whisper.layer_norm(hidden)
        output = hidden.detach() if apart else hidden
        return self.to_teacher(output), self.to_pieces(output), letters, hidden

    def transcription_loss(self, hidden: Tensor, frames: Tensor, texts: list[str]) -> Tensor:
        """Nats a token of the true transcripts, as the pair's frozen decoder writes them."""
        labels = self.pair.processor.labels(texts).to(hidden.device)
        return self.pair(encoder_output=hidden, encoder_lengths=frames, labels=labels).loss


def ctc_loss(logits: Tensor, frames: Tensor, targets: list[Tensor], blank: int) -> Tensor:
    """Mean over clips of the CTC loss per token."""
    logs = logits.float().log_softmax(-1).transpose(0, 1)
    lengths = torch.tensor([len(t) for t in targets])
    losses = F.ctc_loss(
        logs, torch.cat(targets).to(logs.device), frames, lengths, blank,
        reduction="none", zero_infinity=True,
    )  # fmt: skip
    return (losses / lengths.clamp(min=1).to(losses.device, non_blocking=True)).mean()


def distillation_loss(guess: Tensor, goal: Tensor, frames: Tensor) -> Tensor:
    """Smooth L1 (Girshick 2015) over the clips' own encoder frames; no waiting for the device."""
    own = torch.arange(goal.shape[1]) < frames[:, None]
    count = int(frames.sum()) * goal.shape[2]
    own = own.to(goal.device, non_blocking=True)[..., None]
    return (F.smooth_l1_loss(guess.float(), goal, reduction="none") * own).sum() / count


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny encoder.")
    parser.add_argument("--model", type=Path, default=CHECKOUT / "data/models/tiny-encoder")
    parser.add_argument("--tokenizer", type=Path, default=CHECKOUT / "data/models/tiny-decoder")
    parser.add_argument("--teacher", default=str(SHARED / "weights" / "whisper-tiny.en"))
    add_sound_arguments(parser)
    parser.add_argument("--out", type=Path, help="where weights and log go (--model)")
    parser.add_argument("--keep", action="store_true", help="copy the weights into --model, too")
    parser.add_argument("--init", type=Path, help="model.safetensors of an earlier run")
    parser.add_argument(
        "--transcribe", help="a pair (tiny) whose decoder writes down what the encoder hears"
    )
    for name in ("distillation", "transcription"):
        parser.add_argument(
            f"--{name}", type=float, default=WEIGHTS[name], help="its loss's weight"
        )
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch-seconds", type=float, default=1000.0)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--warmup", type=int, default=150, help="steps")
    parser.add_argument(
        "--settling", type=int, default=300,
        help="steps in which new output layers learn alone, lest they spoil what --init knows",
    )  # fmt: skip
    parser.add_argument("--log-every", type=int, default=250)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    out = a.out or a.model
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(a.seed)

    began = time.time()
    tokenizer = AutoTokenizer.from_pretrained(a.tokenizer)
    blank = tokenizer.convert_tokens_to_ids("<|silence|>")

    sources = Sources.load(a, tokenizer, device)
    real, silent, made, dev = sources.real, sources.silent, sources.made, sources.dev
    print(f"hours {sources.hours()}, ready after {time.time() - began:.0f} s", flush=True)

    config = AutoConfig.from_pretrained(a.model)
    config.dropout = 0.05
    teacher = EncoderOfCheckpoint.from_pretrained(a.teacher, key_mapping=HUB_PREFIX)
    teacher = AudioEncoder(teacher.to(device))
    pair = a.transcribe and ASRModel.from_pretrained(a.transcribe)
    student = Student(config, teacher.whisper.config.d_model, len(tokenizer), pair).to(device)
    if a.init is not None:
        weights = load_file(a.init)
        own = student.encoder.whisper.state_dict()
        weights = {name: weights[f"model.encoder.{name}"].float() for name in own}
        student.encoder.whisper.load_state_dict(weights)
    if not a.no_compile:
        for layer in student.encoder.whisper.layers:
            layer.compile(dynamic=True)
    listening = Listening(sources.noise, config.num_mel_bins, a.seed)
    trained = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        lr=a.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        fused=device.type == "cuda",
    )
    precision = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    rng = np.random.default_rng(a.seed)

    def teach(sound):
        with torch.no_grad(), precision:
            return teacher(sound.teacher, 2 * sound.encoder_frames).float()

    heard_so_far = {"clips": 0, "hours": 0.0}
    mean, scale = standardise(teach, listening, [real, made], rng)

    def measure() -> dict[str, float]:
        """On real speech: WER of the pieces' likeliest path, without any language model; and the
        transcription loss."""
        student.eval()
        heard, said, written = [], [], []
        for rows, *waveforms in dev.in_order():
            sound = listening(*waveforms, False)
            with torch.no_grad(), precision:
                _, pieces, _, hidden = student(sound)
                path = pieces.argmax(-1).cpu()
                if pair:
                    texts = [dev.texts[clip] for clip in rows]
                    loss = student.transcription_loss(hidden, sound.encoder_frames, texts)
                    written += [loss.item()] * len(rows)
            for row, clip in enumerate(rows):
                ids = path[row, : int(sound.encoder_frames[row])].unique_consecutive()
                heard.append(normalise(tokenizer.decode(ids[ids != blank])))
                said.append(normalise(dev.texts[clip]))
        found = {"clips": heard_so_far["clips"], "hours": round(heard_so_far["hours"], 1)}
        found["wer_dev"] = round(jiwer.wer(said, heard), 4)
        return found | ({"transcription_dev": round(float(np.mean(written)), 4)} if pair else {})

    chosen = WEIGHTS | {"distillation": a.distillation, "transcription": a.transcription}

    def step(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        source = sources.draw(rng)
        rows, *waveforms = source.batch(a.batch_seconds, rng)
        heard_so_far["clips"] += len(rows)
        heard_so_far["hours"] += float(source.lengths[rows].sum()) / SAMPLE_RATE / 3600
        sound = listening(*waveforms, True)
        goal = (teach(sound) - mean) / scale
        student.encoder.whisper.train()
        with precision:
            apart = a.init is not None and number < a.settling
            guess, pieces, letters, hidden = student(sound, apart)
        frames = sound.encoder_frames
        losses = {"distillation": distillation_loss(guess, goal, frames)}
        if source in (real, made):
            losses["ctc"] = ctc_loss(pieces, frames, [source.pieces[r] for r in rows], blank)
            spelt = [source.letters[r] for r in rows]
            losses["letters"] = ctc_loss(letters, frames, spelt, 0)
        if pair and source is not silent:  # where nobody speaks: the end token, at once
            with precision:
                texts = [source.texts[r] for r in rows]
                losses["transcription"] = student.transcription_loss(hidden, frames, texts)
        # CTC joins over the first tenth: at first it is so large that nothing else is learnt.
        joins = min(1.0, 10 * number / a.steps)
        weights = chosen | {name: chosen[name] * joins for name in ("ctc", "letters")}
        return sum(weights[name] * loss for name, loss in losses.items()), losses

    def keep() -> None:
        save(student, out)
        if pair:
            pair.save_pretrained(out / "pair")

    fit(
        step, measure, keep, optimizer=optimizer, steps=a.steps, learning_rate=a.learning_rate,
        warmup=a.warmup, log=out / "log.csv", columns=COLUMNS, log_every=a.log_every,
    )  # fmt: skip
    if a.keep:
        save(student, a.model)
    print(f"saved {out}", flush=True)


def standardise(teach, listening, sources, rng) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each of the teacher's dimensions: some are far louder."""
    frames = []
    for source in sources:
        for _ in range(4):
            sound = listening(*source.waveforms(*source.draw(100.0, 100, rng)), False)
            output = teach(sound)
            own = torch.arange(output.shape[1]) < sound.encoder_frames[:, None]
            frames.append(output[own.to(output.device)])
    frames = torch.cat(frames)
    return frames.mean(0), frames.std(0)


def save(student: Student, out: Path) -> None:
    """The encoder alone, in the layout of a whole Whisper checkpoint, float16."""
    weights = student.encoder.whisper.state_dict()
    save_half({f"model.encoder.{name}": value for name, value in weights.items()}, out)


if __name__ == "__main__":
    main()
