"""CTC beside the decoder: what the sound alone says of a text.

The decoder is a language model. Where the sound is unclear it writes what usually comes next,
leaves words out or loses its place. A second opinion knows nothing of language: each audio
embedding points to the token that is said there, or to none (CTC, Graves et al. 2006). So a text
has a probability in the sound, the sum over all ways to lay its tokens along it, and the next token
is chosen by both opinions ("hybrid CTC/attention", Watanabe et al. 2017):

    log p_decoder(token) + weight * (log p_ctc(text, token, ...) - log p_ctc(text, ...))

where p_ctc(text, ...) is the probability of all texts that begin so. The head has no matrix of its
own: a projector trained with CTC on its embeddings makes them similar to the decoder's token
embeddings, so the scores are cosines. It adds one vector that stands for no token, and a scale.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from tiny_asr.device import send
from tiny_asr.shapes import frame_mask

FILE = "ctc.safetensors"  # of a checkpoint
WEIGHT = 0.4  # 0.3 to 0.5 are usual in hybrid decoding
CANDIDATES = 12  # of the decoder's likeliest tokens: only they are weighed
NEVER, FAR = -1e30, -1e4  # logarithms of nothing, and of next to nothing


class CTCHead(nn.Module):
    """Scores of each token, and of none, for each audio embedding.

    Args:
        token_embeddings: the decoder's table (V, llm_dim).
        weight: of CTC's opinion beside the decoder's, when a text is chosen.
    """

    blank: Tensor
    scale: Tensor
    lengths: Tensor

    def __init__(self, token_embeddings: Tensor, weight: float = WEIGHT):
        super().__init__()
        self.weight = weight
        self.register_buffer("blank", torch.ones(token_embeddings.shape[1]))
        self.register_buffer("scale", torch.tensor(30.0))
        lengths = token_embeddings.detach().float().norm(dim=1)
        self.register_buffer("lengths", lengths.clamp(min=1e-6), persistent=False)

    def blanks(self, pointed: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Of audio embeddings (B, A, llm_dim) of length 1: the score of no token, and the logarithm
        of the sum over all exp(scores), both (B, A)."""
        blank = self.scale * (pointed @ normalize(self.blank, dim=0))
        tokens = [  # clip by clip: with a large vocabulary a batch would be gigabytes
            (self.scale * (clip @ table.float().T) / self.lengths).logsumexp(dim=-1)
            for clip in pointed
        ]
        return blank, torch.logaddexp(torch.stack(tokens), blank)

    def tokens(self, pointed: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        """The scores (B, K, A) of some tokens (B, K) of each row."""
        return self.scale * normalize(table[ids].float(), dim=-1) @ pointed.mT


def save_head(head: CTCHead | None, file: Path) -> None:
    """Write blank, scale and weight; without a head, see that none lies there."""
    if head is None:
        file.unlink(missing_ok=True)
    else:
        tensors = {"blank": head.blank, "scale": head.scale, "weight": torch.tensor(head.weight)}
        save_file({k: v.float().cpu() for k, v in tensors.items()}, file, {"format": "pt"})


def load_head(file: Path | None, token_embeddings: Tensor) -> CTCHead | None:
    """Read what `save_head` wrote; None where there is no file. Raises ValueError if it is damaged,
    or of another decoder."""
    if file is None:
        return None
    head = CTCHead(token_embeddings)
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} is damaged ({error}); copy or save it again") from error
    came = {key: tuple(value.shape) for key, value in state.items()}
    expected = {"blank": tuple(head.blank.shape), "scale": (), "weight": ()}
    if came != expected or not all(value.isfinite().all() for value in state.values()):
        raise ValueError(
            f"{file} does not fit this decoder: it holds {came}, expected {expected}, all of them "
            "finite: copy it again, or delete it to do without"
        )
    head.weight = round(state.pop("weight").item(), 6)
    head.load_state_dict(state)
    return head


