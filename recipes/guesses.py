"""Measure what speculative decoding gives a pair on a CPU, one clip at a time.

    python -m recipes.guesses tiny
    python -m recipes.guesses medium --encoder DIR --decoder DIR --clips 30

Real clips (or test clips of `data/speech` with `--sets made`), cut to the pair's longest piece, are
written by turns without guesses and with 1 to 4. Printed are the seconds of writing, of hearing and
reading the prompt, and both as times of real time; how many tokens one step has written, and how
many texts are the same as without.
"""

import argparse
import platform
import time

import torch

from recipes.quiet import SETS, choose
from tiny_asr.fast.int8 import quantise
from tiny_asr.fast.lean_step import LeanStep
from tiny_asr.model import ASRModel
from tiny_asr.shapes import SAMPLE_RATE

GUESSES = range(5)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what guesses give on a CPU.")
    parser.add_argument("model", help="tiny, small or medium, or a directory")
    parser.add_argument("--encoder", help="a local copy of the encoder")
    parser.add_argument("--decoder", help="a local copy of the decoder")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--sets", choices=SETS, default="real")
    parser.add_argument("--int8", action="store_true")
    a = parser.parse_args()
    model = ASRModel.from_pretrained(a.model, encoder=a.encoder, decoder=a.decoder)
    if a.int8:
        quantise(model)
    longest = int(model.config.max_seconds * SAMPLE_RATE)
    clips = [clip.load()[:longest] for clip in choose(a.sets, a.clips)]
    steps, read = 0, LeanStep.__call__

    def counted(self, embeddings, cache):
        nonlocal steps
        steps += 1
        return read(self, embeddings, cache)

    LeanStep.__call__ = counted
    seconds, counts = dict.fromkeys(GUESSES, 0.0), dict.fromkeys(GUESSES, 0)
    texts: dict[int, list] = {guesses: [] for guesses in GUESSES}
    model.generate(clips[:1])  # to warm up
    hearing = 0.0
    for clip in clips:
        start = time.perf_counter()
        embeddings = model._listen([clip])
        hearing += time.perf_counter() - start
        for guesses in GUESSES:
            start, steps = time.perf_counter(), 0
            tokens = [int(token) for token in model.decoder.write(*embeddings, guesses=guesses)]
            seconds[guesses] += time.perf_counter() - start
            counts[guesses] += steps
            texts[guesses].append(tokens)
    sound, tokens = sum(map(len, clips)) / SAMPLE_RATE, sum(map(len, texts[0]))
    dtype = "int8" if a.int8 else "float32"
    print(f"{a.model}, {dtype}, {platform.machine()}, {torch.get_num_threads()} threads;")
    print(f"{len(clips)} clips of {sound / len(clips):.1f} s, heard in {hearing:.1f} s\n")
    print("| guesses | writing | tokens a step | x real time | same texts |")
    print("|---|---|---|---|---|")
    for guesses in GUESSES:
        same = sum(one == other for one, other in zip(texts[guesses], texts[0], strict=True))
        rate = sound / (hearing + seconds[guesses])
        print(
            f"| {guesses} | {seconds[guesses]:.1f} s | {tokens / counts[guesses]:.2f} "
            f"| {rate:.1f} | {same} |"
        )


if __name__ == "__main__":
    main()
