"""``lmcfast info``: versions, and what was built and is used."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from .. import __version__
from ..errors import UnavailableError
from . import common

_LIBRARIES = ("torch", "numpy", "safetensors")


def info(as_json: common.Json = False, debug: common.Debug = False) -> None:
    """Print versions, what was built and what is used.

    Example:
      lmcfast info
    """
    with common.reporting(debug):
        found: dict[str, Any] = {
            "lmcfast": __version__,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            **{name: _version(name) for name in _LIBRARIES},
            "torch_cuda": _cuda(),
        }
        problem = None
        try:
            from .. import _native

            found["extension"] = _native.build_info()
        except UnavailableError as error:
            found["extension"], problem = None, error
        if as_json:
            common.print_json(found)
        else:
            extension = found.pop("extension") or {}
            built = {f"extension: {key}": _text(value) for key, value in extension.items()}
            common.print_figures({key.replace("_", " "): value for key, value in {**found, **built}.items()})
        if problem is not None:
            common.print_error(str(problem))
            raise typer.Exit(1)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no device"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
