"""The only importer of the extension modules: numpy arrays in, plain tuples out, a missing build as one clear error."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from .errors import UnavailableError

try:
    from . import _core
except ImportError as error:  # a source tree without a build, or a build for another Python
    raise UnavailableError(
        f"lmcfast's compiled extension cannot be imported ({error}); install the package with `pip install -e .` in "
        "its source tree, or leave that folder if lmcfast is installed elsewhere"
    ) from error

_forced, _built = os.environ.get("LMCFAST_CPU"), _core.build_info()["levels_built"]
if _forced and _forced not in _built:
    raise UnavailableError(f"the environment variable LMCFAST_CPU is {_forced!r}; this build has {', '.join(_built)}")

# `lmcfast::Status` of csrc/include/lmcfast/assignment.h. Interrupts and lack of memory are raised by the extension.
OK = 0
INVALID_SCORE = 1
INFEASIBLE = 2
NOT_CERTIFIED = 4

# (scores, start_prices, maximize, certify: 0 none, 1 lists, 2 full, threads) ->
# (OK, columns, prices, objective, gap, stats) or (status, problem, row, column, value): csrc/bindings/assignment.cpp
solve_assignment = _core.solve_assignment

# Tensors by the units of one axis: csrc/bindings/units.cpp; the twins are in lmcfast/matching/units.py.
unit_rises = _core.unit_rises
move_units = _core.move_units
unit_differences = _core.unit_differences
hold_pairs = _core.hold_pairs
inner_products = _core.inner_products
prefer_large_pages = _core.prefer_large_pages


def build_info() -> dict[str, Any]:
    """Vector levels built and used, default threads, compiler, build type."""
    return dict(_core.build_info())


@cache
def default_threads() -> int:
    """LMCFAST_NUM_THREADS, else the number of processors that this process may use."""
    asked = os.environ.get("LMCFAST_NUM_THREADS")
    if asked and not (asked.isdecimal() and int(asked) > 0):
        raise ValueError(f"the environment variable LMCFAST_NUM_THREADS is {asked!r}; expected a positive integer")
    return int(_core.build_info()["default_threads"])
