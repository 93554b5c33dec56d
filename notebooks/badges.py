"""Say where this repository is published, in one place: `make badges REPO=owner/name`.

Each notebook's title and its row in the README get a badge that opens it in Colab, and each set-up
cell gets the address it clones there. Before, none of them names an address, so none leads nowhere.
Give another name and it takes the place of the old one; give an empty one and all is as before.
"""

import os
import re
import sys
from pathlib import Path

import nbformat
import typer

HOST = "https://github.com"
BRANCH = "main"
COLAB = "https://colab.research.google.com"
PICTURE = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]"
BADGE = re.escape(PICTURE) + r"\([^)]*\)"
ADDRESS = re.compile(r'^ADDRESS = "[^"]*"', re.MULTILINE)
ROOT = Path(__file__).resolve().parent.parent


def badge(repository: str, name: str) -> str:
    """Markdown that opens the notebook file `name` in Colab; "" without a repository."""
    if not repository:
        return ""
    return f"{PICTURE}({COLAB}/github/{repository}/blob/{BRANCH}/notebooks/{name})"


def set_address(notebook: nbformat.NotebookNode, address: str) -> None:
    """Write what `git clone` is to be given into the cell tagged `setup`; "" for nothing.

    Raises:
        ValueError: there is not exactly one such cell with one line `ADDRESS = "..."`.
    """
    cells = [cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", [])]
    if len(cells) != 1 or len(ADDRESS.findall(cells[0].source)) != 1:
        raise ValueError('expected one cell tagged setup, with one line that begins ADDRESS = "')
    cells[0].source = ADDRESS.sub(lambda _: f'ADDRESS = "{address}"', cells[0].source)


def set_badge(notebook: nbformat.NotebookNode, markdown: str) -> None:
    """Put a badge under the notebook's title, in the place of the one there; "" for none."""
    first = notebook.cells[0]
    title, _, rest = first.source.partition("\n\n")
    rest = re.sub(rf"^{BADGE}\n\n", "", rest)
    first.source = "\n\n".join(part for part in (title, markdown, rest) if part)


def readme_with_badges(text: str, repository: str, names: list[str]) -> str:
    """The README with a badge behind the link to each notebook in its table of lessons.

    Raises:
        ValueError: a notebook is in no row, or in several.
    """
    text = re.sub(rf" {BADGE}", "", text)
    for name in names:
        link = re.compile(rf"^\|.*?\]\(notebooks/{re.escape(name)}\)", re.MULTILINE)
        if len(rows := link.findall(text)) != 1:
            raise ValueError(
                f"README.md links to notebooks/{name} from {len(rows)} table rows: expected one"
            )
        if markdown := badge(repository, name):
            text = text.replace(rows[0], f"{rows[0]} {markdown}")
    return text


def write(path: Path, text: str) -> None:
    """Replace a file's text at once: an editor or a server never reads half of it."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(beside, path)


def publish(repository: str, root: Path = ROOT) -> list[str]:
    """Name `repository` ("owner/name", or "" for none) in the notebooks and README under `root`.

    Returns: the names of the files that changed.

    Raises:
        ValueError: it is not a repository's name, or a file is not as expected; nothing is written.
    """
    if repository and not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(
            f"{repository!r} is no repository: expected owner/name, as in REPO=owner/name"
        )
    paths = sorted((root / "notebooks").glob("[0-9]*.ipynb"))
    address = repository and f"{HOST}/{repository}"
    texts = {}
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        set_address(notebook, address)
        set_badge(notebook, badge(repository, path.name))
        texts[path] = nbformat.writes(notebook) + "\n"
    readme = root / "README.md"
    texts[readme] = readme_with_badges(
        readme.read_text(encoding="utf-8"), repository, [path.name for path in paths]
    )
    changed = [path for path in texts if path.read_text(encoding="utf-8") != texts[path]]
    for path in changed:
        write(path, texts[path])
    return [path.name for path in changed]


def main(repository: str) -> None:
    """Put the badges of owner/name into the README and the notebooks; with "" take them out."""
    try:
        changed = publish(repository)
    except ValueError as error:
        print(f"badges: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{repository or 'no repository'} is named; changed: {', '.join(changed) or 'nothing'}")


if __name__ == "__main__":
    typer.run(main)
