"""Importing the packages that networks come from, also where torchvision's operators were built for another torch."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from functools import cache
from types import ModuleType

import torch

_KEPT: list[torch.library.Library] = []  # a library's operators live as long as it does


@cache
def mend_torchvision() -> None:
    """Declares torchvision's operators where its compiled part does not load: its import fails otherwise, and timm's
    and transformers' with it. No network here uses them. Nothing is done where torchvision is not installed."""
    found = importlib.util.find_spec("torchvision")
    if found is None or _loads(found.submodule_search_locations or ()):
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)


def _loads(folders: list[str] | tuple[str, ...]) -> bool:
    for folder in folders:
        with contextlib.suppress(OSError):
            torch.ops.load_library(f"{folder}/_C.so")
            return True
    return False


def source(name: str) -> ModuleType:
    """The package ``torchvision``, ``timm`` or ``transformers``."""
    mend_torchvision()
    package = importlib.import_module(name)
    if name == "transformers":
        package.logging.set_verbosity_error()  # it remarks on the token ids and kernels of every tiny configuration
    return package
