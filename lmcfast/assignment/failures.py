"""A status of the solver as the exception that the caller gets."""

from __future__ import annotations

from typing import Any, NoReturn

from .. import _native
from ..errors import CertificateError, InfeasibleError, InvalidScoresError


def raise_failure(status: int, place_and_value: list[Any], shape: tuple[int, ...], maximize: bool) -> NoReturn:
    """Raise what a status of ``_native`` means. ``place_and_value``: problem, row, column (-1: none) and value."""
    problem, row, column, value = place_and_value
    rows, columns = shape[-2:]
    batched = len(shape) == 3
    where = f"[{problem}]" if batched else ""
    place: dict[str, int | None] = {
        "problem": problem if batched else None,
        "row": row if row >= 0 else None,
        "column": column if column >= 0 else None,
    }
    if status == _native.INVALID_SCORE:
        index = f"[{problem}, {row}, {column}]" if batched else f"[{row}, {column}]"
        raise InvalidScoresError(f"scores{index} is {value}: {_rule(value, maximize)}", **place)
    if status == _native.INFEASIBLE:
        left = f"row {row}" if row >= 0 else f"column {column}"
        side = "rows" if rows <= columns else "columns"
        raise InfeasibleError(
            f"scores{where}: forbidden pairs leave no way to assign all {side} ({rows} x {columns}); {left} is left "
            "without a partner",
            **place,
        )
    raise CertificateError(
        f"scores{where}: the prices do not prove the result (gap {value:.3g}); if the scores did not change "
        "during the call, this is a bug in lmcfast",
        gap=value,
    )


def raise_sparse_failure(status: int, place_and_value: list[Any], shape: tuple[int, int], maximize: bool) -> NoReturn:
    """:func:`raise_failure` for problems given by lists."""
    _, row, column, value = place_and_value
    if status == _native.REPEATED_PAIR:
        raise InvalidScoresError(f"indices: row {row} lists column {column} twice", row=row, column=column)
    if status == _native.INVALID_SCORE:
        raise InvalidScoresError(
            f"values: row {row}, column {column} is {value}: {_rule(value, maximize)}", row=row, column=column
        )
    raise_failure(status, place_and_value, shape, maximize)


def _rule(value: float, maximize: bool) -> str:
    """What an invalid score breaks."""
    if abs(value) < float("inf"):
        return "magnitudes above 2**1000 would overflow in the prices"
    return f"scores must be finite, or {'-inf' if maximize else 'inf'} for a forbidden pair"
