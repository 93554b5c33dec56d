"""What every test shares: no network, and where the material outside the repository lies."""

import os
from pathlib import Path

import pytest

# Before any import of huggingface_hub, which reads these once. Kernels of notebooks inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material: `TINY_ASR_SHARED`, else `../shared` beside the checkout."""
    folder = Path(os.environ.get("TINY_ASR_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared material at {folder}; set TINY_ASR_SHARED to its folder")
    return folder.resolve()
