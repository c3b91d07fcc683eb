"""The documentation's pages hold together: nothing public is left out, no page is an orphan."""

from __future__ import annotations

import re
from pathlib import Path

import lmcfast
from lmcfast.cli.application import app

DOCS = Path(__file__).parents[1] / "docs"


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text()
    listed = {
        line for block in re.findall(r"```\{toctree\}\n(.*?)```", index, flags=re.DOTALL) for line in block.split()
    }
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= listed


def test_every_public_name_is_in_the_reference():
    reference = (DOCS / "api.md").read_text()
    documented = set(re.findall(r"auto\w+:: lmcfast\.(\w+)\n", reference))
    errors = {name for name in lmcfast.__all__ if name.endswith("Error")}
    assert documented >= set(lmcfast.__all__) - errors - {"__version__"}


def test_every_command_is_shown():
    shown = set(re.findall(r"\{command-help\} (\w+)", (DOCS / "commands.md").read_text()))
    assert shown == {command.name or command.callback.__name__ for command in app.registered_commands}
