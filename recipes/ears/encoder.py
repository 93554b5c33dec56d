"""Train the tiny encoder, and the tiny pair's projector with it.

    python -m recipes.ears.encoder --teacher openai/whisper-base --out runs/prepare/encoder

The encoder learns from three teachers at once:

distillation   each frame predicts, through a linear layer, what the encoder of whisper-base puts
               out for it (Hinton et al. 2015). The student hears the sound with noise, echo and
               masks, the teacher without;
CTC            each frame predicts a piece of the tiny tokenizer or nothing (Graves et al. 2006);
transcription  the frozen tiny-decoder writes the transcript, through a projector that learns at the
               same time; what it would rather have heard goes back into the encoder. So Whisper
               itself was trained (Radford et al. 2022), but for the decoder, which learnt too.
               Half of what it is to write is not the transcript, but how likely each token is to
               `small`, which hears the sound without noise through whisper-base: so it learns less
               by heart (distillation again, of tokens).

It begins with the weights in --init; where that has fewer layers, new ones that change nothing yet
are put between. Writes OUT/encoder and OUT/pair (the projector), both float16, and OUT/log.csv.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from recipes.ears.learn import Run, Writer, add_arguments, ctc_loss, text_logits
from recipes.ears.scene import Heard
from recipes.steps import save_half
from recipes.text import CHECKOUT
from tiny_asr.decoder import token_loss
from tiny_asr.encoder import HUB_PREFIX, AudioEncoder, EncoderOfCheckpoint
from tiny_asr.model import ASRModel
from tiny_asr.shapes import IGNORE

# Of the scenes. It learns by heart what it hears often: of the novels few speakers there are.
SHARES = {
    "natural": 0.57, "novels": 0.12, "orders": 0.05, "studio": 0.03, "accents": 0.13,
    "robots": 0.10,
}  # fmt: skip
WEIGHTS = {"distillation": 10.0, "ctc": 0.4, "transcription": 3.0}
SETTLING = 0.02  # of the time, new output layers learn alone, lest they spoil what --init knows


class Student(nn.Module):
    """The encoder to be, and the linear layers that are thrown away afterwards."""

    def __init__(self, whisper: WhisperEncoder, teacher_dim: int, vocabulary: int):
        super().__init__()
        self.encoder = AudioEncoder(whisper)
        whisper.requires_grad_(True).embed_positions.requires_grad_(False)  # sinusoids
        self.to_teacher = nn.Linear(whisper.config.d_model, teacher_dim)
        self.to_pieces = nn.Linear(whisper.config.d_model, vocabulary)

    def forward(self, sound: Heard, apart: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions of the teacher's frames, pieces (logits); the encoder's output.

        `apart`: the losses of the two predictions teach their own layers only.
        """
        hidden, mask = self.encoder.embed(sound.heard, sound.mel_frames)
        for layer in self.encoder.whisper.layers:
            hidden = layer(hidden, mask)
        hidden = self.encoder.whisper.layer_norm(hidden)
        output = hidden.detach() if apart else hidden
        return self.to_teacher(output), self.to_pieces(output), hidden


def deepened(weights: dict[str, Tensor], config, layers: int) -> WhisperEncoder:
    """The encoder of these weights with more layers, which compute the same as before: a new layer
    is a copy whose two outputs are 0 (compare Net2Net, Chen et al. 2016)."""
    had, prefix = config.encoder_layers, "model.encoder."
    named = {name: weight.float() for name, weight in weights.items() if name.startswith(prefix)}
    small = WhisperEncoder(config)
    small.load_state_dict({name.removeprefix(prefix): weight for name, weight in named.items()})
    deep = copy.deepcopy(config)
    deep.encoder_layers = layers
    encoder = WhisperEncoder(deep)
    encoder.load_state_dict(small.state_dict(), strict=False)
    between = np.linspace(0, layers - 1, layers - had + 2).round().astype(int)[1:-1]
    new = set(between) if layers > had else set()
    old, before = iter(small.layers), {}
    for place, layer in enumerate(encoder.layers):
        before = before if place in new else next(old).state_dict()
        layer.load_state_dict(before)
        if place in new:
            for part in (layer.self_attn.out_proj, layer.fc2):
                nn.init.zeros_(part.weight)
                nn.init.zeros_(part.bias)
    return encoder


