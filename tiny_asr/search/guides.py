"""What has a say in the next token besides the decoder: hints, and the sound itself (CTC)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tiny_asr.search.ctc import CTCScores
from tiny_asr.search.hints import Hints


class Guides:
    """None, one or both of them, for the rows of a batch.

    Args:
        decoder: a `TextDecoder`.
        audio_embeddings: (B, A, llm_dim), with audio_lengths (B,).
        hints: words to prefer.
        ctc_weight: of CTC's opinion; 0 for none. Raises ValueError where the decoder has no head.
        beams: rows of each clip.
    """

    def __init__(
        self,
        decoder: Any,
        audio_embeddings: Tensor,
        audio_lengths: Tensor,
        hints: Sequence[str],
        ctc_weight: float,
        beams: int = 1,
    ):
        if not ctc_weight >= 0:
            raise ValueError(f"ctc_weight {ctc_weight} came; expected 0 or more")
        if ctc_weight and decoder.ctc is None:
            raise ValueError(
                f"ctc_weight {ctc_weight} came, but this checkpoint has no CTC head; expected 0"
            )
        rows, device = beams * len(audio_lengths), audio_embeddings.device
        heard = audio_embeddings, audio_lengths
        self.guides: list[Hints | CTCScores] = []
        if hints:
            self.guides.append(Hints(hints, decoder.tokenizer, rows, device))
        if ctc_weight:  # last, since it looks at the likeliest tokens alone
            self.guides.append(CTCScores(decoder, *heard, ctc_weight, beams))

    def __call__(self, logits: Tensor) -> Tensor:
        """The scores (B, V) of the next token, from its logits."""
        for guide in self.guides:
            logits = guide(logits)
        return logits

    def add(self, token: Tensor) -> None:
        """Each row's next token (B,)."""
        for guide in self.guides:
            guide.add(token)

    def select(self, rows: Tensor) -> None:
        """Go on with other rows: `rows` (B,) says which of the old ones each new one continues."""
        for guide in self.guides:
            guide.select(rows)
