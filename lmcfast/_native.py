"""The only importer of the extension modules: numpy arrays in, plain tuples out, a missing build as one clear error."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import UnavailableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

try:
    from . import _core
except ImportError as error:  # a source tree without a build, or a build for another Python
    raise UnavailableError(
        f"lmcfast's compiled extension cannot be imported ({error}); install the package with "
        "`pip install .` in its source tree"
    ) from error


class Status(IntEnum):
    """`lmcfast::Status` of csrc/include/lmcfast/assignment.h, in its order."""

    OK = 0
    INVALID_SCORE = 1
    INFEASIBLE = 2
    INTERRUPTED = 3
    NOT_CERTIFIED = 4
    OUT_OF_MEMORY = 5


class NativeAssignment(NamedTuple):
    """What the extension returns for a batch; `problem`, `row`, `column`, `value` describe a status other than OK."""

    status: int
    columns: NDArray[Any]
    prices: NDArray[Any]
    objective: NDArray[Any]
    gap: NDArray[Any]
    counts: dict[str, int]
    problem: int
    row: int
    column: int
    value: float


def solve_assignment(
    scores: NDArray[Any], start_prices: NDArray[Any] | None, maximize: bool, certify: int, threads: int
) -> NativeAssignment:
    """Solves a (batch, rows, columns) array; the caller has checked everything but the scores' values."""
    return NativeAssignment(*_core.solve_assignment(scores, start_prices, maximize, certify, threads))


def build_info() -> dict[str, Any]:
    """Vector levels built and used, default threads, compiler, build type."""
    return dict(_core.build_info())


def default_threads() -> int:
    return int(_core.build_info()["default_threads"])
