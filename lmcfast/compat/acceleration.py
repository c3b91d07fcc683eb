"""lmcfast's solver in modules that have already imported scipy's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

_OURS = __name__.split(".")[0]


class Acceleration:
    """What :func:`accelerate` changed. ``modules``: names of the modules that use lmcfast now, sorted.

    ``undo()``, or the end of a ``with`` block (an error in it too), gives them scipy's function back, except where
    someone has put something else in its place since.
    """

    def __init__(self, changed: dict[tuple[str, str], Any], ours: Callable[..., Any]) -> None:
        self._changed = changed
        self._ours = ours

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(sorted({module for module, _ in self._changed}))

    def undo(self) -> None:
        while self._changed:
            (name, attribute), original = self._changed.popitem()
            module = sys.modules.get(name)
            if module is not None and vars(module).get(attribute) is self._ours:
                setattr(module, attribute, original)

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"Acceleration(modules={list(self.modules)})"


def accelerate() -> Acceleration:
    """Gives every loaded module that holds scipy's ``linear_sum_assignment`` lmcfast's instead.

    For code that did ``from scipy.optimize import linear_sum_assignment`` (under any name) and cannot be changed. As a
    plain call it lasts until ``undo()``, in a ``with`` statement until the block ends. Modules of scipy itself, and
    so the attribute ``scipy.optimize.linear_sum_assignment``, stay as they are; so do modules loaded later. scipy is
    not imported for this: while nobody has, there is nothing to change.

    Returns:
        An :class:`Acceleration`, whose ``modules`` names what was changed.
    """
    from .scipy import linear_sum_assignment as ours

    optimize = sys.modules.get("scipy.optimize")
    theirs = getattr(optimize, "linear_sum_assignment", None)
    changed: dict[tuple[str, str], Any] = {}
    if theirs is not None:
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] in ("scipy", _OURS):
                continue
            for attribute in [key for key, value in list(getattr(module, "__dict__", {}).items()) if value is theirs]:
                setattr(module, attribute, ours)
                changed[name, attribute] = theirs
    return Acceleration(changed, ours)
