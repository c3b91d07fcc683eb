"""Every vector level that this processor has, in a process of its own: the same optima, each with its own proof."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers.checks import check_assignment, solve
from helpers.problems import FAMILIES, whole_numbers

from lmcfast import _native

SHAPES = [(3, 3), (8, 5), (16, 17), (40, 40), (33, 70), (130, 121), (410, 410), (390, 401)]


def objectives() -> list[list[str]]:
    """[level in use], then for each family the objectives, as hexadecimal floats, of problems with exact sums."""
    found = [[_native.build_info()["level_in_use"]]]
    for family, make in FAMILIES.items():
        values = []
        for k, (n, m) in enumerate(SHAPES):
            scores = whole_numbers(make(np.random.default_rng([n, m]), n, m), (3, 12, 20)[k % 3])
            scores = scores.astype(np.float32 if k % 2 else np.float64)
            a = solve(scores)
            check_assignment(scores, a)
            values.append(float(a.objective).hex())
        found.append([family, *values])
    return found


@cache
def objectives_at(level: str) -> list[list[str]]:
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "LMCFAST_CPU": level, "PYTHONPATH": os.pathsep.join(paths)}
    code = "import json, test_assignment_levels as t; print(json.dumps(t.objectives()))"
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found: list[list[str]] = json.loads(child.stdout)
    return found


@pytest.mark.parametrize("level", _native.build_info()["levels_built"][1:])
def test_levels_agree_on_every_objective(level):
    (used,), *found = objectives_at(level)
    if used != level:
        pytest.skip(f"this processor has no {level}")
    (lowest,), *expected = objectives_at("baseline")
    assert lowest == "baseline"
    assert found == expected
