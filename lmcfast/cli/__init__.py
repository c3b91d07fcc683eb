"""The command ``lmcfast``: parse, call the library, print. torch is imported by what needs it, when it runs."""

from __future__ import annotations

from .main import app, main

__all__ = ["app", "main"]
