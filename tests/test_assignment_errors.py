"""Wrong input to the solver: a clear error that names the place, and nothing else happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from helpers.checks import solve

import lmcfast


def scores(n: int = 6, m: int = 6) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, m))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(6, 6), (3, 20), (20, 3), (90, 90)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_invalid_scores_name_row_and_column(value, shape, order):
    s = np.array(scores(*shape), order=order)
    s[2, 1] = value
    with pytest.raises(lmcfast.InvalidScoresError, match=r"scores\[2, 1\] is (nan|inf)") as caught:
        solve(s)
    assert (caught.value.row, caught.value.column, caught.value.problem) == (2, 1, None)


def test_the_infinity_that_forbids_depends_on_the_direction():
    s = scores()
    s[0, 0] = -np.inf
    assert solve(s).columns[0] != 0
    with pytest.raises(lmcfast.InvalidScoresError, match=r"scores\[0, 0\] is -inf"):
        solve(s, maximize=False)


def test_a_batch_names_the_problem():
    s = np.stack([scores(), scores(), scores()])
    s[1, 4, 3] = np.nan
    s[2, 0, 0] = np.nan
    for threads in (1, 2):
        with pytest.raises(lmcfast.InvalidScoresError, match=r"scores\[1, 4, 3\]") as caught:
            solve(s, threads=threads)
        assert (caught.value.problem, caught.value.row, caught.value.column) == (1, 4, 3)


@pytest.mark.parametrize("n", [5, 200])
def test_infeasible_names_a_row_that_is_left(n):
    s = scores(n, n)
    s[1:4, 2:] = -np.inf  # three rows share two columns
    with pytest.raises(lmcfast.InfeasibleError, match="left without a partner") as caught:
        solve(s)
    assert caught.value.row in (1, 2, 3)


def test_infeasible_with_more_rows_names_a_column():
    s = scores(9, 4)
    s[:, 2] = -np.inf
    with pytest.raises(lmcfast.InfeasibleError, match="all columns") as caught:
        solve(s)
    assert caught.value.column == 2
    assert caught.value.row is None


def test_all_forbidden():
    with pytest.raises(lmcfast.InfeasibleError):
        solve(np.full((3, 3), -np.inf))


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2, 2)])
def test_wrong_number_of_dimensions(shape):
    with pytest.raises(lmcfast.ScoresShapeError, match=r"expected 2 dimensions"):
        solve(np.zeros(shape))


def test_ragged_lists():
    with pytest.raises(lmcfast.ScoresShapeError, match="not an array of numbers"):
        solve([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize(
    "bad",
    [np.zeros((2, 2), complex), np.array([["a", "b"]]), torch.eye(3).to_sparse(), np.ma.masked_equal(np.eye(3), 0)],
)
def test_wrong_kinds_of_numbers(bad):
    with pytest.raises(TypeError, match=r"scores: (expected|masked)"):
        solve(bad)


def test_a_tensor_elsewhere_is_refused():
    with pytest.raises(lmcfast.UnavailableError, match=r"scores\.cpu\(\)"):
        solve(torch.empty(3, 3, device="meta"))


def test_wrong_prices():
    with pytest.raises(lmcfast.ScoresShapeError, match=r"prices: expected shape \(6,\).*\(5,\)"):
        solve(scores(), prices=np.zeros(5))
    prices = np.zeros(6)
    prices[4] = np.nan
    with pytest.raises(lmcfast.InvalidScoresError, match=r"prices\[4\] is nan"):
        solve(scores(), prices=prices)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("certify", "maybe"),
        ("ties", "first"),
        ("threads", 0),
        ("threads", 1.5),
        ("threads", 2**40),
        ("maximize", "min"),
    ],
)
def test_wrong_options_are_named(option, value):
    with pytest.raises((ValueError, TypeError), match=f"{option}: expected.*{value}"):
        solve(scores(), **{option: value})


def test_all_errors_are_value_errors():
    for error in (lmcfast.InvalidScoresError, lmcfast.InfeasibleError, lmcfast.CertificateError):
        assert issubclass(error, ValueError)


def test_other_python_threads_run_during_a_solve():
    rng = np.random.default_rng(1)  # rank two: slow to solve, some 100 ms
    s = rng.standard_normal((2000, 2)) @ rng.standard_normal((2, 2000))
    ticks, stop = [], threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.002)

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.perf_counter()
    solve(s)
    end = time.perf_counter()
    stop.set()
    thread.join()
    assert sum(start < t < end for t in ticks) >= 2


INTERRUPTED = """
import numpy as np, os, signal, threading, lmcfast
n = 12000
scores = np.subtract.outer(np.arange(n, dtype=np.float32), np.arange(n, dtype=np.float32))
scores = np.abs(scores, out=scores)
scores += np.random.default_rng(0).random((1, n), dtype=np.float32)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts its children with it ignored
print("ready", flush=True)
try:
    for _ in range(1000):
        lmcfast.solve_assignment(scores)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_ctrl_c_stops_a_long_solve():
    child = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.5)
        os.kill(child.pid, signal.SIGINT)
        assert child.stdout.readline() == "stopped\n"
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.parametrize("n", [1, 3, 8, 9, 16, 17, 40])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1.7e308, -1.7e308])
@pytest.mark.parametrize("place", [(0, 0), (-1, -1), (-1, 0), (0, -1)])
def test_invalid_scores_are_found_at_every_size_and_place(n, value, place):
    s = scores(n, n)
    s[place] = value
    with pytest.raises(lmcfast.InvalidScoresError) as caught:
        solve(s)
    assert (caught.value.row, caught.value.column) == tuple(k % n for k in place)
