"""Sphinx: the pages of this folder, the reference from the docstrings, the commands from their help.

Built with `sphinx-build -W docs site`.
"""

import os
import re
import subprocess
import sys

from docutils import nodes
from docutils.parsers.rst import Directive

import lmcfast

project = "lmcfast"
copyright = "the lmcfast authors"
release = version = lmcfast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"lmcfast {version}"

myst_heading_anchors = 3

# Signatures carry the types; the text of a docstring says shapes and units.
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"


class CommandHelp(Directive):
    """``command-help:: NAME``: what ``lmcfast NAME --help`` prints."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        command = [sys.executable, "-m", "lmcfast", self.arguments[0], "--help"]
        environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
        text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        block = nodes.literal_block(text, text)
        block["language"] = "text"
        return [block]


def escape_formulas(app, what, name, object, options, lines):
    """Docstrings are written to be read in a terminal: in |x| and (*sizes) the signs stand for themselves."""
    for index, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        parts[::2] = [re.sub(r"\||(?<=\()\*", r"\\\g<0>", part) for part in parts[::2]]
        lines[index] = "".join(parts)


def setup(app):
    app.add_directive("command-help", CommandHelp)
    app.connect("autodoc-process-docstring", escape_formulas)
