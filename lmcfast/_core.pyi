from typing import Any

from numpy.typing import NDArray

def build_info() -> dict[str, Any]: ...
def solve_assignment(
    scores: NDArray[Any], start_prices: NDArray[Any] | None, maximize: bool, certify: int, threads: int, ties: int = 0
) -> tuple[Any, ...]: ...
def solve_sparse_assignment(
    indptr: NDArray[Any], indices: NDArray[Any], values: NDArray[Any], columns: int, maximize: bool
) -> tuple[Any, ...]: ...
def is_ready(scores: Any) -> bool: ...
def unit_rises(
    before: NDArray[Any], now: NDArray[Any], tensors: list[tuple[NDArray[Any], NDArray[Any], int]]
) -> tuple[int, list[float]]: ...
def move_units(
    before: NDArray[Any], now: NDArray[Any], tensors: list[tuple[NDArray[Any], NDArray[Any], int]]
) -> None: ...
def unit_differences(
    before: NDArray[Any],
    now: NDArray[Any],
    tensors: tuple[NDArray[Any], NDArray[Any], int],
    a_out: NDArray[Any],
    b_out: NDArray[Any],
) -> None: ...
def hold_pairs(
    a: list[NDArray[Any]],
    b: list[NDArray[Any]],
    a_to: NDArray[Any],
    b_to: NDArray[Any],
    table: NDArray[Any],
    tensors: int,
) -> list[tuple[float, float, float]]: ...
def inner_products(pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> list[float]: ...
def add_small_products(
    out: NDArray[Any], terms: list[tuple[NDArray[Any], NDArray[Any], float]], keep: bool
) -> None: ...
def prefer_large_pages(a: NDArray[Any]) -> None: ...
