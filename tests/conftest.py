"""What every test shares: no network, and where the material outside the repository lies."""

import os
from pathlib import Path

import pytest

# Before any import of huggingface_hub, which reads these once. Kernels of notebooks inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

REPOSITORY = Path(__file__).resolve().parent.parent
# Parts of names, what takes minutes first: were it last, one of two processes would wait for it.
LONGEST = ("05_training", "02_encoder", *(f"notebooks/0{n}" for n in (0, 1, 3, 4)))
# Notebooks 06 and 07 begin with what 05 has trained; sooner, they would train for a minute each.
LONGEST += ("/training/", "/fast/", "06_evaluation", "07_yours", "/bench/", "/recipes/")
LONGEST += ("/teaching/", "/project/", "::Test05", "::Test02", "/browser/test_site")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files and classes first; `--no-loadscope-reorder` leaves them so."""

    def place(item: pytest.Item) -> int:
        name = item.nodeid.partition("[")[0]
        return next((i for i, part in enumerate(LONGEST) if part in name), len(LONGEST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared material: `TINY_ASR_SHARED`, else `../shared` beside the checkout."""
    folder = Path(os.environ.get("TINY_ASR_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared material at {folder}; set TINY_ASR_SHARED to its folder")
    return folder.resolve()


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of public models, `TINY_ASR_REAL`: whisper-base/, smollm2-135m-instruct/."""
    folder = Path(os.environ.get("TINY_ASR_REAL") or "nowhere")
    for name in ("whisper-base", "smollm2-135m-instruct"):
        if not (folder / name / "config.json").is_file():
            pytest.skip(f"no {name} in {folder}; set TINY_ASR_REAL to a folder that holds it")
    return folder.resolve()
