"""From a page to its HTML: everything is in the one file, which needs no network and no script."""

from __future__ import annotations

import base64
import io
from importlib import resources
from typing import TYPE_CHECKING

from ... import __version__
from ...errors import UnavailableError
from ...io import atomic_path
from ..plots.frame import StrPath
from .blocks import Page

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure


LARGEST_VECTOR = 250_000
"""Bytes of an SVG above which a figure becomes a PNG."""


def render_page(page: Page) -> str:
    """The page as HTML text; the same page gives the same text.

    Raises ``UnavailableError`` where jinja2 is not installed.
    """
    return _template().render(page=page, version=__version__, picture=_picture)


def save_page(page: Page, path: StrPath, overwrite: bool = True) -> None:
    """Write the page, whole or not at all. ``UnavailableError`` as above, ``CheckpointError`` naming the path."""
    with atomic_path(path, overwrite) as temporary:
        temporary.write_text(render_page(page), encoding="utf-8")


def check_available() -> None:
    """``UnavailableError`` where a page cannot be made, to be told before the long work and not after it."""
    from ..plots import new_figure

    new_figure()
    _template()


def _template() -> Template:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise UnavailableError("jinja2 is needed for reports: pip install lmcfast[report]") from error
    folder = resources.files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["tidy"] = _tidy
    environment.globals["style"] = folder.joinpath("page.css").read_text(encoding="utf-8")
    return environment.from_string(folder.joinpath("page.html.jinja").read_text(encoding="utf-8"))


def _tidy(text: str) -> str:
    """No line break between a figure and its unit or deviation."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%").replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _picture(figure: Figure) -> str:
    """A data URI. SVG, but PNG where so many points make that the smaller one."""
    vector = _saved(figure, "svg")
    if len(vector) < LARGEST_VECTOR:
        return _uri("image/svg+xml", vector)
    return _uri("image/png", _saved(figure, "png"))


def _saved(figure: Figure, format: str) -> bytes:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # A fixed salt and no date: equal figures give equal bytes.
    with rc_context({"svg.hashsalt": "lmcfast"}):
        figure.savefig(buffer, format=format, metadata={"Date": None} if format == "svg" else None)
    return buffer.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
