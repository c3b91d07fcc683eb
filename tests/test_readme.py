"""The README's Python blocks run, in order, as one program; its commands are the ones that CI runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = blocks("python")
    assert len(code) >= 4
    names: dict[str, object] = {}
    exec(compile("\n".join(code), str(README), "exec"), names)
    assert names["result"].gap == pytest.approx(0, abs=1e-9)
    assert names["m"].converged


def test_the_two_commands_are_there():
    commands = [block for block in blocks("sh") if "pip install" in block]
    assert [c.split("&& ")[1].strip() for c in commands] == ["lmcfast demo", "pytest"]


def test_local_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        if "://" not in target:
            assert (README.parent / target).exists(), target
