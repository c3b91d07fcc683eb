"""A pytest plugin: the tests of another project meet lmcfast's face of it (``peer_suites.py``)."""

from __future__ import annotations

import importlib
import os
import sys

FACE = os.environ["LMCFAST_FACE"]

if FACE != "scipy":
    sys.modules[FACE] = importlib.import_module(f"lmcfast.compat.{FACE}")


def pytest_collection_finish() -> None:
    """scipy's tests have imported scipy's function by now."""
    if FACE == "scipy":
        from lmcfast.compat import accelerate

        changed = accelerate().modules
        assert changed, "no test module holds scipy's function"
