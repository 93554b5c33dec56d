"""How long after a word is spoken does it stand there? `tiny-asr listen`, measured.

    python -m recipes.latency data/sample.flac
    python -m recipes.latency --minute runs/minute.flac

plays a file in its own time to a `Listener`, as `tiny-asr listen --file` does. A word's end is what
`transcribe(words=True)` says of it. It is shown when a step's text, aligned with the final one, has
it, and it stands for good from the step on after which it is always shown. `--minute` first makes
the file out of bundled test clips with pauses of 0.3 to 2 s. Printed are, in seconds, the median of
all words and what nine of ten stay below; how long the final text took after the last sound; and
how many seconds a core computed for each second of sound.
"""

import argparse
import json
import time
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from tiny_asr.audio import load_audio
from tiny_asr.data.dataset import load_data
from tiny_asr.hub import data_dir
from tiny_asr.listen.listener import Listener
from tiny_asr.listen.sources import Inbox, played
from tiny_asr.model import ASRModel
from tiny_asr.shapes import SAMPLE_RATE

PAUSES = (0.3, 0.6, 1.0, 1.5, 2.0)  # seconds
Step = tuple[float, str]  # seconds since the first sound, and all that is shown


def minute(seconds: float = 60.0) -> Tensor:
    """Bundled test clips, in voices that take turns, with a faint noise in the pauses: (S,)."""
    generator, sound, length = torch.Generator().manual_seed(0), [], 0
    clips = load_data(data_dir() / "speech" / "test.parquet")
    for number in range(0, len(clips), 7):
        pause = int(PAUSES[number % len(PAUSES)] * SAMPLE_RATE)
        sound += [clips[number].load(), 1e-3 * torch.randn(pause, generator=generator)]
        length += len(sound[-2]) + pause
        if length > seconds * SAMPLE_RATE:
            break
    return torch.cat(sound)


def appeared(words: Sequence[str], steps: Sequence[Step]) -> tuple[list[float], list[float]]:
    """When each word of the final text was shown first, and since when it stood there for good."""
    first, since = [float("inf")] * len(words), [float("inf")] * len(words)
    for seconds, text in steps:
        shown: set[int] = set()
        for place, _, size in SequenceMatcher(
            None, words, text.split(), False
        ).get_matching_blocks():
            shown |= set(range(place, place + size))
        for number in range(len(words)):
            since[number] = min(since[number], seconds) if number in shown else float("inf")
            first[number] = min(first[number], since[number])
    return first, since


def play(model: ASRModel, waveform: Tensor) -> list[Step]:
    """What a listener shows of a waveform played in its time; last comes the final text."""
    inbox, listener, steps = Inbox(), Listener(model), []
    start, begin = played(inbox, waveform), time.perf_counter()
    start()
    for block in inbox:
        heard = listener.hear(block)
        steps.append((time.perf_counter() - begin, f"{heard.final} {heard.tentative}"))
    text = listener.finish()
    return [*steps, (time.perf_counter() - begin, text)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--minute", action="store_true", help="make the file first")
    options = parser.parse_args(arguments)
    if options.minute:
        options.file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(options.file, minute().numpy(), SAMPLE_RATE)
    waveform, model = load_audio(options.file), ASRModel.from_pretrained(options.model)
    timed = model.transcribe(waveform, SAMPLE_RATE, words=True)
    busy = time.process_time()
    steps = play(model, waveform)
    busy = time.process_time() - busy
    words = [word.text.strip() for word in timed.words]
    report = {"seconds": round(len(waveform) / SAMPLE_RATE, 2), "words": len(words)}
    for name, times in zip(("shown", "for_good"), appeared(words, steps), strict=True):
        late = np.subtract(times, [word.end for word in timed.words])
        report[name] = [round(float(np.quantile(late, share)), 2) for share in (0.5, 0.9)]
    report["end"] = round(steps[-1][0] - len(waveform) / SAMPLE_RATE, 2)
    report["computing"] = round(busy * SAMPLE_RATE / len(waveform), 2)
    report["same_text"] = steps[-1][1] == timed.text
    print(json.dumps(report))


if __name__ == "__main__":
    main()
