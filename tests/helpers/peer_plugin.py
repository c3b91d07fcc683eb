"""A pytest plugin: the tests of another project meet lmcfast's face of it (``peer_suites.py``)."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

FACE = os.environ["LMCFAST_FACE"]

if FACE != "scipy":
    sys.modules[FACE] = importlib.import_module(f"lmcfast.compat.{FACE}")


def pytest_collection_finish(session: Any) -> None:
    """scipy's tests have imported scipy's function by now."""
    if FACE != "scipy":
        return
    from scipy import optimize

    from lmcfast.compat.scipy import linear_sum_assignment

    modules = {item.module for item in session.items}
    assert modules, "no tests"
    for module in modules:
        assert module.linear_sum_assignment is optimize.linear_sum_assignment
        module.linear_sum_assignment = linear_sum_assignment
