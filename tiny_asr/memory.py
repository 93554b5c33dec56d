"""What the decoder keeps of all it has read: the KV cache, in buffers of fixed size.

To write one more token, attention needs the keys and values of every position before it, and these
never change. The usual cache grows by a copy at each step. Here the buffers are as long as the text
can get, a step writes into its own column and a mask hides what is not filled yet. So each step is
the same computation on the same addresses, and on a GPU it can be recorded once, as a CUDA graph,
and played again: the hundreds of small kernels of a step then start without waiting for Python.
Each row has a column of its own, as the rows of a batch have prompts of unlike lengths.
"""

import torch
from torch import Tensor
from transformers import DynamicCache

WARM_UP = 3  # steps before one is recorded: libraries choose kernels and take memory in the first


class DecoderMemory:
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
        self.record, self.graph = record, None

    @torch.no_grad()
    def read_prompt(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Read everything (B, W, llm_dim) at once; mask (B, W) bool tells what of it is real.

        Returns:
            Each row's last embedding (B, 1, llm_dim). Give it to `read` first: its logits are those
            of the first token. (A shorter row's is read twice, with the same result.)
        """
        cache, width = DynamicCache(), embeddings.shape[1] - 1
        if width:
            self.language_model(
                inputs_embeds=embeddings[:, :width],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        for number, layer in enumerate(cache.layers):
            keys, values = self._buffers(number, layer.keys, layer.values)
            keys[:, :, :width], values[:, :, :width] = layer.keys, layer.values
        self.column.copy_(mask.sum(dim=1) - 1)
        return embeddings[self.rows, self.column][:, None]

    @torch.no_grad()
    def read(self, embedding: Tensor) -> Tensor:
        """Read one more embedding a row (B, 1, llm_dim); the logits (B, V) of what comes next."""
        if not self.record:
            return self._step(embedding)
        if self.graph is None:
            self._record(embedding)
        self.input.copy_(embedding)
        self.graph.replay()
        return self.output.clone()  # the next step writes over it

    def _step(self, embedding: Tensor) -> Tensor:
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

    def _record(self, embedding: Tensor) -> None:
        """Make the CUDA graph of a step. The steps on the way there must leave no trace."""
        self.input, before = embedding.clone(), self.column.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.column.copy_(before)  # what is written into this column is written again
                self._step(self.input)
        torch.cuda.current_stream().wait_stream(stream)
        self.column.copy_(before)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):  # nothing is computed while it records
            self.output = self._step(self.input)

    def _mask(self) -> Tensor | dict[str, Tensor]:
        """What the new position may look at (B, 1, 1, N): 0, or the lowest number there is."""
        place = torch.arange(self.filled, device=self.column.device)
        back = self.column[:, None] - place
        masks = {}
        for kind, window in self.kinds.items():
            seen = (back >= 0) & (back < (window or self.filled))
            zeros = torch.zeros_like(seen, dtype=self.dtype)
            hidden = zeros.masked_fill(~seen, torch.finfo(self.dtype).min)
            masks[kind] = hidden[:, None, None]
        # Models whose layers are of two kinds take one mask for each, all others just a mask.
        return masks if len(masks) > 1 else next(iter(masks.values()))

    # What transformers' layers call: they give the new keys and values, and get all of them ------

    def update(self, keys: Tensor, values: Tensor, layer: int, *_) -> tuple[Tensor, Tensor]:
        """Store a layer's new key and value (B, heads, 1, head_dim); returns all so far."""
        all_keys, all_values = self._buffers(layer, keys, values)
        column = self.column[:, None, None, None]
        all_keys.scatter_(2, column.expand_as(keys), keys.to(all_keys.dtype))
        all_values.scatter_(2, column.expand_as(values), values.to(all_values.dtype))
        return all_keys[:, :, : self.filled], all_values[:, :, : self.filled]

    def _buffers(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's buffers, made when it first has something to keep: (B, heads, N, head_dim)."""
        if layer == len(self.buffers):
            pair = [
                new.new_zeros(*new.shape[:2], self.columns, new.shape[3]) for new in (keys, values)
            ]
            self.buffers.append(tuple(pair))
        return self.buffers[layer]

    def get_seq_length(self, layer: int = 0) -> int:
        """Columns filled before: no layer needs it, as positions are given."""
        return 0


def kinds_of_attention(config) -> dict[str, int | None]:
    """The kinds of attention that a language model's layers have, and the window of each.

    Args:
        config: a causal LM's config.
    Raises ValueError for layers without attention, which keep something else than keys and values.
    """
    window = getattr(config, "sliding_window", None)
    usual = "full_attention" if window is None else "sliding_attention"
    kinds = sorted(set(getattr(config, "layer_types", None) or [usual]))
    if other := set(kinds) - {"full_attention", "sliding_attention"}:
        raise ValueError(
            f"a decoder with layers of {', '.join(sorted(other))} came; expected full_attention or "
            "sliding_attention: choose another language model"
        )
    return {kind: window if kind == "sliding_attention" else None for kind in kinds}
