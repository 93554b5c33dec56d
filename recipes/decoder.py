"""Train the tiny decoder: a language model of English that can also write out messy notes.

    python -m recipes.decoder

reads the transcripts that text.py made and the tokenizer of tiny_parts.py, and writes
`model.safetensors` (float16) and `log.csv` into `data/models/tiny-decoder/`. Two things are learnt
at once:

plain text   the novels, 256 tokens at a time, so that it knows English;
dictation    to read a messy note (see notes.py) inside the prompt and to write it out clean.

Dictation is what lets a projector drive so small a frozen decoder, as instruction tuning does for
SmolLM3. It never hears sound, and never sees an audio embedding.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from recipes.notes import Words, make_notes
from recipes.steps import fit, save_half
from recipes.text import CHECKOUT, SHARED, WORK
from tiny_asr.prompt import default_prompt, split_prompt

TOKENS = 49_152  # positions in a step
PLAIN_LENGTH = 256
# (fewest words, most words, longest note) of a step's notes: like lengths waste little padding.
BUCKETS = ((1, 3, 28), (3, 6, 48), (6, 10, 76), (10, 16, 112), (16, 26, 176), (26, 45, 288))
PLAIN_EVERY = 4  # steps
WARMUP = 200  # steps
BETAS, WEIGHT_DECAY = (0.9, 0.95), 0.05
COLUMNS = ("step", "positions", "seconds", "plain", "dictation", "val_plain", "val_dictation")


class Dictation:
    """Batches of notes inside the prompt, and the loss on what should be written."""

    def __init__(self, model, tokenizer, words: Words):
        self.model, self.words = model, words
        self.silence = tokenizer.convert_tokens_to_ids("<|silence|>")
        self.end = tokenizer.eos_token_id
        parts = split_prompt(default_prompt(tokenizer))
        self.before, self.after = (
            torch.tensor(tokenizer(part).input_ids, device=model.device) for part in parts
        )

    def loss(self, text, bucket: tuple[int, int, int], tokens: int, generator) -> Tensor:
        """Mean cross-entropy of the transcripts of one batch of notes."""
        fewest, most, longest = bucket
        width = longest + len(self.before) + len(self.after) + 2 * most + 6
        table = self.model.get_input_embeddings().weight
        notes = make_notes(
            self.words, text, table, self.silence, self.end, batch=max(2, tokens // width),
            fewest=fewest, most=most, longest=longest, generator=generator,
        )  # fmt: skip
        inputs = self._rows(notes, width, table)
        hidden = self.model.model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        # The prompt's last position predicts the first token of the transcript, and so on.
        first = len(self.before) + notes.lengths + len(self.after) - 1
        places = first[:, None] + torch.arange(notes.labels.shape[1], device=first.device)
        hidden = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[2]))
        logits = self.model.lm_head(hidden)
        return F.cross_entropy(logits.flatten(0, 1).float(), notes.labels.flatten())

    def _rows(self, notes, width: int, table: Tensor) -> Tensor:
        """[before] [note] [after] [transcript] in each row; what follows is padding."""
        column = torch.arange(width, device=table.device).expand(len(notes.lengths), -1)
        in_note = column - len(self.before)
        in_after = in_note - notes.lengths[:, None]
        in_text = in_after - len(self.after)
        text = notes.labels.clamp(min=0)
        ids = self.before[column.clamp(max=len(self.before) - 1)]
        ids = torch.where(in_after >= 0, self.after[in_after.clamp(0, len(self.after) - 1)], ids)
        ids = torch.where(in_text >= 0, text.gather(1, in_text.clamp(0, text.shape[1] - 1)), ids)
        note = in_note.clamp(0, notes.embeddings.shape[1] - 1)[..., None]
        note = notes.embeddings.gather(1, note.expand(-1, -1, table.shape[1]))
        inside = (in_note >= 0) & (in_after < 0)
        return torch.where(inside[..., None], note, F.embedding(ids, table))


def plain_loss(model, text, tokens: int, generator) -> Tensor:
    """Mean cross-entropy of stretches of a novel that begin anywhere."""
    rows = max(2, tokens // PLAIN_LENGTH)
    start = torch.rand(rows, generator=generator, device=model.device)
    start = (start * (len(text.tokens) - PLAIN_LENGTH - 1)).long()
    ids = text.tokens[start[:, None] + torch.arange(PLAIN_LENGTH + 1, device=model.device)].long()
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


def read_texts(folder: Path, limit: int | None) -> dict[str, list[str]]:
    """The text to train on and the five books put aside, as lines."""
    train = [line for line in (folder / "train.txt").read_text("utf-8").split("\n") if line]
    heldout = (folder / "heldout.tsv").read_text("utf-8").splitlines()
    return {"train": train[:limit], "heldout": [line.split("\t")[1] for line in heldout][:limit]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny decoder.")
    parser.add_argument("--model", type=Path, default=CHECKOUT / "data/models/tiny-decoder")
    parser.add_argument("--text", type=Path, default=WORK / "text", help="what text.py wrote")
    parser.add_argument("--cmudict", type=Path, default=SHARED / "text" / "cmudict.dict.xz")
    parser.add_argument("--out", type=Path, help="where weights and log go (--model)")
    parser.add_argument("--steps", type=int, default=9035)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="positions in a step")
    parser.add_argument("--limit", type=int, help="lines of text, to try the program out")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--log-every", type=int, default=250)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    out = a.out or a.model
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")

    began = time.time()
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    texts = read_texts(a.text, a.limit)
    words = Words(tokenizer.backend_tokenizer, texts, a.cmudict, a.seed).to(device)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(a.model)).to(device)
    if not a.no_compile:
        for layer in model.model.layers:  # alike, so compiled once
            layer.compile(dynamic=True)
    dictation = Dictation(model, tokenizer, words)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    tokens = len(words.texts["train"].tokens) / 1e6
    print(
        f"{len(words.numbers)} words, {tokens:.1f} M tokens, {size:.2f} M parameters, "
        f"ready after {time.time() - began:.0f} s",
        flush=True,
    )

    decay = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay}, {"params": others, "weight_decay": 0.0}],
        lr=a.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=device.type == "cuda",
    )  # fmt: skip
    generator = torch.Generator(device).manual_seed(a.seed)

    def losses(text, step, generator):
        """Some steps read plain text, the others notes of one length each."""
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            if step % PLAIN_EVERY == 0:
                return "plain", plain_loss(model, text, a.tokens, generator)
            bucket = BUCKETS[step % len(BUCKETS)]
            return "dictation", dictation.loss(text, bucket, a.tokens, generator)

    done = 0

    def step(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal done
        done = number + 1
        kind, loss = losses(words.texts["train"], number, generator)
        return loss, {kind: loss}

    @torch.no_grad()
    def measure() -> dict[str, float]:
        """Both losses on the five books, on the same batches each time."""
        fixed = torch.Generator(device).manual_seed(1)
        held = [losses(words.texts["heldout"], number, fixed) for number in range(12)]
        found = {"positions": done * a.tokens}
        for name in ("plain", "dictation"):
            values = [value for kind, value in held if kind == name]
            found[f"val_{name}"] = round(torch.stack(values).mean().item(), 4)
        return found

    fit(
        step, measure, lambda: save(model, out), optimizer=optimizer, steps=a.steps,
        learning_rate=a.learning_rate, warmup=WARMUP, log=out / "log.csv", columns=COLUMNS,
        log_every=a.log_every, save_every=8,
    )  # fmt: skip
    print(f"saved {out}", flush=True)


def save(model, out: Path) -> None:
    """The weights in float16; the output layer is the embedding table, which is there once."""
    weights = model.state_dict()
    save_half({name: weights[name] for name, _ in model.named_parameters()}, out)


if __name__ == "__main__":
    main()