class CTCScores:
    """CTC's opinion on the next token of each row; nothing in it waits for a GPU.

    For each row it keeps, for every place in the sound, the probability that exactly its text is
    said up to there, apart for what ends in the last token and in none. Both are sums that grow
    from one place to the next, so one cumulative sum of logarithms has all places at once.

    Args:
        decoder: a `TextDecoder` with a head, `decoder.ctc`.
        audio_embeddings: (B, A, llm_dim), with audio_lengths (B,).
        weight: of this opinion.
        beams: rows of each clip.
    """

    def __init__(
        self,
        decoder: Any,
        audio_embeddings: Tensor,
        audio_lengths: Tensor,
        weight: float,
        beams: int = 1,
    ):
        self.head, self.table, self.weight = decoder.ctc, decoder.token_embeddings, weight
        self.end_id, self.candidates = decoder.end_id, max(CANDIDATES, 2 * beams)
        pointed = normalize(audio_embeddings.float(), dim=-1)
        blank, total = self.head.blanks(pointed, self.table)
        own = frame_mask(send(audio_lengths, pointed.device), pointed.shape[1])
        blank = (blank - total).double().masked_fill(~own, 0.0)  # padding says nothing, for sure
        self.pointed, self.total, self.own, self.blank = (
            part.repeat_interleave(beams, dim=0) for part in (pointed, total, own, blank)
        )
        rows = len(self.blank)
        self.last = torch.full((rows,), -1, device=blank.device)  # token; -1: no text yet
        self.score = torch.zeros(rows, dtype=torch.float64, device=blank.device)
        self.in_token = torch.full_like(self.blank, NEVER)
        self.in_blank = self.blank.cumsum(dim=1)

    def __call__(self, logits: Tensor) -> Tensor:
        """The logits (B, V) of the next token with this opinion; those of tokens that the decoder
        finds unlikely become minus infinity."""
        chosen, self.ids = logits.topk(min(self.candidates, logits.shape[1]), dim=1)
        said = self.head.tokens(self.pointed, self.table, self.ids) - self.total[:, None]
        said = said.double().masked_fill(~self.own[:, None], FAR)
        # The same token twice is heard twice only with none in between.
        again = (self.ids == self.last[:, None])[..., None]
        before = torch.logaddexp(self.in_token, self.in_blank)[:, None]
        before = torch.where(again, self.in_blank[:, None], before)
        before = moved(before, torch.where(self.last < 0, 0.0, NEVER)[:, None, None])
        self.new_in_token = grown(said, before)
        self.new_in_blank = grown(self.blank[:, None], moved(self.new_in_token, NEVER))
        begun = (said + before).logsumexp(dim=-1)
        over = torch.logaddexp(self.in_token[:, -1], self.in_blank[:, -1])[:, None]
        self.new_score = torch.where(self.ids == self.end_id, over, begun)
        gain = (self.new_score - self.score[:, None]).clamp(min=FAR)
        weighed = chosen + (self.weight * gain).to(logits.dtype)
        return torch.full_like(logits, -torch.inf).scatter(1, self.ids, weighed)

    def add(self, token: Tensor) -> None:
        """Each row's next token (B,), one of those that were weighed."""
        place = (self.ids == token[:, None]).long().argmax(dim=1)
        row = torch.arange(len(token), device=token.device)
        self.in_token, self.in_blank = self.new_in_token[row, place], self.new_in_blank[row, place]
        self.score, self.last = self.new_score[row, place], token

    def select(self, rows: Tensor) -> None:
        """Go on with other rows: `rows` (B,) says which of the old ones, of the same clip, each new
        one continues. Then comes `add`."""
        for name in ("ids", "new_in_token", "new_in_blank", "new_score"):
            setattr(self, name, getattr(self, name)[rows])


def moved(logs: Tensor, first: Tensor | float) -> Tensor:
    """(..., A) one place later; `first` comes in front."""
    begin = logs.new_zeros(()) + first
    return torch.cat([begin.expand(*logs.shape[:-1], 1), logs[..., :-1]], dim=-1)


def grown(stay: Tensor, come: Tensor) -> Tensor:
    """The sums s[a] = stay[a] * (s[a - 1] + come[a]) along the last axis, all in logarithms."""
    stayed = stay.cumsum(dim=-1)
    return stayed + (come - (stayed - stay)).logcumsumexp(dim=-1)
