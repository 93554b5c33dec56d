"""The package's own code in a notebook: what is explained there is what runs, and can't drift."""

from collections.abc import Callable
from inspect import getsource
from textwrap import dedent

from IPython.display import Markdown


def show_code(function: Callable) -> Markdown:
    """A function's source, as a notebook shows code."""
    return Markdown(f"```python\n{dedent(getsource(function))}```")
