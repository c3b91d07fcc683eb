"""``lmcfast info``: versions, and what was built and is used."""

from __future__ import annotations

import ast
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from .. import __version__
from ..errors import UnavailableError
from . import common

_LIBRARIES = ("torch", "numpy", "safetensors")


def info(as_json: common.Json = False, debug: common.Debug = False) -> None:
    """Print versions, what was built and what is used.

    torch itself is imported only if it was built for CUDA, to ask it for devices.

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
            found["cuda"] = _native.cuda_report()
        except UnavailableError as error:
            found["extension"], found["cuda"], problem = None, None, error
        if as_json:
            common.print_json(found)
        else:
            extension, cuda = found.pop("extension") or {}, found.pop("cuda")
            built = {f"extension: {key}": _text(value) for key, value in extension.items()}
            kernels = {f"cuda kernels: {key}": value for key, value in _kernels(cuda).items()} if extension else {}
            figures = {**found, **built, **kernels}
            common.print_figures({key.replace("_", " "): value for key, value in figures.items()})
        if problem is not None:
            common.print_error(str(problem))
            raise typer.Exit(1)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    """The CUDA devices that torch sees. Importing torch takes seconds, so first its own note of its build is read."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return "torch is not installed"
    if not built_for_gpu(Path(spec.origin).with_name("version.py")):
        return "no: this build of torch is for the CPU"
    common.print_notes(["importing torch, to ask it for devices"])
    import torch

    if not torch.cuda.is_available():
        return "no device"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _kernels(report: dict[str, Any] | None) -> dict[str, str]:
    """What there is to say of the CUDA kernels of this build on this machine."""
    from .._native import version_text

    if report is None:
        return {"built": "no: nvcc 12.0 or later was not found, or LMCFAST_CUDA was OFF"}
    devices = [
        f"{device['name']} (compute capability {'.'.join(map(str, device['capability']))}, "
        f"{device['memory'] / 2**30:.0f} GiB)"
        for device in report["devices"]
    ]
    return {
        "built": report["compiler"],
        "architectures": report["architectures"],
        "runtime": version_text(report["runtime"]),
        "driver": f"CUDA {version_text(report['driver'])}" if report["driver"] else "none",
        "driver needed": f"CUDA {version_text(report['needed_driver'])} or later",
        "devices": ", ".join(devices) or "none",
        "usable": "yes" if report["problem"] is None else f"no: {report['problem']}",
    }


def built_for_gpu(note: Path) -> bool:
    """Whether torch's ``version.py`` names a version of CUDA or ROCm; true where it cannot be told."""
    try:
        text = note.read_text(encoding="utf-8")
    except OSError:
        return True
    found = dict(re.findall(r"^(cuda|hip)\b[^=\n]*=\s*(.+)$", text, flags=re.MULTILINE))
    try:
        return not found or any(ast.literal_eval(value) is not None for value in found.values())
    except (ValueError, SyntaxError):
        return True


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
