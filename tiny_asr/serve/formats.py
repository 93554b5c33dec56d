"""What is sent back: a transcript in each of OpenAI's response formats."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_asr.search.words import Word

FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
LINES, WIDTH = 2, 42  # of a subtitle, at most
LONG_PAUSE = 0.5  # seconds: what comes after it is another subtitle


@dataclass(frozen=True)
class Segment:
    """A stretch of the clip that was read as one, from `start` to `end` in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """A clip's segments, its length in seconds, its language, what is doubtful in its sound; its
    words, if they were asked for."""

    segments: Sequence[Segment]
    seconds: float
    language: str
    doubts: Sequence[str] = ()
    words: "Sequence[Word] | None" = None

    @property
    def text(self) -> str:
        """What `ASRModel.transcribe` returns for the clip."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    def as_json(self, verbose: bool) -> dict:
        """`text`, and `warnings` if there are any; `verbose`: the segments with their times too."""
        content: dict = {"text": self.text}
        if verbose:
            content = {
                "task": "transcribe",
                "language": self.language,
                "duration": round(self.seconds, 3),
                **content,
                "segments": [
                    {"id": number, "start": round(s.start, 3), "end": round(s.end, 3)}
                    | {"text": s.text}
                    for number, s in enumerate(self._spoken())
                ],
                **self.timed_words("start"),
            }
        return content | ({"warnings": list(self.doubts)} if self.doubts else {})

    def timed_words(self, begin: str = "begin") -> dict:
        """`{"words": ...}`, each with "word", `begin` and "end"; nothing if none were asked for."""
        if self.words is None:
            return {}
        rows = ((word.strip(), round(b, 3), round(e, 3)) for word, b, e in self.words)
        return {"words": [{"word": word, begin: b, "end": e} for word, b, e in rows]}

    def as_plain(self, form: str) -> str:
        """`text`, `srt` or `vtt`; subtitles have a cue for each few words, or, without words, for
        each segment that has some."""
        if form == "text":
            return self.text + "\n"
        point, cues = ("," if form == "srt" else "."), []
        shown = self._spoken() if self.words is None else subtitles(self.words)
        for number, segment in enumerate(shown, 1):
            times = " --> ".join(clock(t, point) for t in (segment.start, segment.end))
            cue = f"{times}\n{_lines(segment.text)}\n"
            cues.append(f"{number}\n{cue}" if form == "srt" else cue)
        return "\n".join(["WEBVTT\n", *cues] if form == "vtt" else cues)

    def _spoken(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.text]


def clock(seconds: float, point: str) -> str:
    """`00:01:02,345`: the time as SRT writes it; VTT has a full stop as its `point`."""
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"


def subtitles(words: "Sequence[Word]") -> list[Segment]:
    """Words in groups that fit two lines of 42 characters; a sentence's end or a pause of 0.5 s
    ends a group."""
    groups: list[Segment] = []
    for word, begin, end in words:
        last = groups[-1] if groups else Segment(0.0, -LONG_PAUSE, "")
        whole = last.text + word
        goes_on = begin - last.end < LONG_PAUSE and not last.text.endswith(tuple(".?!"))
        if groups and goes_on and len(_lines(whole).splitlines()) <= LINES:
            groups[-1] = Segment(last.start, end, whole)
        else:
            groups.append(Segment(begin, end, word.lstrip()))
    return groups


def _lines(text: str) -> str:
    """As the lines of a cue, which ends at an empty one; `-->` would begin another."""
    return "\n".join(textwrap.wrap(text.replace("-->", "->"), WIDTH))