def distillation_loss(guess: Tensor, goal: Tensor, frames: Tensor) -> Tensor:
    """Smooth L1 (Girshick 2015) over the clips' own encoder frames; no waiting for the device."""
    own = torch.arange(goal.shape[1]) < frames[:, None]
    count = int(frames.sum()) * goal.shape[2]
    own = own.to(goal.device, non_blocking=True)[..., None]
    return (F.smooth_l1_loss(guess.float(), goal, reduction="none") * own).sum() / count


def soft_loss(logits: Tensor, soft: Tensor, labels: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's tokens from the teacher's, nats a target.

    logits, soft: (B, L, V); labels: (B, L), -100 is left out.
    """
    theirs = soft.float().log_softmax(-1)
    apart = (theirs.exp() * (theirs - logits.float().log_softmax(-1))).sum(-1)
    own = labels != IGNORE
    return (apart * own).sum() / own.sum().clamp(min=1)


class Training(Run):
    """The student, its three teachers, and a step of learning from them."""

    def __init__(self, a: argparse.Namespace):
        super().__init__(a)
        self.pair = ASRModel.from_pretrained(a.pair, device=self.device, dtype=self.dtype)
        self.writer = Writer(self.pair, a.ctc, 0.01, a.learning_rate)
        self.tokenizer = self.pair.processor.tokenizer
        config = AutoConfig.from_pretrained(a.init)
        config.dropout = a.dropout
        whisper = deepened(load_file(a.init / "model.safetensors"), config, a.layers)
        teacher = EncoderOfCheckpoint.from_pretrained(
            a.teacher, key_mapping=HUB_PREFIX, dtype=self.dtype
        )
        self.teacher = AudioEncoder(teacher.to(self.device))
        self.soft_pair = None
        if a.soft_share:
            self.soft_pair = ASRModel.from_pretrained(
                a.soft_pair, encoder=a.teacher, device=self.device, dtype=self.dtype
            )
            if self.soft_pair.processor.tokenizer.get_vocab() != self.tokenizer.get_vocab():
                raise ValueError(
                    f"--soft-pair {a.soft_pair} came; expected one with {a.pair}'s tokens: small"
                )
        teacher_dim, vocabulary = self.teacher.whisper.config.d_model, self.pair.config.vocab_size
        self.student = Student(whisper, teacher_dim, vocabulary).to(self.device)
        self.blank = self.tokenizer.convert_tokens_to_ids("<|silence|>")
        self.listen(SHARES, config.num_mel_bins, self.pair.config.samples_per_embedding)
        optimizer = torch.optim.AdamW(
            [p for p in self.student.parameters() if p.requires_grad], lr=a.learning_rate,
            betas=(0.9, 0.98), weight_decay=0.01, fused=self.fast,
        )  # fmt: skip
        self.optimizers = [optimizer, self.writer.optimizer]
        self.mean, self.scale = self.teachers_frames()

    def teach(self, heard: Heard) -> Tensor:
        """What the teacher puts out for the sound as it was said, (B, T, teacher_dim)."""
        with torch.no_grad():
            return self.teacher(heard.clean, heard.mel_frames).float()

    def soft_targets(self, taught: Tensor, frames: Tensor, labels: Tensor) -> Tensor:
        """The logits (B, L, V) of the pair that hears the teacher's output."""
        with torch.no_grad(), self.precision:
            return text_logits(self.soft_pair, taught.to(self.dtype), frames, labels)[2]

    def teachers_frames(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each of the teacher's dimensions: some are far louder."""
        frames = []
        for _ in range(4):
            heard, _ = self.sound.batch(clean=True)
            output = self.teach(heard)
            own = torch.arange(output.shape[1]) < heard.encoder_frames[:, None]
            frames.append(output[own.to(self.device)])
        return torch.cat(frames).mean(0), torch.cat(frames).std(0)

    def piece_ctc(self, logits: Tensor, frames: Tensor, texts: list[str]) -> Tensor:
        """CTC of the encoder's output against the tokenizer's pieces."""
        ids = self.tokenizer(texts, add_special_tokens=False).input_ids
        rows = [row for row, tokens in enumerate(ids) if tokens]
        logs = logits[rows].float().log_softmax(-1).transpose(0, 1)
        return ctc_loss(logs, frames[rows], [ids[row] for row in rows], self.blank)

    def step(self, done: float) -> dict:
        """The losses of the next batch; `done`: how much of the time is over."""
        heard, texts = self.next_batch(clean=True)
        frames = heard.encoder_frames
        self.student.encoder.whisper.train()
        alone = done > 1 - self.arguments.apart
        with self.precision:
            guess, pieces, hidden = self.student(heard, done < SETTLING)
            output = hidden.detach() if alone else hidden
            logits, labels, token_ctc = self.writer.scores(output, frames, texts)
        loss, taught = token_loss(logits, labels), self.teach(heard)
        share = self.arguments.soft_share
        distillation = distillation_loss(guess, (taught - self.mean) / self.scale, frames)
        ctc = self.piece_ctc(pieces, frames, texts)
        to_write = loss
        if share:
            soft = self.soft_targets(taught, frames, labels)
            to_write = (1 - share) * loss + share * soft_loss(logits, soft, labels)
        total = WEIGHTS["transcription"] * (to_write + self.writer.weight * token_ctc)
        if not alone:
            joins = min(1.0, done / 0.05)
            total = total + WEIGHTS["distillation"] * distillation + joins * WEIGHTS["ctc"] * ctc
        losses = {"loss": loss, "token_ctc": token_ctc, "ctc": ctc, "distillation": distillation}
        return {"total": [total]} | losses

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Nats a token of each test, and how much was heard so far."""
        self.student.eval()
        found = self.heard_so_far()
        for test in self.sound.tests:
            losses = []
            for heard, texts in self.sound.test(test):
                with self.precision:
                    output = self.student(heard)[2]
                    losses.append(self.writer.losses(output, heard.encoder_frames, texts)[0].item())
            found[test] = round(float(np.mean(losses)), 4)
        return found

    def save(self) -> None:
        """The encoder and the pair's projector, in float16."""
        weights = self.student.encoder.whisper.state_dict()
        out = self.arguments.out / "encoder"
        out.mkdir(parents=True, exist_ok=True)
        save_half({f"model.encoder.{name}": value for name, value in weights.items()}, out)
        self.pair.save_pretrained(self.arguments.out / "pair")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny encoder.")
    parser.add_argument("--init", type=Path, default=CHECKOUT / "data/models/tiny-encoder")
    parser.add_argument("--pair", default="tiny", help="its decoder writes, its projector learns")
    parser.add_argument("--teacher", required=True, help="a Whisper")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1.2e-3)
    parser.add_argument("--dropout", type=float, default=0.1, help="in the encoder")
    parser.add_argument(
        "--apart", type=float, default=0.0, help="of the time, the last, projector alone"
    )
    parser.add_argument("--soft-pair", default="small", help="it tells how likely each token is")
    parser.add_argument("--soft-share", type=float, default=0.5, help="of that, in the targets")
    add_arguments(parser)
    arguments = parser.parse_args()
    if not 0 <= arguments.soft_share <= 1:
        parser.error(f"--soft-share {arguments.soft_share} came; expected 0 to 1")
    Training(arguments).train()


if __name__ == "__main__":
    main()
