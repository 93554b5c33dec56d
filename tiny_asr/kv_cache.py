"""What the decoder keeps of all it has read: the KV cache, in buffers of fixed size.

To write one more token, attention needs the keys and values of every position before it, and these
never change. The usual cache grows by a copy at each step. Here the buffers are as long as the text
can get, a step writes into its own column and a mask hides what is not filled yet. So each step is
the same computation on the same addresses, and on a GPU it can be recorded once and played again
(see `fast.graphs`).
Each row has a column of its own, as the rows of a batch have prompts of unlike lengths.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tiny_asr.device import send
from tiny_asr.fast.gpu_step import GPUStep, fits_gpu, or_the_librarys, recorded_prompt
from tiny_asr.fast.graphs import RecordedStep
from tiny_asr.fast.lean_step import LeanStep, fits
from tiny_asr.shapes import attention_mask


class NoCache:
    """What `transformers` takes for a cache, and keeps nothing: each layer looks at the keys and
    values that it was just given. (Without any, a model would search its positions for packed
    texts, and a GPU would have to wait for the answer.)"""

    def update(self, keys: Tensor, values: Tensor, number: int, *_) -> tuple[Tensor, Tensor]:
        """A layer's keys and values (B, heads, W, head_dim), as they came."""
        return keys, values

    def get_seq_length(self, number: int = 0) -> int:
        """Columns filled before."""
        return 0

    get_query_offset = get_seq_length

    def get_mask_sizes(self, query_length: int, number: int) -> tuple[int, int]:
        """Keys that attention looks at, and the first one's column."""
        return query_length, 0


class KVCache(NoCache):
    """Keys and values (B, heads, N, head_dim) of each layer, and how far each row has come.

    Args:
        language_model: a causal LM of `transformers` whose layers all have attention.
        rows: B.
        columns: N, the longest prompt and text together.
        record: play a step from a CUDA graph.
    """

    def __init__(self, language_model, rows: int, columns: int, record: bool = False):
        self.language_model, self.columns = language_model, columns
        table = language_model.get_input_embeddings().weight
        self.dtype, device = table.dtype, table.device
        self.rows = torch.arange(rows, device=device)
        self.column = torch.zeros(rows, dtype=torch.int64, device=device)  # the next one to fill
        self.kinds = kinds_of_attention(language_model.config)
        self.buffers: list[tuple[Tensor, Tensor]] = []  # keys and values of each layer
        self.layer: tuple[Tensor, Tensor] | None = None  # those of the layer at work
        self.reading_prompt = False
        self.record = record
        self.recorded: RecordedStep | None = None
        self.lean: LeanStep | GPUStep | None = None
        if fits(language_model, self.kinds):
            self.lean = LeanStep(language_model)
        elif record and fits_gpu(language_model, self.kinds):
            self.lean = GPUStep(language_model)

    @torch.no_grad()
    def read_prompt(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Read everything at once; the logits (B, V) of what comes next in each row.

        Args:
            embeddings: (B, W, llm_dim), each row's own first.
            lengths: how many those are (B,); best on the CPU.
        """
        width = embeddings.shape[1]
        alike = int(lengths.min()) == width
        self.reading_prompt = True
        now = embeddings[:, : width if alike else width - 1]
        logits = recorded_prompt(self, now) if self.buffers else None
        if logits is None:
            # The first prompt makes the buffers; compiled layers ask for buffers that are there.
            with torch.compiler.set_stance("default" if self.buffers else "force_eager"):
                logits = self.language_model(
                    inputs_embeds=now,
                    past_key_values=self,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
        self.reading_prompt = False
        self.column.copy_(send(lengths, self.column.device))
        if alike:
            return logits
        # Rows of unlike lengths end in unlike columns: read the last ones (again) as a step.
        self.column -= 1
        return self.read(embeddings[self.rows, self.column][:, None])

    @torch.no_grad()
    def read(self, embedding: Tensor) -> Tensor:
        """Read one more embedding a row (B, 1, llm_dim); the logits (B, V) of what comes next."""
        if not self.record:
            return self._step(embedding)
        if self.recorded is None:
            self.recorded = or_the_librarys(self, RecordedStep, embedding)
        return self.recorded(embedding)

    def _step(self, embedding: Tensor) -> Tensor:
        if self.lean is not None:
            logits = self.lean(embedding, self)
            self.column += 1
            return logits
        # A recorded step is always the same, another one looks only at what is filled.
        self.filled = self.columns if self.record else int(self.column.max()) + 1
        output = self.language_model(
            inputs_embeds=embedding,
            attention_mask=self._mask(),
            position_ids=self.column[:, None],
            past_key_values=self,
            use_cache=True,
        )
        self.column += 1
        return output.logits[:, -1]

    def _mask(self) -> Tensor | dict[str, Tensor]:
        """What the new position may look at (B, 1, 1, N): 0, or the lowest number there is."""
        place = torch.arange(self.filled, device=self.column.device)
        back = self.column[:, None] - place
        masks = {}
        for kind, window in self.kinds.items():
            seen = (back >= 0) & (back < (window or self.filled))
            masks[kind] = attention_mask(seen, self.dtype)
        # Models whose layers are of two kinds take one mask for each, all others just a mask.
        return masks if len(masks) > 1 else next(iter(masks.values()))

    # What transformers' layers call: they give the new keys and values, and get all of them ------

    def update(self, keys: Tensor, values: Tensor, number: int, *_) -> tuple[Tensor, Tensor]:
        """Store what a layer has computed; returns what its attention may look at.

        Args:
            keys, values: (B, heads, W, head_dim) of a prompt, W = 1 of a step.
            number: of the layer. (A compiled one does not look at it, but at `layer`: it has the
                same code for all numbers.)
        """
        all_keys, all_values = self.layer or self.make_buffers(number, keys, values)
        if self.reading_prompt:
            width = keys.shape[2]
            all_keys[:, :, :width], all_values[:, :, :width] = keys, values
            return keys, values
        all_keys[self.rows, :, self.column] = keys[:, :, 0].to(all_keys.dtype)
        all_values[self.rows, :, self.column] = values[:, :, 0].to(all_values.dtype)
        return all_keys[:, :, : self.filled], all_values[:, :, : self.filled]

    def make_buffers(self, number: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's buffers, made when it first has something to keep: (B, heads, N, head_dim)."""
        if number == len(self.buffers):
            shape = (*keys.shape[:2], self.columns)
            pair = keys.new_zeros(*shape, keys.shape[3]), values.new_zeros(*shape, values.shape[3])
            self.buffers.append(pair)
        return self.buffers[number]


def kinds_of_attention(config) -> dict[str, int | None]:
    """The kinds of attention that a language model's layers have, and the window of each.

    Where a config says so differs from model to model; `transformers`' own cache knows them all.

    Args:
        config: a causal LM's config.
    Raises ValueError for layers without attention, which keep something else than keys and values.
    """
    layers: list[Any] = DynamicCache(config=config).layers
    names = [type(layer).__name__ for layer in layers]
    if len(set(names)) > 1:  # then the config lists the kinds, and the model wants a mask for each
        names = config.layer_types
    attention = {"DynamicLayer", "DynamicSlidingWindowLayer", "full_attention", "sliding_attention"}
    if other := set(names) - attention:
        raise ValueError(
            f"a decoder with layers of {', '.join(sorted(other))} came; expected full_attention or "
            "sliding_attention: choose another language model"
        )
    return {
        name: layer.sliding_window if layer.is_sliding else None
        for name, layer in zip(names, layers, strict=True)
    }
