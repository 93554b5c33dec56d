"""From a decoder's steps to whole texts: greedy, sampled or by beams; and text as it is written."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor

from tiny_asr.decoder import TextDecoder
from tiny_asr.search.beam import beam_search
from tiny_asr.search.repetition import kept
from tiny_asr.shapes import IGNORE

LOOK_EVERY = 8  # tokens that a GPU writes between two looks whether all clips are finished


def whole_texts(
    decoder: TextDecoder,
    audio_embeddings: Tensor,
    audio_lengths: Tensor,
    beams: int = 1,
    end_loops: bool = True,
    **options,
) -> list[Tensor]:
    """The token ids written for each clip, on the CPU, the end token included.

    Args:
        audio_embeddings: (B, A, llm_dim), with audio_lengths (B,), best on the CPU.
        beams: texts side by side for each clip, see `beam_search`; 1 is greedy or sampled.
        end_loops: end a text that only repeats itself, and keep the first copy.
        options: of `TextDecoder.write`, or of `beam_search`.
    """
    options["end_loops"] = end_loops
    options.setdefault("ctc_weight", ctc_weight(decoder))
    if audio_embeddings.device.type != "cpu":
        options.setdefault("look_every", LOOK_EVERY)
    if beams != 1:
        if options.pop("temperature", 0.0) or options.pop("generator", None):
            raise ValueError(f"beams {beams} came with sampling; expected one of the two")
        texts = beam_search(decoder, audio_embeddings, audio_lengths, beams, **options)
        ids, lengths = texts.ids[:, 0].cpu(), texts.lengths[:, 0].tolist()
        return [row[:length] for row, length in zip(ids, lengths, strict=True)]
    steps = list(decoder.write(audio_embeddings, audio_lengths, **options))
    rows = torch.stack(steps, 1).cpu() if steps else torch.empty(len(audio_lengths), 0).long()
    whole = [row[row != IGNORE] for row in rows]
    return [row[: kept(row.tolist())] for row in whole] if end_loops else whole


def tokens_as_written(
    decoder: TextDecoder, *heard: Tensor, beams: int = 1, hints: Sequence[str] = ()
) -> Iterable[Tensor]:
    """One clip's tokens as they are written; with beams all at the end, when the best is known."""
    if beams != 1:
        return whole_texts(decoder, *heard, beams=beams, hints=hints)[0]
    return decoder.write(*heard, hints=hints, ctc_weight=ctc_weight(decoder))


def ctc_weight(decoder: TextDecoder) -> float:
    """What CTC's opinion counts by default: as the checkpoint has it; 0 without a head, and on
    Apple's `mps`, which lacks the float64 that its sums of logarithms need."""
    if decoder.ctc is None or decoder.token_embeddings.device.type == "mps":
        return 0.0
    return decoder.ctc.weight


def set_ctc_weight(decoder: TextDecoder, weight: float) -> None:
    """Let it count more or less from now on. Raises ValueError where there is no head."""
    if decoder.ctc is not None:
        decoder.ctc.weight = weight
    elif weight:
        raise ValueError(
            f"a CTC weight of {weight:g} came, but this checkpoint has no CTC head; expected 0"
        )


def parts(tokens: Iterable[Tensor], decode: Callable[[list[int]], str]) -> Iterator[str]:
    """The text of one clip's tokens as they come, in parts that are never taken back.

    Args:
        tokens: what `TextDecoder.write` yields for one clip.
        decode: ids to text.
    """
    ids: list[int] = []
    shown = ""
    for token in chain(tokens, [None]):
        if token is not None:
            ids.append(int(token))
        text = decode(ids[: kept(ids, ended=token is None)])
        if token is not None:  # half of a character: wait for its other bytes
            text = text.rstrip("\ufffd")
        if new := text[len(shown) :]:
            shown = text
            yield new


def in_batches(
    write: Callable[[list[Tensor]], list[Tensor]], pieces: Sequence[Tensor], size: int
) -> list[Tensor]:
    """The token ids of each piece (S,), pieces of like lengths written side by side.

    Args:
        write: from some pieces to the ids of each, such as `ASRModel.generate`.
        size: pieces at once.
    """
    order, rows = sorted(range(len(pieces)), key=lambda i: len(pieces[i])), dict[int, Tensor]()
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        rows |= dict(zip(chosen, write([pieces[i] for i in chosen]), strict=True))
    return [rows[i] for i in range(len(pieces))]
