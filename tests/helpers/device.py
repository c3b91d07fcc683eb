"""Where tests of the CUDA kernels run: emulated, or on a GPU where LMCFAST_TEST_DEVICE=cuda asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from lmcfast import _native

ON_GPU = os.environ.get("LMCFAST_TEST_DEVICE") == "cuda"
AVAILABLE = ON_GPU or find_spec("lmcfast._emulated") is not None

needs_kernels = pytest.mark.skipif(
    not AVAILABLE, reason="no emulated kernels: install with -C cmake.define.LMCFAST_EMULATED=ON"
)
emulated_only = pytest.mark.skipif(ON_GPU, reason="looks into the emulator")


@contextmanager
def kernels() -> Iterator[None]:
    """Inside the block tensors of :func:`to_device` go to the kernels."""
    if ON_GPU:
        yield
        return
    with _native.emulated_device():
        yield


def to_device(x: Any) -> torch.Tensor:
    """A tensor, or an array, on the device under test."""
    return torch.as_tensor(x).to("cuda" if ON_GPU else "cpu")
