"""Problems given by lists: as the dense solver with all other pairs forbidden, proved, without a dense matrix."""

from __future__ import annotations

import math
import resource

import numpy as np
import pytest
import torch
from helpers.checks import reference_objective
from scipy import sparse

import lmcfast


def draw(rng: np.random.Generator, n: int, m: int, density: float, integers: bool) -> sparse.csr_array:
    """Random pairs; a stored zero is one. Some are listed out of order."""
    listed = rng.random((n, m)) < density
    rows, columns = np.nonzero(listed)
    values = rng.integers(-3, 4, len(rows)).astype(float) if integers else rng.normal(size=len(rows))
    order = np.lexsort((rng.random(len(rows)), rows))
    indptr = np.concatenate([[0], np.cumsum(listed.sum(axis=1))])
    return sparse.csr_array((values[order], columns[order], indptr), shape=(n, m))


def dense(lists: sparse.csr_array, fill: float) -> np.ndarray:
    out = np.full(lists.shape, fill)
    for i in range(lists.shape[0]):
        entries = slice(lists.indptr[i], lists.indptr[i + 1])
        out[i, lists.indices[entries]] = lists.data[entries]
    return out


def solve(lists: sparse.csr_array, maximize: bool = True) -> lmcfast.Assignment:
    return lmcfast.solve_sparse_assignment(lists.indptr, lists.indices, lists.data, lists.shape, maximize=maximize)


def check_proof(scores: np.ndarray, a: lmcfast.Assignment, maximize: bool) -> None:
    """A twin of the certificate over the listed pairs (the others are -inf as maximised)."""
    s, prices = (scores, a.prices) if maximize else (-scores, -a.prices)
    n, m = s.shape
    rows = np.flatnonzero(a.columns >= 0)
    assert len(rows) == len(set(a.columns[rows].tolist())) == min(n, m)
    assigned = s[rows, a.columns[rows]]
    assert a.objective == pytest.approx(math.fsum(assigned) * (1 if maximize else -1), rel=1e-14, abs=1e-300)
    u = (s - prices).max(axis=1)
    if n < m:
        assert prices.min() >= 0
        assert not prices[np.setdiff1d(np.arange(m), a.columns)].any()
    if n > m:
        u = np.maximum(u, 0)
    allowed = 32 * max(n, m) * 2.0**-53 * max(np.abs(assigned).max(), np.abs(prices).max())
    assert abs(math.fsum([*u, *prices, *-assigned])) <= allowed
    assert abs(a.gap) <= allowed


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("integers", [True, False])
def test_as_the_dense_problem(maximize, integers):
    forbidden = -np.inf if maximize else np.inf
    solved = 0
    for seed in range(150):
        rng = np.random.default_rng([seed, integers])
        n, m = rng.integers(1, 25, 2)
        lists = draw(rng, n, m, rng.uniform(0.05, 1), integers)
        scores = dense(lists, forbidden)
        try:
            expected = reference_objective(scores, maximize)
        except ValueError:
            with pytest.raises(lmcfast.InfeasibleError):
                solve(lists, maximize)
            continue
        a = solve(lists, maximize)
        assert a.objective == pytest.approx(expected, abs=1e-12)
        check_proof(scores, a, maximize)
        solved += 1
    assert 50 < solved < 150


@pytest.mark.parametrize("shape", [(900, 900), (500, 800), (800, 500)])
def test_larger_lists(shape):
    rng = np.random.default_rng(5)
    lists = draw(rng, *shape, 0.03, integers=False)
    scores = dense(lists, np.inf)
    a = solve(lists, maximize=False)
    assert a.objective == pytest.approx(reference_objective(scores, False), rel=1e-12)
    check_proof(scores, a, maximize=False)


def test_stored_forbidden_pairs_are_as_if_not_listed():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        lists = draw(rng, *rng.integers(1, 12, 2), 0.8, integers=True)
        lists.data[rng.random(lists.nnz) < 0.5] = -np.inf
        fewer = dense(lists, -np.inf)
        rows, columns = np.nonzero(np.isfinite(fewer))
        without = sparse.csr_array((fewer[rows, columns] + 10, (rows, columns)), shape=lists.shape)  # + 10: no zeros
        try:
            found = solve(without)
        except lmcfast.InfeasibleError:
            with pytest.raises(lmcfast.InfeasibleError):
                solve(lists)
            continue
        assert solve(lists).objective == found.objective - 10 * min(lists.shape)


