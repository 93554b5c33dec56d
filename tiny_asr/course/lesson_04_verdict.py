"""Notebook 04: how a decoder knows order, and how surprised it is by a text.

Surprise is -ln of the probability that the decoder gave to a token: 0 if it was certain. Summed
over a text it says which of two texts is likelier; its mean's exponential is the perplexity.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def turned(language_model, later: int = 0, still: bool = False) -> Iterator[None]:
    """While the block runs, all positions are so much later, or nothing is turned at all. For
    language models with rotary position embeddings (RoPE, Su et al. 2021), whose cosines and sines
    come from one module, as in Llama and SmolLM3."""
    rotary = language_model.base_model.rotary_emb
    usual = rotary.forward

    def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = usual(x, position_ids + later)
        return (torch.ones_like(cosines), torch.zeros_like(sines)) if still else (cosines, sines)

    rotary.forward = forward
    try:
        yield
    finally:
        del rotary.forward


def turning(language_model) -> str:
    """In which layers queries and keys are turned, from 1: SmolLM3 leaves it out in some."""
    config = language_model.config
    turns = getattr(config, "no_rope_layers", None) or [1] * config.num_hidden_layers
    return " ".join(str(number) if turn else "-" for number, turn in enumerate(turns, start=1))


def causal_weights(scores: Tensor) -> Tensor:
    """Attention weights of scores (N, N): each position sees itself and those before it."""
    future = torch.ones_like(scores).triu(1).bool()
    return scores.masked_fill(future, -torch.inf).softmax(dim=1)


def greedy(next_logits: Callable, prompt: list[int], end: int, most: int) -> list[int]:
    """The likeliest token, again and again, until the end token or `most` tokens."""
    ids = list(prompt)
    for _ in range(most):
        token = int(next_logits(ids).argmax())
        if token == end:
            break
        ids.append(token)
    return ids[len(prompt) :]


@torch.no_grad()
def surprise(model, audio_embeddings: Tensor, lengths: Tensor, texts: list[str]) -> list[Tensor]:
    """The surprise at each token of each text (L,), its end included, after what was heard.
    Embeddings (B, A, llm_dim) with A = 0 are a prompt without audio."""
    labels = model.processor.labels(texts).to(model.device)
    logits = model.decoder.text_logits(audio_embeddings, lengths, labels)
    logs = logits.float().log_softmax(dim=-1)
    chosen = -logs.gather(2, labels.clamp(min=0)[..., None])[..., 0].cpu()
    return [row[: len(label[label >= 0])] for row, label in zip(chosen, labels, strict=True)]


@torch.no_grad()
def surprise_alone(model, text: str) -> Tensor:
    """The same of the bare language model, which reads the text as a line between two others."""
    line = model.processor.tokenizer(f"\n{text}\n", add_special_tokens=False).input_ids
    ids = torch.tensor([line], device=model.device)
    logs = model.decoder.language_model(ids).logits[0, :-1].float().log_softmax(dim=-1).cpu()
    return -logs.gather(1, ids[0, 1:, None].cpu())[:, 0]
