"""JupyterLab as `make lab` starts it, on copies of the notebooks, and one notebook open in it."""

import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Locator, Page

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 60
STRIP = 4000  # pixels

# Notebook 05 trains for minutes, and nbval lets it. Here the same cells run, but train for a few
# steps only, and what they claim of a trained model is left out.
SHORTER = {
    "utterances=2000": "utterances=96",
    "utterances=4 * 32": "utterances=4 * 4",
    "utterances=400": "utterances=48",
    "kept_apart, limit=40": "kept_apart, limit=4",
    "assert ": "assert True or ",
}

# Asked of the application behind the page, which knows more than it shows.
STATE = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    const cells = [...(panel?.content?.model?.cells ?? [])].filter(cell => cell.type === 'code');
    const outputs = cells.flatMap(
        cell => Array.from({length: cell.outputs.length}, (_, i) => cell.outputs.get(i).toJSON()));
    return {
        counts: cells.map(cell => cell.executionCount),
        running: cells.some(cell => cell.executionState === 'running'),
        errors: outputs.filter(output => output.output_type === 'error')
            .map(output => `${output.ename}: ${output.evalue}`),
        warnings: outputs.filter(output => output.name === 'stderr').map(output => output.text),
        kernel: panel?.sessionContext?.session?.kernel?.status ?? 'none',
    };
}"""
OVER = f"""() => {{
    const {{counts, running, errors, kernel}} = ({STATE})();
    const ran = counts.length > 0 && counts.every(count => count !== null) && !running;
    return kernel === 'idle' && (ran || errors.length > 0);
}}"""


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address without a slash at the end, its password, its folder."""

    address: str
    token: str
    folder: Path

    def ask(self, path: str, method: str = "GET") -> bytes:
        """One request to the server's interface for programs, such as `api/sessions`."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.address}/{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read()

    def stop_kernels(self) -> None:
        """Stop what runs: a notebook that is closed keeps its kernel, and that its gigabyte."""
        for session in json.loads(self.ask("api/sessions")):
            self.ask(f"api/sessions/{session['id']}", "DELETE")


def class_room(folder: Path) -> None:
    """Lay a folder out as a checkout whose notebooks may be changed: copies, without outputs.

    The notebooks' outputs are dropped so that what is seen later was made by the run.
    """
    for name in (".venv", "data", "tiny_asr", "Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).symlink_to(REPOSITORY / name)
    (folder / "notebooks").mkdir()
    for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        if path.stem.startswith("05"):
            shorten(notebook)
        nbformat.write(notebook, folder / "notebooks" / path.name)


def shorten(notebook: nbformat.NotebookNode) -> None:
    """Replace, in place, what SHORTER lists; a part of it that is not there is an error."""
    missing = set(SHORTER)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            missing -= {long for long in missing if long in cell.source}
            for long, short in SHORTER.items():
                cell.source = cell.source.replace(long, short)
    if missing:
        raise ValueError(f"notebook 05 no longer contains {sorted(missing)}: change SHORTER")


@contextmanager
def make_lab(folder: Path) -> Iterator[Server]:
    """`make lab` on a class room laid out in the folder, with settings of its own.

    Raises:
        RuntimeError: it does not answer within START_SECONDS; with what it said.
    """
    class_room(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", secrets.token_hex(16), folder)
    flags = (
        f"--no-browser --expose-app-in-browser --ServerApp.port={port} --ServerApp.port_retries=0"
    )
    flags += f" --IdentityProvider.token={server.token}"
    # A user's own settings, extensions and open tabs must not decide whether a test passes.
    own = {
        name: str(folder / ".jupyter" / name)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    }
    own |= {"IPYTHONDIR": str(folder / ".ipython"), "TINY_ASR_PAIR": "tiny"}
    said = folder / "jupyterlab.log"
    with said.open("w") as log:
        # -o: whatever was touched since, .venv is up to date; installing from here would spoil it.
        process = subprocess.Popen(
            ["make", "-C", folder, "-o", ".venv/.installed", "lab", f"LAB_FLAGS={flags}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | own,
            start_new_session=True,
        )
    try:
        wait_for(server, process, said)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(server: Server, process: subprocess.Popen, said: Path) -> None:
    """Return when the server answers; see `make_lab`."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            server.ask("api/status")
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"make lab does not answer after {START_SECONDS} s:\n{said.read_text()}")


class Lab:
    """One notebook in JupyterLab, used as a person does: by its menus, its keys, its widgets."""

    def __init__(self, page: Page, server: Server, name: str):
        self.page, self.name = page, name
        self.panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        page.goto(f"{server.address}/lab/tree/notebooks/{name}?reset&token={server.token}")
        page.wait_for_function(f"() => ({STATE})().kernel === 'idle'", timeout=60_000)

    def menu(self, *path: str) -> None:
        """Choose an item of JupyterLab's menus by its names, from the outermost."""
        self.page.get_by_role("menubar").get_by_text(path[0], exact=True).click()
        for name in path[1:]:
            self.page.locator(".lm-Menu-itemLabel").get_by_text(name, exact=True).click()

    def run_all(self, timeout_seconds: float) -> dict:
        """Run > Run All Cells; the `state` after the last cell, or after the first error."""
        self.menu("Run", "Run All Cells")
        self.page.wait_for_function(OVER, timeout=timeout_seconds * 1000, polling=1000)
        return self.state()

    def state(self) -> dict:
        """Of the code cells: `counts` (the numbers of the prompts), `errors`, `warnings`, ..."""
        return self.page.evaluate(STATE)

    def theme(self, dark: bool) -> None:
        """Settings > Theme > JupyterLab Dark, or Light."""
        self.menu("Settings", "Theme", "JupyterLab Dark" if dark else "JupyterLab Light")
        body = self.page.locator(f"body[data-jp-theme-light={str(not dark).lower()}]")
        body.wait_for(state="attached")

    def cell_with(self, text: str) -> Locator:
        """The first code cell whose source contains the text, with its output, in view."""
        source = self.page.locator(".jp-InputArea", has_text=text)
        cell = self.panel.locator(".jp-CodeCell").filter(has=source).first
        cell.evaluate("element => element.scrollIntoView()")
        return cell

    def photograph(self, folder: Path, name: str) -> None:
        """Pictures NAME-0.png, NAME-1.png, ... of the notebook from top to bottom.

        Each is as wide as the window and STRIP pixels high, far higher than a screen, so that there
        are few of them.
        """
        for old in folder.glob(f"{name}-*.png"):
            old.unlink()
        size = self.page.viewport_size
        self.page.set_viewport_size(size | {"height": STRIP})
        scroller = self.panel.locator(".jp-WindowedPanel-outer")
        last, number = self.panel.locator(".jp-Cell").last, 0
        scroller.evaluate("element => element.scrollTop = 0")
        while True:
            self.page.wait_for_timeout(300)  # for the cells to be drawn
            self.page.screenshot(path=folder / f"{name}-{number}.png")
            box = last.bounding_box()
            if box["y"] + box["height"] <= STRIP:
                break
            scroller.evaluate("element => element.scrollTop += element.clientHeight - 50")
            number += 1
        self.page.set_viewport_size(size)
