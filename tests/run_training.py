"""Train in a process of its own, which a test can kill, limit or run twice side by side.

run_training.py RUN.yaml [RUN.yaml ...] [--resume] [--largest-file BYTES]
"""

import argparse

from tiny_asr.training.settings import TrainingSettings
from tiny_asr.training.trainer import Trainer

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--largest-file", type=int)
    arguments = parser.parse_args()
    if arguments.largest_file is not None:
        import resource  # not there on Windows

        # Writing more fails as on a full disk, for the superuser too.
        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.largest_file, resource.RLIM_INFINITY))
    for recipe in arguments.recipes:
        settings = TrainingSettings.load(recipe)
        Trainer(settings, say=lambda line: print(line, flush=True)).train(arguments.resume)
