"""The course as a web site: `make site` writes it to site/, and no notebook is executed for it.

The notebooks and the cards in data/ lie outside this folder. They are copied into it before each
build, under the same names, so that the links between them hold on the site as they do in the
repository; the pages of this folder link to them as in a clone, and `_links_inside` shortens that.
Nothing on a page is fetched from elsewhere: the site works without a network.
"""

import json
import re
from pathlib import Path

from sphinx.application import Sphinx
from typer.cli import get_docs_for_click
from typer.main import get_command

from tiny_asr import __version__
from tiny_asr.cli.main import app as command_line

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
COPIED = (
    "notebooks/*.ipynb",
    "data/**/README.md",
    "data/**/*.png",
    "data/**/*.yaml",
    "recipes/README.md",
)
COPIES = ("notebooks/", "data/", "recipes/")  # where they are then

project = "tiny_asr"
version = release = __version__
language = "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.githubpages",
    "sphinx_copybutton",
]
exclude_patterns = ["README.md", "images"]

nb_execution_mode = "off"  # the outputs are those of the repository, which CI compares
nb_code_prompt_show = "Show the cell that sets up Colab"
nb_code_prompt_hide = "Hide the cell that sets up Colab"
myst_heading_anchors = 4  # glossary and pages link to sections of notebooks

default_role = "literal"  # docstrings write `name`, as in Markdown
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
add_module_names = False
smartquotes = False  # it would make one dash of the two before an option
python_use_unqualified_type_names = True

html_theme = "furo"
pygments_dark_style = "github-dark"  # Furo's own underlines the names of modules
html_title = "tiny_asr"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_copy_source = html_show_sourcelink = False
html_show_copyright = False
copybutton_selector = ".cell_input pre, .highlight-bash pre, .highlight-python pre"


def _as_page(notebook: str) -> str:
    """A notebook's JSON, changed only where a site differs from JupyterLab.

    The README is the start page, badges are words because their pictures lie elsewhere, the cell
    that sets up Colab is folded away, and a figure's alt text goes where myst-nb looks for it.
    """
    notebook = notebook.replace("../README.md", "../index.md").replace("../docs/", "../")
    page = json.loads(re.sub(r"!\[([^]]+)\]\(https?:[^)]+\)", r"\1", notebook))
    above = []
    for cell in page["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = _nested("".join(cell["source"]), above)
        if "setup" in cell["metadata"].get("tags", []):
            cell["metadata"]["tags"].append("hide-input")
        for output in cell.get("outputs", []):
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
    return json.dumps(page)


def _nested(text: str, above: list[int]) -> str:
    """A Markdown cell with its headings at such levels that a page has one title and skips none.

    Args:
        text: the cell, with the levels of JupyterLab, where every part begins with one `#`.
        above: the headings still open, by the level that they have there; changed here.
    """
    lines, fenced = text.split("\n"), False
    for number, line in enumerate(lines):
        fenced ^= line.startswith("```")
        if (heading := re.match("(#+) ", line)) and not fenced:
            level = len(heading[1]) if above else 0  # the first one is the title
            while above and above[-1] >= level:
                above.pop()
            above.append(level)
            lines[number] = "#" * len(above) + line[len(heading[1]) :]
    return "\n".join(lines)


def _write(path: Path, content: bytes) -> None:
    """Write only what is new: Sphinx reads again what changed."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _collect(app: Sphinx) -> None:
    """Copy notebooks and cards, and write the page of the command line from its own help."""
    sources = [path for pattern in COPIED for path in REPOSITORY.glob(pattern)]
    wanted = {HERE / path.relative_to(REPOSITORY): path for path in sources}
    for old in [path for top in COPIES for path in HERE.glob(f"{top}**/*")]:
        if old.is_file() and old not in wanted:
            old.unlink()
    for copy, path in wanted.items():
        content = path.read_bytes()
        if path.suffix == ".ipynb":
            content = _as_page(content.decode()).encode()
        _write(copy, content)
    _write(HERE / "api/command_line.md", _command_line().encode())


def _links_inside(app: Sphinx, docname: str, source: list[str]) -> None:
    """Pages of docs/ link to notebooks and cards where they lie; on the site, to their copies."""
    if not docname.startswith(COPIES):
        up = "../" * docname.count("/")
        source[0] = re.sub(rf"\]\({up}\.\./({'|'.join(COPIES)})", rf"]({up}\1", source[0])


def _command_line() -> str:
    """The page of the command line: what `tiny-asr COMMAND --help` says of each command."""
    command = get_command(command_line)
    context = command.context_class(command)
    text = get_docs_for_click(obj=command, ctx=context, name="tiny-asr")
    # The head of it lists the commands with summaries cut short; they follow in full.
    commands = text[text.index("\n## ") :].replace("```console", "```text")
    return f"# Command line\n\nEvery command says this itself with `--help`.\n{commands}"


def _figures_inside_the_site(app: Sphinx) -> None:
    """myst-nb would write the figures beside the site, into the checkout."""
    folder = str(Path(app.doctreedir) / "figures")
    app.env.mystnb_config = app.env.mystnb_config.copy(output_folder=folder)


def _as_written(app, what, name, obj, options, lines: list[str]) -> None:
    """What docstrings mean, in reStructuredText: drawings stay as they are, fields become a list.

    An indented block after a blank line is a drawing; a dataclass has a line for each field.
    """
    new = []
    for line in lines:
        if line.startswith("    ") and len(new) > 1 and not new[-1] and not new[-2].startswith(" "):
            new += ["::", ""]
        if what == "class" and (field := re.match(r"([a-z_0-9]+(?:, [a-z_0-9]+)*): ", line)):
            names = field[1].replace(", ", "`, `")
            line = f"- `{names}`: {line[field.end() :]}"
        new.append(line)
    lines[:] = new


def _skip(app, what, name, obj, skip: bool, options) -> bool:
    """Python writes a docstring for each field of a named tuple, which says nothing."""
    return skip or str(obj.__doc__).startswith("Alias for field number")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _as_written, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", _skip)
    app.connect("builder-inited", _collect, priority=1)
    app.connect("source-read", _links_inside)
    app.connect("builder-inited", _figures_inside_the_site, priority=900)
