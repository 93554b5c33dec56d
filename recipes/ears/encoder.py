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

from recipes.ears.learn import Sound, Writer, add_arguments, ctc_loss, minutes, train_for
from recipes.ears.scene import Heard
from recipes.steps import save_half
from recipes.text import CHECKOUT
from tiny_asr.encoder import HUB_PREFIX, AudioEncoder, EncoderOfCheckpoint
from tiny_asr.model import ASRModel

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
    had = config.encoder_layers
    small = WhisperEncoder(config)
    small.load_state_dict({name.removeprefix("model.encoder."): w.float() for name, w in weights.items()
                           if name.startswith("model.encoder.")})  # fmt: skip
    deep = copy.deepcopy(config)
    deep.encoder_layers = layers
    encoder = WhisperEncoder(deep)
    new = set(np.linspace(0, layers - 1, layers - had + 2).round().astype(int)[1:-1]) if layers > had else set()
    encoder.load_state_dict(small.state_dict(), strict=False)
    old = iter(small.layers)
    for place, layer in enumerate(encoder.layers):
        if place in new:
            layer.load_state_dict(before)
            for part in (layer.self_attn.out_proj, layer.fc2):
                nn.init.zeros_(part.weight), nn.init.zeros_(part.bias)
        else:
            before = next(old).state_dict()
            layer.load_state_dict(before)
    return encoder


def distillation_loss(guess: Tensor, goal: Tensor, frames: Tensor) -> Tensor:
    """Smooth L1 (Girshick 2015) over the clips' own encoder frames; no waiting for the device."""
    own = torch.arange(goal.shape[1]) < frames[:, None]
    count = int(frames.sum()) * goal.shape[2]
    own = own.to(goal.device, non_blocking=True)[..., None]
    return (F.smooth_l1_loss(guess.float(), goal, reduction="none") * own).sum() / count


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny encoder.")
    parser.add_argument("--init", type=Path, default=CHECKOUT / "data/models/tiny-encoder")
    parser.add_argument("--pair", default="tiny", help="whose decoder writes, whose projector learns")
    parser.add_argument("--teacher", required=True, help="a Whisper")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1.2e-3)
    parser.add_argument("--apart", type=float, default=0.0, help="share of the time, at the end, in which the projector learns alone")
    add_arguments(parser)
    a = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast = device.type == "cuda"
    dtype = torch.bfloat16 if fast else torch.float32
    torch.manual_seed(a.seed)

    pair = ASRModel.from_pretrained(a.pair, device=device, dtype=dtype)
    writer = Writer(pair, a.ctc, 0.01, a.learning_rate)
    config = AutoConfig.from_pretrained(a.init)
    config.dropout = 0.05
    whisper = deepened(load_file(a.init / "model.safetensors"), config, a.layers)
    teacher = EncoderOfCheckpoint.from_pretrained(a.teacher, key_mapping=HUB_PREFIX, dtype=dtype)
    teacher = AudioEncoder(teacher.to(device))
    vocabulary = pair.config.vocab_size
    student = Student(whisper, teacher.whisper.config.d_model, vocabulary).to(device)
    blank = pair.processor.tokenizer.convert_tokens_to_ids("<|silence|>")
    sound = Sound(a, config.num_mel_bins, pair.config.samples_per_embedding, device)
    precision = torch.autocast(device.type, torch.bfloat16, enabled=fast)
    optimizer = torch.optim.AdamW(
        [p for p in student.parameters() if p.requires_grad], lr=a.learning_rate,
        betas=(0.9, 0.98), weight_decay=0.01, fused=fast,
    )  # fmt: skip
    count = {"clips": 0, "hours": 0.0}

    def teach(heard: Heard) -> Tensor:
        with torch.no_grad():
            return teacher(heard.clean, heard.mel_frames).float()

    frames = []
    for _ in range(4):  # mean and deviation of each of the teacher's dimensions: some are far louder
        heard, _ = sound.batch(clean=True)
        output = teach(heard)
        own = torch.arange(output.shape[1]) < heard.encoder_frames[:, None]
        frames.append(output[own.to(device)])
    mean, scale = torch.cat(frames).mean(0), torch.cat(frames).std(0)
    del frames

    def step(done: float) -> dict:
        heard, texts = sound.batch(clean=True)
        count["clips"] += len(texts)
        count["hours"] += float(heard.lengths.sum()) / 16_000 / 3600
        student.encoder.whisper.train()
        alone = done > 1 - a.apart
        with precision:
            guess, pieces, hidden = student(heard, done < SETTLING)
            output = hidden.detach() if alone else hidden
            loss, token_ctc = writer.losses(output, heard.encoder_frames, texts)
        distillation = distillation_loss(guess, (teach(heard) - mean) / scale, heard.encoder_frames)
        ids = pair.processor.tokenizer(texts, add_special_tokens=False).input_ids
        rows = [row for row, tokens in enumerate(ids) if tokens]
        logs = pieces[rows].float().log_softmax(-1).transpose(0, 1)
        ctc = ctc_loss(logs, heard.encoder_frames[rows], [ids[row] for row in rows], blank)
        joins = min(1.0, done / 0.05)
        total = WEIGHTS["transcription"] * (loss + writer.weight * token_ctc)
        if not alone:
            total = total + WEIGHTS["distillation"] * distillation + joins * WEIGHTS["ctc"] * ctc
        return {"total": [total], "loss": loss, "token_ctc": token_ctc, "ctc": ctc, "distillation": distillation}

    @torch.no_grad()
    def measure() -> dict[str, float]:
        student.eval()
        found = {"clips": count["clips"], "hours": round(count["hours"], 1)}
        for test in sound.tests:
            losses = []
            for heard, texts in sound.test(test):
                with precision:
                    output = student(heard)[2]
                    losses.append(writer.losses(output, heard.encoder_frames, texts)[0].item())
            found[test] = round(float(np.mean(losses)), 4)
        return found

    def save() -> None:
        weights = student.encoder.whisper.state_dict()
        (a.out / "encoder").mkdir(parents=True, exist_ok=True)
        save_half({f"model.encoder.{name}": value for name, value in weights.items()}, a.out / "encoder")
        pair.save_pretrained(a.out / "pair")

    train_for(
        minutes(a), step, [optimizer, writer.optimizer], measure, save, a.out / "log.csv", a.warmup, a.log_every
    )
    print(f"saved {a.out}", flush=True)


if __name__ == "__main__":
    main()
