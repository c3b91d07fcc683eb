"""Running a module in float64 although it casts to narrower floats inside (norms, softmax, rotary tables)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_WIDE = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}
_CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)


@contextmanager
def in_float64(float32_limits: bool = False) -> Iterator[None]:
    """Everything that torch computes meanwhile is float64 (complex128), whatever dtype the module asks for.

    ``float32_limits``: ``torch.finfo(torch.float64)`` gives float32's limits. Modules write the most negative number
    of a dtype where attention must not look, and sums of those that float32's range would have rounded overflow.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with ExitStack() as stack:
            if float32_limits:
                stack.enter_context(_float32_limits())
            stack.enter_context(_Widening())
            yield
    finally:
        torch.set_default_dtype(before)


def widen(value: Any) -> Any:
    """A tensor of a narrower float as float64, a narrower dtype as float64; anything else as it is."""
    if isinstance(value, torch.Tensor):
        wide = _WIDE.get(value.dtype)
        return value if wide is None else value.to(wide)
    return _WIDE.get(value, value) if isinstance(value, torch.dtype) else value


@contextmanager
def _float32_limits() -> Iterator[None]:
    original = torch.finfo
    limits = original(torch.float32)

    def finfo(dtype: torch.dtype | None = None) -> torch.finfo:
        dtype = torch.get_default_dtype() if dtype is None else dtype
        return limits if dtype == torch.float64 else original(dtype)

    torch.finfo = finfo  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        torch.finfo = original  # type: ignore[misc]


class _Widening(TorchFunctionMode):
    """Casts to narrower floats become casts to float64; tensors that are narrower all the same are widened.

    These come from outside of torch (numpy) or are plain attributes of a module, which ``module.double()`` leaves.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CASTS:
            return args[0].double()
        if _writes(func):  # the tensor that is written to must stay itself
            return func(*args, **(kwargs or {}))
        wide = {key: widen(value) for key, value in (kwargs or {}).items()}
        found = func(*(widen(arg) for arg in args), **wide)
        return widen(found) if isinstance(found, torch.Tensor) and not found.requires_grad else found


def _writes(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "").partition(".")[0]  # an operator is called after its overload too
    return name in ("__set__", "__setitem__") or (name.endswith("_") and not name.endswith("__"))
