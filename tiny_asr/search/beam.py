"""Beam search: several texts of a clip are written side by side, and the best one is kept.

Greedy writing takes the likeliest token at each step and can't take it back. Here N unfinished
texts of each clip, its beams, go on together: of all their continuations by one token the N
likeliest are kept. A text that ends is put aside with its score, the sum of its log-probabilities
divided by its length to the power of `length_penalty` (without that, short texts would win).
A clip is finished when N texts lie aside and none of its beams does better than the worst of them.
These are the rules of `transformers` (`generate(num_beams=N)`), and our tests compare with it.

The beams are rows of one batch and their key-value cache has a fixed size. When a beam goes on from
another one's text, its keys and values are copied over in place; what was read before the text is
the same for all beams of a clip, so it is read once and stays.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tiny_asr.decoder import TextDecoder
from tiny_asr.device import send
from tiny_asr.kv_cache import KVCache
from tiny_asr.search.guides import Guides
from tiny_asr.search.repetition import Loops
from tiny_asr.search.silence import ended_where_silent
from tiny_asr.shapes import IGNORE, keep

MOST_BEAMS = 64


class Texts(NamedTuple):
    """The best finished texts of each clip, the best first.

    Scores (B, N) and lengths (B, N); ids (B, N, L), of which the first `length` are the text.
    """

    scores: Tensor
    lengths: Tensor
    ids: Tensor

    def add(self, scores: Tensor, lengths: Tensor, ids: Tensor) -> "Texts":
        """With K more (B, K), of which those with a score of minus infinity are not finished."""
        joined = [torch.cat(pair, 1) for pair in zip(self, (scores, lengths, ids), strict=True)]
        best, place = joined[0].topk(self.scores.shape[1])
        text = place[..., None].expand(-1, -1, ids.shape[2])
        return Texts(best, joined[1].gather(1, place), joined[2].gather(1, text))


@torch.no_grad()
def beam_search(
    decoder: TextDecoder,
    audio_embeddings: Tensor,
    audio_lengths: Tensor,
    beams: int,
    *,
    max_new_tokens: int | None = None,
    length_penalty: float = 1.0,
    hints: Sequence[str] = (),
    ctc_weight: float = 0.0,
    look_every: int = 1,
    end_loops: bool = True,
) -> Texts:
    """The best texts of each clip, `beams` of them.

    Args:
        audio_embeddings: (B, A, llm_dim), with audio_lengths (B,), best on the CPU.
        beams: N, texts side by side for each clip.
        length_penalty: above 0 longer texts win more often; 0 compares whole sums.
        max_new_tokens, hints, ctc_weight, look_every, end_loops: see `TextDecoder.write`. A text in
            a loop ends with its first copy: it pays for the others, whose length is not counted.
    """
    if not 1 <= beams <= MOST_BEAMS:
        raise ValueError(f"beams {beams} came; expected 1 (greedy) to {MOST_BEAMS}")
    limits = decoder.text_limits(audio_lengths, max_new_tokens)
    most, clips = max(0, int(limits.max())), len(limits)
    spliced = decoder.splice(audio_embeddings, audio_lengths)
    prompts, width = decoder.prompt_length + audio_lengths, spliced.mask.shape[1]
    shortest, device = int(prompts.min()), spliced.mask.device
    limits = send(limits, device)
    of_clip = torch.arange(clips, device=device).repeat_interleave(beams)  # the clip of each row
    ids = torch.full((clips * beams, most), IGNORE, device=device)
    scores = torch.full((clips, beams), -torch.inf, device=device)
    texts = Texts(scores.clone(), torch.zeros_like(scores).long(), ids.view(clips, beams, most))
    scores[:, 0] = 0  # at first all beams are the same, and one of them counts
    done, loops = limits <= 0, Loops(clips * beams, device)
    guides = Guides(decoder, audio_embeddings, audio_lengths, hints, ctc_weight, beams)
    with (
        decoder.kv_cache(clips, width) as prompt,
        decoder.kv_cache(len(ids), width + most) as cache,
    ):
        embeddings = keep("decoder_input", spliced.embeddings)
        logits = keep("next_token_logits", prompt.read_prompt(embeddings, prompts))
        logits = ended_where_silent(logits, decoder.end_id, decoder.no_speech_threshold)[of_clip]
        go_on_from(prompt, of_clip, cache, slice(0, width))
        for step in range(1, most + 1):
            if step % look_every == 0 and bool(done.all()):
                break
            gains = guides(logits.float().log_softmax(dim=-1))
            total = scores[..., None] + gains.view(clips, beams, -1)
            # 2 N continuations: should N of them be ends, N others go on.
            best, place = total.flatten(1).topk(2 * beams)
            token = place % gains.shape[1]
            parent = place // gains.shape[1] + of_clip.view(clips, beams)[:, :1] * beams
            new = ids[parent]
            new[..., step - 1] = token
            ends = (token == decoder.end_id) | (limits <= step)[:, None]
            among_first = torch.arange(2 * beams, device=device) < beams
            ended = best.masked_fill(~ends | ~among_first | done[:, None], -torch.inf)
            length = torch.full_like(token, step)
            texts = texts.add(ended / step**length_penalty, length, new)
            scores, place = best.masked_fill(ends, -torch.inf).topk(beams)
            ids = new.gather(1, place[..., None].expand(-1, -1, most)).flatten(0, 1)
            token, parent = token.gather(1, place).flatten(), parent.gather(1, place).flatten()
            loops.select(parent)
            repeated = loops.add(token).view(clips, beams) * end_loops
            guides.select(parent)
            guides.add(token)
            looped = scores.masked_fill((repeated == 0) | done[:, None], -torch.inf)
            length = step - repeated
            texts = texts.add(looped / length**length_penalty, length, ids.view_as(new[:, :beams]))
            scores = scores.masked_fill(repeated > 0, -torch.inf)
            done = done | (scores.amax(1) / step**length_penalty <= texts.scores.amin(1))
            if step < most:
                go_on_from(cache, parent, cache, slice(shortest, width + step - 1))
                logits = cache.read(decoder.embed(token[:, None]))
    return texts


def go_on_from(source: KVCache, rows: Tensor, cache: KVCache, columns: slice) -> None:
    """Each row of a cache goes on where a row of another one stands, or of the same one.

    Args:
        rows: of the source, one for each row of the cache.
        columns: what to copy.
    """
    for number, pair in enumerate(source.buffers):
        chosen = [buffer[rows, :, columns] for buffer in pair]
        for ours, theirs in zip(cache.make_buffers(number, *chosen), chosen, strict=True):
            ours[:, :, columns] = theirs
    cache.column.copy_(source.column[rows])
