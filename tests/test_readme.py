"""The Python blocks of README and docs run, in order, as one program each; the README's commands are those of CI."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lmcfast

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def run_blocks(page: Path) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(compile("\n".join(blocks("python", page)), str(page), "exec"), names)
    return names


def test_python_blocks_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_blocks(README)
    assert names["result"].gap == pytest.approx(0, abs=1e-9)
    assert names["m"].converged


@pytest.mark.parametrize("page", [p for p in PAGES if p != README and blocks("python", p)], ids=lambda p: p.name)
def test_python_blocks_of_other_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_blocks(page)


def test_the_spec_file_shown_is_one():
    (text,) = blocks("json", ROOT / "docs" / "specs.md")
    assert lmcfast.PermutationSpec.from_json(text).sizes["h0"] == 512


def test_the_two_commands_are_there():
    commands = [block for block in blocks("sh") if "pip install" in block]
    assert [c.split("&& ")[1].strip() for c in commands] == ["lmcfast demo", "pytest"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_local_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_files_named_in_pages_exist():
    for page in PAGES:
        for name in re.findall(
            r"`(?:python |pytest )?((?:tests|benchmarks|csrc|lmcfast|docs)/[\w/.-]+)", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
