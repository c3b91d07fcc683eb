"""The benchmark of other projects' examples: both sides run, objectives are compared, a missing project is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bench_compat
import pytest

BENCHMARKS = Path(bench_compat.__file__).parent


def test_the_script_measures_both_sides_and_writes_them(tmp_path):
    out = tmp_path / "compat"
    command = [sys.executable, BENCHMARKS / "bench_compat.py", "--only", "3 x 3", "--rounds", "1", "--seconds", "0.001"]
    done = subprocess.run([*command, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.with_suffix(".json").read_text())
    assert row["before_value"] == row["after_value"] == 5
    assert row["before"] > 0 < row["after"]
    assert "| scipy: the example, 3 x 3 |" in done.stdout


@pytest.mark.parametrize("script", [s for s in bench_compat.SCRIPTS if "MNIST" not in s.case], ids=lambda s: s.name)
def test_the_changed_line_works(script):
    found = bench_compat.run_here(script, "after", 0)
    assert found["seconds"] > 0
    assert found["value"] > 0


def test_a_missing_project_is_named():
    row = {"name": "x: y", "missing": "ModuleNotFoundError: No module named 'x'"}
    assert "| x: y | not run: ModuleNotFoundError: No module named 'x' |" in bench_compat.table([row])


def test_the_table_of_the_page_is_that_of_the_results():
    results = sorted((BENCHMARKS / "results").glob("compat-*.json"))[-1]
    page = (BENCHMARKS.parent / "docs" / "compat.md").read_text()
    assert bench_compat.table(json.loads(results.read_text())) in page
