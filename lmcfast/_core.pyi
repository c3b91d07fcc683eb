from typing import Any

from numpy.typing import NDArray

def build_info() -> dict[str, Any]: ...
def solve_assignment(
    scores: NDArray[Any], start_prices: NDArray[Any] | None, maximize: bool, certify: int, threads: int
) -> tuple[Any, ...]: ...
