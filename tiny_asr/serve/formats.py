"""What is sent back: a transcript in each of OpenAI's response formats."""

from collections.abc import Sequence
from dataclasses import dataclass

FORMATS = ("json", "text", "verbose_json", "srt", "vtt")


@dataclass(frozen=True)
class Segment:
    """A stretch of the clip that was read as one, from `start` to `end` in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """A clip's segments, its length in seconds, its language, and what is doubtful in its sound."""

    segments: Sequence[Segment]
    seconds: float
    language: str
    doubts: Sequence[str] = ()

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
            }
        return content | ({"warnings": list(self.doubts)} if self.doubts else {})

    def as_plain(self, form: str) -> str:
        """`text`, `srt` or `vtt`; subtitles have a cue for each segment that has words."""
        if form == "text":
            return self.text + "\n"
        point, cues = ("," if form == "srt" else "."), []
        for number, segment in enumerate(self._spoken(), 1):
            times = " --> ".join(clock(t, point) for t in (segment.start, segment.end))
            cue = f"{times}\n{_one_line(segment.text)}\n"
            cues.append(f"{number}\n{cue}" if form == "srt" else cue)
        return "\n".join(["WEBVTT\n", *cues] if form == "vtt" else cues)

    def _spoken(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.text]


def clock(seconds: float, point: str) -> str:
    """`00:01:02,345`: the time as SRT writes it; VTT has a full stop as its `point`."""
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"


def _one_line(text: str) -> str:
    """A cue ends at an empty line, and `-->` would begin another."""
    return " ".join(text.replace("-->", "->").split())
