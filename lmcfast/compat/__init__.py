"""Faces of other projects: their names, signatures and behaviours, with lmcfast's solver and matcher behind them.

Each module stands for one project; change the import line and nothing else. Nothing is solved here: a face translates,
calls and translates back. ``docs/compat.md`` says how each was checked, and where it differs on purpose.
"""

from __future__ import annotations

from .acceleration import Acceleration, accelerate

__all__ = ["Acceleration", "accelerate"]
