"""What the two training programs share: sources, a loop that ends at a time, CTC on tokens."""

import argparse
import csv
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.ears.bank import Bank, Scenes, batches
from recipes.ears.pack import OUT as PACKS
from recipes.ears.scene import Heard, Microphone
from recipes.text import WORK
from tiny_asr.decoder import token_loss
from tiny_asr.model import ASRModel
from tiny_asr.shapes import SAMPLE_RATE

# Weight of CTC on the embeddings. More of it drowns the decoder's own loss; a fresh projector
# before a large language model wants 1 until it writes text.
CTC = 0.2
SPEEDS = (0.8, 0.88, 0.94, 1.0, 1.0, 1.0, 1.07, 1.14, 1.22)


class TokenCTC(nn.Module):
    """CTC (Graves et al. 2006) of audio embeddings against the decoder's own token table.

    Each audio embedding is to point to the token that is said there, or to nothing. So a projector
    learns where words are before the decoder can tell it, and the cliff comes sooner. Thrown away
    after training.
    """

    def __init__(self, table: Tensor):
        super().__init__()
        self.register_buffer("table", F.normalize(table.detach().float(), dim=-1))
        self.nothing = nn.Parameter(torch.randn(table.shape[1]) / math.sqrt(table.shape[1]))
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, embeddings: Tensor, lengths: Tensor, texts: list[list[int]]) -> Tensor:
        """Nats a token, mean over the clips in which somebody speaks.

        Args:
            embeddings: (B, A, llm_dim); lengths: (B,) on the CPU. texts: token ids of each row.
        """
        rows = [row for row, ids in enumerate(texts) if ids]
        pointed = F.normalize(embeddings[rows].float(), dim=-1)
        goals = torch.cat([self.table, F.normalize(self.nothing, dim=0)[None]])
        logs = (self.scale.exp() * pointed @ goals.T).float().log_softmax(-1).transpose(0, 1)
        return ctc_loss(logs, lengths[rows], [texts[row] for row in rows], len(self.table))


def ctc_loss(logs: Tensor, lengths: Tensor, texts: list[list[int]], blank: int) -> Tensor:
    """Mean over clips of the CTC loss a token. logs: (T, B, V) log-probabilities."""
    if not texts:  # nobody speaks in any of them
        return logs.sum() * 0.0
    sizes = torch.tensor([len(ids) for ids in texts])
    ids = torch.tensor([token for ids in texts for token in ids], device=logs.device)
    loss = F.ctc_loss(logs, ids, lengths, sizes, blank, reduction="none", zero_infinity=True)
    return (loss / sizes.to(loss.device)).mean()


