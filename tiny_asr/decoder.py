"""The frozen language model: prompt, splice, loss, writing.

A causal language model predicts the next token from the embeddings before it, and does not care
whether an embedding came from its own table or from a projector. So the input is built in
embedding space:

    [prompt before] [audio embeddings] [prompt after] [text so far]

In a batch a shorter clip is pushed to the right, so that every row's text begins in one column.
The attention mask hides the gap before it and the positions do not count it: a row is computed as
if it were alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tiny_asr.prompt import split_prompt
from tiny_asr.tracing import keep

IGNORE = -100  # a label that the loss leaves out, as everywhere in PyTorch
EXTRA_TOKENS = 8  # a transcript may have this many tokens more than there are audio embeddings


class Spliced(NamedTuple):
    """The decoder's input: embeddings (B, P+A+..., llm_dim), mask and positions (B, P+A+...)."""

    embeddings: Tensor
    attention_mask: Tensor
    position_ids: Tensor


class TextDecoder(nn.Module):
    """A frozen causal language model that reads audio embeddings inside its prompt.

    Args:
        language_model: any causal LM of `transformers`. Frozen here, and stays in eval mode.
        tokenizer: its tokenizer.
        prompt: the literal prompt with `<audio>` in it.
        end_token: the token that ends a transcript.
    """

    def __init__(self, language_model, tokenizer, prompt: str, end_token: str):
        super().__init__()
        self.language_model = language_model.requires_grad_(False).eval()
        if end_token not in tokenizer.get_vocab():
            raise ValueError(
                f"end_token {end_token!r} is not a token of this decoder's tokenizer, which has "
                f"{tokenizer.eos_token!r}: set end_token to one of its tokens"
            )
        self.end_id = tokenizer.convert_tokens_to_ids(end_token)
        for name, text in zip(("before", "after"), split_prompt(prompt), strict=True):
            ids = tokenizer(text, add_special_tokens=False).input_ids
            self.register_buffer(f"prompt_{name}", torch.tensor([ids]).long(), persistent=False)

    def train(self, mode: bool = True) -> "TextDecoder":
        """Frozen means frozen: stay in eval mode whatever the model around it does."""
        return super().train(False)

    @property
    def prompt_length(self) -> int:
        """P: prompt tokens before and after the audio."""
        return self.prompt_before.shape[1] + self.prompt_after.shape[1]

    @property
    def token_embeddings(self) -> Tensor:
        """The table (V, llm_dim) of token embeddings."""
        return self.language_model.get_input_embeddings().weight

    def some_embeddings(self, count: int = 4096) -> Tensor:
        """Embeddings (N, llm_dim) of N tokens, evenly over the vocabulary, as the first layer reads
        them (some models scale their table)."""
        table = self.token_embeddings
        step = -(-len(table) // count)
        return self.embed(torch.arange(0, len(table), step, device=table.device)[None])[0].detach()

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) -> their embeddings (B, L, llm_dim)."""
        return self.language_model.get_input_embeddings()(ids)

    def splice(
        self,
        audio_embeddings: Tensor,
        audio_lengths: Tensor,
        text_ids: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> Spliced:
        """Put the audio embeddings into the prompt, and the text after it.

        Args:
            audio_embeddings: (B, A, llm_dim).
            audio_lengths: each clip's own number of audio embeddings (B,).
            text_ids: (B, L) tokens to put behind the prompt, padded with anything.
            text_mask: (B, L) bool, which of them are text.
        """
        batch, width, _ = audio_embeddings.shape
        before, after = self.prompt_before.expand(batch, -1), self.prompt_after.expand(batch, -1)
        start = self.embed(before)
        start = torch.cat([start, audio_embeddings.to(start.dtype)], dim=1)
        column = torch.arange(start.shape[1], device=start.device)
        # The gap lies behind the prompt's beginning. On the far left its own rows of attention
        # would see nothing at all, and then a GPU's attention returned NaN gradients where the
        # length was a multiple of 64 (torch 2.11). A sliding window would count it, so not there.
        sliding = getattr(self.language_model.config, "sliding_window", None)
        first = 0 if sliding else before.shape[1]
        moved = column - (width - audio_lengths)[:, None]  # below `first`: the gap
        source = torch.where(column < first, column, moved.clamp(min=0))
        start = start.gather(1, source[..., None].expand_as(start))
        inside = (column < first) | (moved >= first)
        embeddings, mask = [start, self.embed(after)], [inside, torch.ones_like(after).bool()]
        if text_ids is not None:
            embeddings.append(self.embed(text_ids))
            mask.append(text_mask)
        mask = torch.cat(mask, dim=1).long()
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return Spliced(torch.cat(embeddings, dim=1), mask, positions)

    def text_logits(
        self, audio_embeddings: Tensor, audio_lengths: Tensor, labels: Tensor
    ) -> Tensor:
        """Scores for every target token, given the audio and the true text before it.

        The logits at the prompt's last position score the first target, and so on: only these L
        positions reach the vocabulary matrix.

        Args:
            labels: (B, L) text and end token, padded with -100.
        Returns:
            (B, L, V).
        """
        text = labels[:, :-1]
        mask = text != IGNORE
        spliced = self.splice(audio_embeddings, audio_lengths, text.masked_fill(~mask, 0), mask)
        output = self.language_model(
            inputs_embeds=spliced.embeddings,
            attention_mask=spliced.attention_mask,
            position_ids=spliced.position_ids,
            logits_to_keep=labels.shape[1],
            use_cache=False,
        )
        return keep("text_logits", output.logits)

    @torch.no_grad()
    def write(
        self,
        audio_embeddings: Tensor,
        audio_lengths: Tensor,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """Write the transcript token by token, keeping keys and values of what was read (KV cache).

        A row is finished when it writes the end token, or has as many tokens as its clip has audio
        embeddings, plus 8: ten a second, where speech has about four.

        Args:
            max_new_tokens: another limit for all rows.
            temperature: 0 takes the likeliest token (greedy); above 0 samples.
            generator: the random numbers for sampling.
        Yields:
            The next token of each row (B,), its end token included; -100 where it has finished.
        """
        inputs, mask, positions = self.splice(audio_embeddings, audio_lengths)
        keep("decoder_input", inputs)
        limits = audio_lengths + EXTRA_TOKENS
        if max_new_tokens is not None:
            if max_new_tokens < 0:
                raise ValueError(f"max_new_tokens {max_new_tokens} came; expected 0 or more")
            limits = limits.clamp(max=max_new_tokens)
        finished = limits <= 0
        cache = None
        for step in range(1, int(limits.max()) + 1):
            output = self.language_model(
                inputs_embeds=inputs,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logits = keep("next_token_logits", output.logits[:, -1])
            token = choose_token(logits, temperature, generator)
            yield token.masked_fill(finished, IGNORE)
            finished = finished | (token == self.end_id) | (limits <= step)
            if bool(finished.all()):
                return
            inputs = self.embed(token[:, None])
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = positions[:, -1:] + 1


def choose_token(
    logits: Tensor, temperature: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """The next token (B,) from its logits (B, V): the likeliest, or a draw at a temperature."""
    if temperature < 0:
        raise ValueError(f"temperature {temperature} came; expected 0 (greedy) or more")
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = (logits.float() / temperature).softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
