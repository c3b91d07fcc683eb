"""The command ``lmcfast``: parse, call the library, print. torch is imported by what needs it, when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .application import app as app

__all__ = ["app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. ``arguments``: default ``sys.argv`` without the program's name.

    The commands are imported in here, so that Ctrl-C while they are being imported ends in one line too.
    """
    try:
        from .application import run

        return run(arguments)
    except KeyboardInterrupt:
        print("error: interrupted; no output was written", file=sys.stderr)
        return 130


def __getattr__(name: str) -> Any:
    if name == "app":
        from .application import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