def test_no_dense_matrix_is_made():
    n, degree = 30_000, 4
    rng = np.random.default_rng(0)
    columns = (np.arange(n)[:, None] + np.array([0, 1, 7, 1000])) % n
    values = rng.random(n * degree)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    a = lmcfast.solve_sparse_assignment(np.arange(0, n * degree + 1, degree), columns.ravel(), values, (n, n))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sorted(a.columns) == list(range(n))
    assert after - before < 200_000  # KB; the matrix would take 7 GB


def test_an_infeasible_problem_names_who_is_left():
    with pytest.raises(
        lmcfast.InfeasibleError, match=r"no way to assign all rows \(2 x 3\); row [01] is left"
    ) as caught:
        lmcfast.solve_sparse_assignment([0, 1, 2], [2, 2], [1.0, 5.0], (2, 3))
    assert caught.value.row in (0, 1)
    with pytest.raises(lmcfast.InfeasibleError, match=r"all columns \(3 x 2\); column 1"):
        lmcfast.solve_sparse_assignment([0, 1, 2, 2], [0, 0], [1.0, 5.0], (3, 2))
    with pytest.raises(lmcfast.InfeasibleError, match="row 0"):  # stored, and forbidden
        lmcfast.solve_sparse_assignment([0, 1], [0], [-np.inf], (1, 1))


def test_empty_problems():
    for shape in ((0, 0), (0, 3), (3, 0)):
        a = lmcfast.solve_sparse_assignment(np.zeros(shape[0] + 1, int), [], [], shape)
        assert a.columns.tolist() == [-1] * shape[0]
        assert a.prices.tolist() == [0.0] * shape[1]
        assert a.objective == a.gap == 0


def test_tensors_and_narrow_types():
    indptr, indices = torch.tensor([0, 2, 4]), torch.tensor([0, 1, 0, 1], dtype=torch.int16)
    a = lmcfast.solve_sparse_assignment(indptr, indices, torch.tensor([1, 5, 2, 3], dtype=torch.bfloat16), (2, 2))
    assert isinstance(a.columns, torch.Tensor)
    assert a.columns.tolist() == [1, 0]
    assert a.objective == 7


GOOD = {"indptr": [0, 1, 2], "indices": [0, 1], "values": [1.0, 2.0], "shape": (2, 2)}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"shape": (3, 2)}, lmcfast.ScoresShapeError, "indptr: expected 4 entries for 3 rows, got 3"),
        ({"shape": 4}, lmcfast.ScoresShapeError, r"shape: expected \(rows, columns\), got 4"),
        ({"shape": (-1, 2)}, lmcfast.ScoresShapeError, "shape: expected 0 to"),
        ({"indptr": [0, 1, 3]}, lmcfast.ScoresShapeError, "to end with the 2 entries of indices, got 0 and 3"),
        ({"indptr": [0, 3, 2]}, lmcfast.ScoresShapeError, "indptr: must not fall, got 3 before 2"),
        ({"indptr": [0.0, 1.0, 2.0]}, TypeError, "indptr: expected integers, got dtype float64"),
        ({"indices": [0, 2]}, lmcfast.InvalidScoresError, r"indices\[1\] is 2: the columns are 0 to 1"),
        ({"indices": [0, -1]}, lmcfast.InvalidScoresError, r"indices\[1\] is -1"),
        ({"indices": [0, 2**40]}, lmcfast.ScoresShapeError, "indices: 1099511627776 is out of range"),
        ({"indices": [[0, 1]]}, lmcfast.ScoresShapeError, "indices: expected 1 dimension"),
        ({"values": [1.0]}, lmcfast.ScoresShapeError, "values: expected 2 entries, one for each index, got 1"),
        ({"values": [1.0, np.nan]}, lmcfast.InvalidScoresError, "values: row 1, column 1 is nan"),
        ({"values": [1.0, np.inf]}, lmcfast.InvalidScoresError, "values: row 1, column 1 is inf"),
        ({"values": [1e305, 1.0]}, lmcfast.InvalidScoresError, "values: row 0, column 0 is 1e.305: magnitudes"),
        ({"values": [1j, 1.0]}, TypeError, "values: expected real numbers, got dtype complex128"),
        ({"values": [2**60 + 1, 1]}, lmcfast.InvalidScoresError, r"values\[0\] is 1152921504606846977: integers"),
        ({"indptr": [0, 0, 2], "indices": [1, 1]}, lmcfast.InvalidScoresError, "row 1 lists column 1 twice"),
        ({"maximize": "yes"}, TypeError, "maximize: expected True or False, got 'yes'"),
    ],
)
def test_what_is_wrong_is_named(change, error, text):
    with pytest.raises(error, match=text):
        lmcfast.solve_sparse_assignment(**{**GOOD, **change})