def text_logits(
    pair: ASRModel, frames: Tensor, lengths: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """From encoder frames (B, T, encoder_dim), of which `lengths` (B,) are a clip's own, to audio
    embeddings, their lengths, and logits (B, L, V) for labels (B, L)."""
    embeddings = pair.audio_projector(frames, lengths)
    own = lengths // pair.config.audio_downsample_rate
    return embeddings, own, pair.decoder.text_logits(embeddings, own, labels)


class Writer:
    """A pair's projector and frozen decoder, and the losses of a true text given encoder frames.

    Args:
        ctc: weight of the CTC loss.
    """

    def __init__(self, pair: ASRModel, ctc: float, weight_decay: float, learning_rate: float):
        self.pair, self.weight, self.learning_rate = pair, ctc, learning_rate
        self.ctc = TokenCTC(pair.decoder.token_embeddings).to(pair.device)
        self.trained = [*pair.audio_projector.parameters(), *self.ctc.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay,
            fused=pair.device.type == "cuda",
        )  # fmt: skip

    def scores(
        self, frames: Tensor, lengths: Tensor, texts: list[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The decoder's logits (B, L, V) for the true texts, their labels (B, L), the CTC loss.

        Args:
            frames: encoder output (B, T, encoder_dim); lengths: own encoder frames (B,), CPU.
        """
        labels = self.pair.processor.labels(texts)
        labels_there = labels.to(frames.device, non_blocking=True)
        embeddings, own, logits = text_logits(self.pair, frames, lengths, labels_there)
        end = self.pair.decoder.end_id
        ids = [[token for token in row if token not in (-100, end)] for row in labels.tolist()]
        return logits, labels_there, self.ctc(embeddings, own, ids)

    def losses(self, frames: Tensor, lengths: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Nats a token as the decoder writes them, and of CTC; see `scores`."""
        logits, labels, ctc = self.scores(frames, lengths, texts)
        return token_loss(logits, labels), ctc


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where sound is, and how long to train."""
    parser.add_argument("--packs", type=Path, default=PACKS, help="what pack.py wrote")
    parser.add_argument("--natural", type=Path, default=WORK / "kokoro" / "packs")
    parser.add_argument("--robots", type=Path, default=WORK / "robots")
    parser.add_argument(
        "--new-sentences", type=float, default=0.0, metavar="N",
        help="made for each clip of real people, of pieces of their clips (splice.py)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, help="packs of each folder, to try it out")
    parser.add_argument("--out", type=Path, required=True, help="where weights and logs go")
    parser.add_argument("--minutes", type=float, default=20.0, help="after all sound is loaded")
    parser.add_argument("--until", type=float, help="instead: the time to end at, as `date +%%s`")
    parser.add_argument("--batch-seconds", type=float, default=1000.0)
    parser.add_argument("--warmup", type=int, default=200, help="steps")
    parser.add_argument("--log-every", type=int, default=100, help="steps")
    parser.add_argument("--ctc", type=float, default=CTC, help="weight of CTC on the embeddings")
    parser.add_argument("--workers", type=int, default=16, help="threads that decode sound")
    parser.add_argument("--seed", type=int, default=0)


class Sound:
    """Everything that training hears, through one kind of microphone.

    Args:
        shares: of the scenes, by kind of speech.
    """

    def __init__(
        self, a: argparse.Namespace, shares: dict[str, float], bins: int, multiple: int, device
    ):
        torch.backends.cuda.enable_cudnn_sdp(False)  # it plans each new shape, too

        def packs(folder: Path) -> list[Path]:
            return sorted(folder.glob("*.json"))[: a.limit]

        def one(name: str) -> list[Path]:
            path = a.packs / f"{name}.json"
            return [path] if path.is_file() else []

        folders = {"natural": packs(a.natural), "robots": packs(a.robots)}
        sources = {name: (folders.get(name, one(name)), share) for name, share in shares.items()}
        noise = Bank({"noise": (one("noise"), 1.0)}, device, a.workers)
        self.bank = Bank(sources, device, a.workers, a.new_sentences)
        self.microphone = Microphone(self.bank, noise, bins, multiple, a.seed)
        self.plans = batches(self.bank, a.batch_seconds, SPEEDS, np.random.default_rng(a.seed))
        self.tests = {}
        for name in ("dev", "accents-test", "natural-test"):
            if one(name):
                test = Bank({name: (one(name), 1.0)}, device, a.workers)
                self.tests[name] = Microphone(test, noise, bins, multiple, a.seed)

    def batch(self, clean: bool = False) -> tuple[Heard, list[str]]:
        """What is heard, and what is said in it."""
        scenes, speed = next(self.plans)
        heard = self.microphone(scenes, speed, clean)
        return heard, [self.bank.text(clips) for clips in scenes.clips]

    def test(self, name: str, most: int = 200, size: int = 40) -> Iterator[tuple[Heard, list[str]]]:
        """The clips of a test as they are, the shortest first."""
        microphone = self.tests[name]
        bank = microphone.bank
        order = np.argsort(bank.lengths)[:: max(1, len(bank.lengths) // most)]
        for first in range(0, len(order), size):
            clips = order[first : first + size]
            both = np.stack([clips, np.full(len(clips), -1)], 1)
            lengths = bank.lengths[clips]
            scenes = Scenes(both, np.zeros_like(both), lengths)
            yield microphone.plain(scenes), [bank.texts[clip] for clip in clips]


class Run:
    """A training that ends at a time; the two programs say what a step is.

    They set `optimizers`, call `listen`, and have `step(done)` (the losses by name; the entry
    "total" lists what is learnt from), `measure()` (more columns of the log) and `save()`.
    """

    optimizers: list[torch.optim.Optimizer]

    def __init__(self, a: argparse.Namespace):
        self.arguments = a
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.fast = self.device.type == "cuda"
        self.dtype = torch.bfloat16 if self.fast else torch.float32
        self.precision = torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast)
        self.clips, self.hours = 0, 0.0
        self.rows: list[dict] = []
        torch.manual_seed(a.seed)

    def listen(self, shares: dict[str, float], bins: int, multiple: int) -> None:
        """Load all sound, for mels of so many bins and lengths of a multiple of samples."""
        self.sound = Sound(self.arguments, shares, bins, multiple, self.device)

    def next_batch(self, clean: bool = False) -> tuple[Heard, list[str]]:
        """What is heard, and what is said in it; counted."""
        heard, texts = self.sound.batch(clean)
        self.clips += len(texts)
        self.hours += float(heard.lengths.sum()) / SAMPLE_RATE / 3600
        return heard, texts

    def heard_so_far(self) -> dict[str, float]:
        """For the log."""
        return {"clips": self.clips, "hours": round(self.hours, 1)}

    def train(self) -> None:
        """Until the time is over; rates rise over the warm-up and fall linearly to 0."""
        a = self.arguments
        highest = [[group["lr"] for group in one.param_groups] for one in self.optimizers]
        minutes = a.minutes if a.until is None else max(0.01, (a.until - time.time()) / 60)
        began, number, recent, last = time.time(), 0, defaultdict(list), False
        while not last:
            done = (time.time() - began) / (60 * minutes)
            last = done >= 1
            if not last:
                self._set_rates(highest, min((number + 1) / a.warmup, 1 - done))
                for name, value in self._learn(done).items():
                    recent[name].append(value)
                number += 1
            if not last and number % a.log_every:
                continue
            whole = last or number % (5 * a.log_every) == 0
            row = {"step": number, "seconds": round(time.time() - began, 1)}
            row |= {n: round(torch.stack(v).float().mean().item(), 4) for n, v in recent.items()}
            self._log(row | (self.measure() if whole else {}))
            recent.clear()
            if whole:
                self.save()
        print(f"saved {a.out}", flush=True)

    def _set_rates(self, highest: list[list[float]], share: float) -> None:
        for one, rates in zip(self.optimizers, highest, strict=True):
            for group, rate in zip(one.param_groups, rates, strict=True):
                group["lr"] = rate * share

    def _learn(self, done: float) -> dict[str, Tensor]:
        """One step; its losses."""
        found = self.step(done)
        torch.autograd.backward(found.pop("total"))
        for one in self.optimizers:
            weights = [w for group in one.param_groups for w in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            one.step()
            one.zero_grad()
        return {name: value.detach() for name, value in found.items()}

    def _log(self, row: dict) -> None:
        """Print a line and write the whole log anew: later lines may have more columns."""
        self.rows.append(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        names = list(dict.fromkeys(name for one in self.rows for name in one))
        self.arguments.out.mkdir(parents=True, exist_ok=True)
        with open(self.arguments.out / "log.csv", "w", newline="") as file:
            table = csv.DictWriter(file, names, lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)
