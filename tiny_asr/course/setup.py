"""What every lesson begins with: which pair, on which device, and where its runs stay.

TINY_ASR_PAIR   tiny (the default), small, medium or full
TINY_ASR_RUNS   a folder for what is trained (`runs` beside the notebooks)
"""

import os
from pathlib import Path

import torch

PAIR = os.environ.get("TINY_ASR_PAIR", "tiny")
FULL = PAIR not in ("tiny", "small", "medium")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RUNS = Path(os.environ.get("TINY_ASR_RUNS", "runs")).absolute()
