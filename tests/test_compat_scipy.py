"""``lmcfast.compat.scipy`` and ``accelerate``: scipy's function, its errors and its choice among ties."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest
from scipy import optimize

from lmcfast.compat import accelerate
from lmcfast.compat.scipy import SCIPY_TIES, linear_sum_assignment

MATRICES = {
    "list": [[4, 1, 3], [2, 0, 5], [3, 2, 2]],
    "tall": np.arange(12.0).reshape(4, 3) % 5,
    "wide": (np.arange(12) % 5).reshape(3, 4),
    "bool": np.eye(4, dtype=bool),
    "float32, strided": np.arange(64, dtype=np.float32).reshape(8, 8)[::2, ::-2] % 7,
    "other byte order": np.arange(9).reshape(3, 3).astype(">f8") % 4,
    "int64 beyond 2**53": np.array([[2**60 + 1, 3], [1, 2**59]]),
    "beyond the range of prices": np.array([[1e305, 2e305], [3e305, 5e305]]),
    "no rows": np.zeros((0, 3)),
    "no columns": [[], []],
    "forbidden": [[np.inf, 1, 2], [1, np.inf, 2]],
    "nested tuples": ((1, 2), (3, 1)),
    "text numbers in a list": [["1", "2"], ["3", "1"]],
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("maximize", [False, True])
def test_indices_are_scipys(name, maximize):
    if name == "forbidden" and maximize:
        return check_error(MATRICES[name], maximize)
    ours, theirs = (f(MATRICES[name], maximize) for f in (linear_sum_assignment, optimize.linear_sum_assignment))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


def check_error(matrix: object, maximize: bool = False) -> None:
    with pytest.raises((ValueError, TypeError)) as theirs:
        optimize.linear_sum_assignment(matrix, maximize)
    with pytest.raises((ValueError, TypeError)) as ours:
        linear_sum_assignment(matrix, maximize)
    assert ours.type is theirs.type
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    "matrix",
    [
        [1, 2, 3],
        [],
        np.zeros((2, 2, 2)),
        np.float64(3),
        [[np.nan, 1], [1, 2]],
        [[-np.inf, 1], [1, 2]],
        [[np.inf, 1], [np.inf, 2]],
        np.full((3, 2), np.inf),
        np.eye(2).astype(str),
        np.eye(2) * 1j,
        np.eye(2, dtype=np.longdouble),
        np.eye(2, dtype=object),
    ],
    ids=str,
)
def test_errors_are_scipys(matrix):
    check_error(matrix)


def test_keywords_and_truth_values():
    costs = np.array([[1.0, 5.0], [2.0, 4.0]])
    assert linear_sum_assignment(cost_matrix=costs, maximize=1)[1].tolist() == [1, 0]
    assert linear_sum_assignment(costs, maximize=np.bool_(False))[1].tolist() == [0, 1]


@pytest.mark.parametrize("n", [1, 8, SCIPY_TIES, SCIPY_TIES + 1, 900])
def test_the_constant_matrix_gives_the_identity(n):
    rows, columns = linear_sum_assignment(np.full((n, n), 0.3))
    assert np.array_equal(rows, np.arange(n))
    assert np.array_equal(columns, np.arange(n))


def test_beyond_the_limit_the_sum_is_the_same():
    costs = np.random.default_rng(0).integers(0, 1000, (SCIPY_TIES + 20, SCIPY_TIES + 50))
    rows, columns = linear_sum_assignment(costs)
    assert costs[rows, columns].sum() == costs[optimize.linear_sum_assignment(costs)].sum()
    rows, columns = linear_sum_assignment(costs.T)
    assert (np.diff(rows) > 0).all()
    assert costs.T[rows, columns].sum() == costs[optimize.linear_sum_assignment(costs)].sum()


def test_torch_is_not_imported():
    code = "import sys, lmcfast.compat.scipy as s\ns.linear_sum_assignment([[1]])\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.fixture
def client(monkeypatch):
    """A module that did ``from scipy.optimize import linear_sum_assignment``, under two names."""
    module = types.ModuleType("client_of_scipy")
    module.solve = module.linear_sum_assignment = optimize.linear_sum_assignment
    module.other = optimize.linprog
    monkeypatch.setitem(sys.modules, "client_of_scipy", module)
    return module


def test_accelerate_as_a_context(client):
    with accelerate() as changed:
        assert "client_of_scipy" in changed.modules
        assert "client_of_scipy" in repr(changed)
        assert client.solve is client.linear_sum_assignment is linear_sum_assignment
        assert client.other is optimize.linprog
        assert optimize.linear_sum_assignment is not linear_sum_assignment
        assert not any(name.split(".")[0] in ("scipy", "lmcfast") for name in changed.modules)
        with accelerate() as again:
            assert again.modules == ()
        assert client.solve is linear_sum_assignment
    assert client.solve is client.linear_sum_assignment is optimize.linear_sum_assignment
    assert changed.modules == ()


def test_accelerate_is_undone_after_an_error(client):
    def fails():
        with accelerate():
            assert client.solve is linear_sum_assignment
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert client.solve is optimize.linear_sum_assignment


def test_accelerate_as_a_call_and_what_has_changed_since(client):
    changed = accelerate()
    assert client.solve is linear_sum_assignment
    client.linear_sum_assignment = max
    changed.undo()
    changed.undo()
    assert client.solve is optimize.linear_sum_assignment
    assert client.linear_sum_assignment is max


def test_accelerate_does_not_import_scipy():
    code = "import sys; from lmcfast.compat import accelerate; print(accelerate().modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "() False\n"
