"""Run notebooks and store their outputs: `python execute.py NOTEBOOK...` (`make notebooks`).

The stored outputs are what a reader on GitHub sees and what CI compares, so a difference in them
must mean that something changed. Whatever differs between runs or machines without being a result
(time stamps, widget state, the kernel's version) is therefore left out: two runs in a row write the
same bytes. A notebook that fails is left as it was.
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

CELL_TIMEOUT_SECONDS = 600
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


def execute(path: Path) -> None:
    """Run one notebook in its own folder, as JupyterLab does, and write it back without noise.

    Raises:
        CellExecutionError: a cell failed; the file is untouched.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        kernel_name=KERNELSPEC["name"],
        timeout=CELL_TIMEOUT_SECONDS,
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,  # where a stream breaks into pieces depends on timing
    ).execute()
    strip_noise(notebook)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def strip_noise(notebook: nbformat.NotebookNode) -> None:
    """Drop, in place, what differs between runs or machines and is no result."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = KERNELSPEC
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)  # its model id is random


def main(paths: list[str]) -> int:
    """Execute every notebook named; the exit code is 1 when one of them failed."""
    failed = False
    for path in map(Path, paths):
        start = time.perf_counter()
        try:
            execute(path)
            verdict = f"{time.perf_counter() - start:.0f} s"
        except CellExecutionError as error:
            failed = True
            verdict = f"FAILED, left as it was\n{error}"
        print(f"{path.name}: {verdict}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
