"""The frozen language model: prompt, splice, loss, writing.

A causal language model predicts the next token from the embeddings before it, and does not care
whether an embedding came from its own table or from a projector. So the input is built in
embedding space:

    [prompt before] [audio embeddings] [prompt after] [text so far]

In a batch of unlike clips each row is written without a gap, and what is left of the row comes
last. Nothing before it can see it there, because a causal model never looks ahead. So a row is
computed as if it were alone, without an attention mask, and by the fastest attention there is.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiny_asr.device import send
from tiny_asr.fast.ready_caches import ReadyCaches
from tiny_asr.fast.speculative import GUESSES, next_steps
from tiny_asr.kv_cache import KVCache, NoCache
from tiny_asr.prompt import split_prompt
from tiny_asr.search.ctc import CTCHead
from tiny_asr.search.guides import Guides
from tiny_asr.search.repetition import Loops
from tiny_asr.search.silence import ended_where_silent
from tiny_asr.shapes import IGNORE, frame_mask, keep

EXTRA_TOKENS = 8  # a transcript may have this many tokens more than there are audio embeddings


class Spliced(NamedTuple):
    """The decoder's input: embeddings (B, W, llm_dim), and which of them are real (B, W) bool.

    W is the prompt's length + A, and + L where there is text.
    """

    embeddings: Tensor
    mask: Tensor


def to_the_left(mask: Tensor) -> Tensor:
    """Where to read each column from, so that all that is True in mask (B, W) comes first, in its
    own order: indices (B, W) for `gather`."""
    return mask.logical_not().long().argsort(dim=1, stable=True)


class TextDecoder(nn.Module):
    """A frozen causal language model that reads audio embeddings inside its prompt.

    Args:
        language_model: any causal LM of `transformers`. Frozen here, and stays in eval mode.
        tokenizer: its tokenizer.
        prompt: the literal prompt with `<audio>` in it.
        end_token: the token that ends a transcript.
        text: `plain` or `written`, see `ASRConfig`: other scripts take more tokens a second.
    """

    language_model: Any
    prompt_before: Tensor
    prompt_after: Tensor

    def __init__(self, language_model, tokenizer, prompt: str, end_token: str, text="plain"):
        super().__init__()
        self.language_model = language_model.requires_grad_(False).eval()
        if end_token not in tokenizer.get_vocab():
            raise ValueError(
                f"end_token {end_token!r} is not a token of this decoder's tokenizer, which has "
                f"{tokenizer.eos_token!r}: set end_token to one of its tokens"
            )
        self.tokenizer = tokenizer
        self.no_speech_threshold: float | None = None
        self.ctc: CTCHead | None = None
        self.tokens_per_embedding = 1 if text == "plain" else 3
        self.end_id = tokenizer.convert_tokens_to_ids(end_token)
        self.ready_caches = ReadyCaches()
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
    def layers(self) -> nn.ModuleList:
        """The language model's layers, whatever its class calls them."""
        count = self.language_model.config.num_hidden_layers
        lists = (m for m in self.language_model.modules() if isinstance(m, nn.ModuleList))
        return next(layers for layers in lists if len(layers) == count)

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
        before, after = (
            self.embed(ids.expand(batch, -1)) for ids in (self.prompt_before, self.prompt_after)
        )
        audio_mask = frame_mask(send(audio_lengths, before.device), width)
        parts = [before, audio_embeddings.to(before.dtype), after]
        masks = [audio_mask.new_ones(before.shape[:2]), audio_mask]
        masks.append(audio_mask.new_ones(after.shape[:2]))
        if text_ids is not None and text_mask is not None:
            parts.append(self.embed(text_ids))
            masks.append(text_mask)
        embeddings, mask = torch.cat(parts, dim=1), torch.cat(masks, dim=1)
        order = to_the_left(mask)
        moved = embeddings.gather(1, order[..., None].expand_as(embeddings))
        return Spliced(moved, mask.gather(1, order))

    def kv_cache(self, rows: int, columns: int) -> AbstractContextManager[KVCache]:
        """An empty cache for at least so many columns, leased to one text until the block ends.

        On a GPU one may lie ready, from a text of the same size that is finished.
        """
        if self.token_embeddings.is_cuda:
            return self.ready_caches.lease(self.language_model, rows, columns)
        return nullcontext(KVCache(self.language_model, rows, columns))

    def text_logits(
        self, audio_embeddings: Tensor, audio_lengths: Tensor, labels: Tensor
    ) -> Tensor:
        """Scores for every target token, given the audio and the true text before it.

        The logits at the prompt's last position score the first target, and so on. Only the columns
        where some row has a target reach the vocabulary matrix, the largest of all.

        Args:
            audio_lengths: (B,); best on the CPU, where looking at them does not wait for a GPU.
            labels: (B, L) text and end token, padded with -100.
        Returns:
            (B, L, V).
        """
        device, text, count = labels.device, labels[:, :-1], labels.shape[1]
        first = self.prompt_length + audio_lengths - 1  # this column scores a row's first target
        begin, end = int(first.min()), int(first.max()) + count
        audio_lengths, first = send(audio_lengths, device), send(first, device)
        spliced = self.splice(audio_embeddings, audio_lengths, text.clamp(min=0), text != IGNORE)
        logits = self.language_model(
            inputs_embeds=spliced.embeddings,
            past_key_values=NoCache(),
            logits_to_keep=torch.arange(begin, end, device=device),
            use_cache=False,
        ).logits
        own = (first - begin)[:, None] + torch.arange(count, device=device)
        logits = logits.gather(1, own[..., None].expand(-1, -1, logits.shape[2]))
        return keep("text_logits", logits)

    @torch.no_grad()
    def write(
        self,
        audio_embeddings: Tensor,
        audio_lengths: Tensor,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
        look_every: int = 1,
        end_loops: bool = True,
        hints: Sequence[str] = (),
        ctc_weight: float = 0.0,
        guesses: int = GUESSES,
    ) -> Iterator[Tensor]:
        """Write the transcript token by token, keeping keys and values of what was read (KV cache).

        A row is finished when it writes the end token, or has as many tokens as its clip has audio
        embeddings, plus 8: ten a second, where speech has four. A `written` text may have 30.

        Args:
            audio_lengths: (B,), best on the CPU.
            max_new_tokens: another limit for all rows.
            temperature: 0 takes the likeliest token (greedy); above 0 samples.
            generator: the random numbers for sampling.
            look_every: steps from one look whether all rows have finished to the next: on a GPU
                each look waits for it. The steps too many yield -100.
            end_loops: a row also ends when it only repeats itself (see `search.repetition`).
            hints: words to prefer (see `search.hints`).
            ctc_weight: of the sound's own opinion (see `search.ctc`); 0: the decoder decides alone.
            guesses: tokens read along, where that is faster (see `fast.speculative`); 0 for none.
        Yields:
            The next token of each row (B,), its end token included; -100 where it has finished.
        """
        spliced = self.splice(audio_embeddings, audio_lengths)
        limits = self.text_limits(audio_lengths, max_new_tokens)
        most = int(limits.max())
        if most <= 0:
            return
        limits = send(limits, spliced.mask.device)
        finished = limits <= 0
        loops = Loops(len(limits), limits.device)
        guides = Guides(self, audio_embeddings, audio_lengths, hints, ctc_weight)
        with self.kv_cache(len(limits), spliced.mask.shape[1] + most) as cache:
            embeddings = keep("decoder_input", spliced.embeddings)
            logits = cache.read_prompt(embeddings, self.prompt_length + audio_lengths)
            read = next_steps(self, cache, audio_embeddings, audio_lengths, guesses)
            logits = ended_where_silent(logits, self.end_id, self.no_speech_threshold)
            for step in range(1, most + 1):
                logits = guides(keep("next_token_logits", logits))
                token = choose_token(logits, temperature, generator)
                yield token.masked_fill(finished, IGNORE)
                finished = finished | (token == self.end_id) | (limits <= step)
                if end_loops:
                    finished |= loops.add(token) > 0
                guides.add(token)
                if step == most or (step % look_every == 0 and bool(finished.all())):
                    return
                logits = read(token)

    def text_limits(self, audio_lengths: Tensor, max_new_tokens: int | None = None) -> Tensor:
        """The most tokens that each clip's text may have (B,): see `write`."""
        limits = self.tokens_per_embedding * audio_lengths + EXTRA_TOKENS
        if max_new_tokens is None:
            return limits
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens {max_new_tokens} came; expected 0 or more")
        return limits.clamp(max=max_new_tokens)


def most_columns(prompt: int, audio: int) -> int:
    """Columns of the cache that a text needs at most, after so many embeddings of each kind."""
    return prompt + audio + audio + EXTRA_TOKENS


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


def token_loss(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the target tokens in float32; -100 is left out.

    Args:
        logits: (B, L, V) scores for each target.
        labels: (B, L).
        reduction: "mean" over the targets, or "sum", to divide by a global count.
    """
    return F.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction=reduction
    )
