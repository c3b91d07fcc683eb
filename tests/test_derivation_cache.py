"""Derived specs are kept in the process and, on request, in a folder; a change of the source makes another entry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmcfast.spec import PermutationSpec
from lmcfast.spec.derivation import cache


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_kept", {})
    monkeypatch.delenv(cache.VARIABLE, raising=False)


def counted() -> tuple[list[int], Callable[[], PermutationSpec]]:
    calls: list[int] = []

    def derive() -> PermutationSpec:
        calls.append(1)
        return PermutationSpec.from_axes(
            {"a.weight": ("h", "_4"), "b.weight": ("_3", "h")}, {"h": 6}, why_fixed={("a.weight", 1): ("an input",)}
        )

    return calls, derive


def test_one_process_derives_once() -> None:
    calls, derive = counted()
    assert cache.cached({"width": 6}, derive) is cache.cached({"width": 6}, derive)
    assert len(calls) == 1
    cache.cached({"width": 7}, derive)
    assert len(calls) == 2


def test_a_folder_keeps_specs_for_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "specs"))
    calls, derive = counted()
    first = cache.cached({"width": 6}, derive)
    cache._kept.clear()
    again = cache.cached({"width": 6}, derive)
    assert again == first
    assert again.why_fixed == first.why_fixed
    assert len(calls) == 1


def test_a_damaged_file_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    calls, derive = counted()
    first = cache.cached({"width": 6}, derive)
    (file,) = tmp_path.iterdir()
    file.write_text("{")
    cache._kept.clear()
    assert cache.cached({"width": 6}, derive) == first
    assert len(calls) == 2
    assert PermutationSpec.load(file) == first


def test_versions_and_code_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.digest({"width": 6})
    monkeypatch.setattr(cache, "_version", lambda package: "other")
    assert cache.digest({"width": 6}) != before
    monkeypatch.undo()
    monkeypatch.setattr(cache, "_code", lambda: "other")
    assert cache.digest({"width": 6}) != before


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file"))
    calls, derive = counted()
    assert cache.cached({"width": 6}, derive) == derive()
    assert len(calls) == 2
