"""The benchmark harness: reproducible problems, a peer must be right to be best, and a run ends in a report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import families
import measure
import numpy as np
import peers
import pytest
import tables
from scipy.optimize import linear_sum_assignment

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

QUICK = measure.Settings(repeats=1, isolate=False)
UNTRAINED = [family.name for family in families.FAMILIES.values() if not family.trained]


def peer(name: str, function: peers.Call) -> peers.Peer:
    return peers.Peer(name, "scipy", lambda rectangular: function)


def scipy_peer() -> peers.Peer:
    return next(p for p in peers.all_peers() if p.name == "scipy")


def result(seconds: float, status: str = "exact", kernel: float = 1.0, public: float = 1.0, n: int = 64) -> dict:
    entry = {"status": status, "seconds": seconds, "form": "float32", "once": False}
    return {
        "family": "weights",
        "group": "weights",
        "n": n,
        "shape": [n, n],
        "kernel": kernel,
        "public": public,
        "gap": 0.0,
        "counts": {"reads": 1.0},
        "peers": {"scipy": entry},
    }


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_problem_depends_on_family_size_and_seed_alone(name):
    first = families.make_scores(name, 12, 5)
    np.random.default_rng(0).random(7)
    np.testing.assert_array_equal(first, families.make_scores(name, 12, 5))
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    assert np.isfinite(first).all()
    assert min(first.shape[-2:]) == (families.BATCH_SIDE if first.ndim == 3 else 12)


@pytest.mark.parametrize("name", ["weights", "uniform", "planted", "dead_units", "batch_64"])
def test_another_seed_is_another_problem(name):
    assert (families.make_scores(name, 12, 5) != families.make_scores(name, 12, 6)).any()


@pytest.mark.parametrize("name", UNTRAINED)
@pytest.mark.parametrize("n", [1, 9])
def test_every_family_is_measured(name, n):
    row = measure.measure(families.make_scores(name, n, 1), [scipy_peer()], QUICK)
    assert row["peers"]["scipy"]["status"] == "exact"
    assert 0 < row["kernel"] < 1
    assert 0 < row["public"] < 1
    assert row["counts"]["reads"] >= 1


def test_float64_scores_are_not_narrowed_for_a_peer():
    problem, _ = measure.Problem.of(families.make_scores("uniform", 8, 1, "float64"))
    assert set(problem.costs) == {"float64"}


def identity(cost: np.ndarray) -> np.ndarray:
    return np.arange(len(cost))


def repeated(cost: np.ndarray) -> np.ndarray:
    return np.zeros(len(cost), dtype=np.int64)


def outside(cost: np.ndarray) -> np.ndarray:
    return np.arange(len(cost)) + 1


def short(cost: np.ndarray) -> np.ndarray:
    return np.arange(len(cost) - 1)


@pytest.mark.parametrize("lie", [identity, repeated, outside, short])
def test_a_peer_that_lies_is_never_best(lie):
    liar = peer("liar", peers.Call(lie))
    row = measure.measure(families.make_scores("weights", 24, 1), [liar, scipy_peer()], QUICK)
    assert row["peers"]["liar"]["status"] == "wrong"
    assert tables.best_peer(row)[0] == "scipy"
    alone = measure.measure(families.make_scores("weights", 24, 1), [liar], QUICK)
    assert tables.best_peer(alone) == ("", np.inf)
    assert tables.losses({**alone, "family": "weights", "n": 24}) == []


def fails(cost: np.ndarray) -> np.ndarray:
    raise ValueError("no such matrix")


def test_an_error_of_a_peer_is_its_result():
    row = measure.measure(families.make_scores("uniform", 8, 1), [peer("broken", peers.Call(fails))], QUICK)
    assert row["peers"]["broken"]["status"] == "raised ValueError: no such matrix"


DYING = """
import os, families, measure, peers
dying = peers.Peer("dying", "scipy", lambda rectangular: peers.Call(lambda cost: os._exit(3)))
row = measure.measure(families.make_scores("uniform", 8, 1), [dying], measure.Settings(repeats=1))
print(row["peers"]["dying"]["status"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_a_dead_process_of_a_peer_is_its_result():
    found = subprocess.run([sys.executable, "-c", DYING], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "crashed (exit status 3)"


def test_a_better_answer_than_ours_is_not_called_wrong():
    scores = families.make_scores("uniform", 8, 1)
    problem, _ = measure.Problem.of(scores)
    lower = measure.Problem(scores, problem.costs, problem.objective - 1.0, problem.magnitude)
    optimum = linear_sum_assignment(scores, maximize=True)[1]
    assert problem.status(optimum) == "exact"
    assert lower.status(optimum) == measure.BETTER


def test_rounding_of_float32_is_told_from_a_wrong_answer():
    scores = families.make_scores("uniform", 64, 1)
    problem, solved = measure.Problem.of(scores)
    slack = 64 * problem.magnitude * 2.0**-24
    for excess, status in ((2 * slack, "float32"), (6 * slack, "wrong")):
        higher = measure.Problem(scores, problem.costs, problem.objective + excess, problem.magnitude)
        assert higher.status(solved.columns) == status


@pytest.mark.parametrize(
    ("times", "lost"),
    [
        ({"kernel": 1.09, "public": 1.09}, []),
        ({"kernel": 1.11, "public": 1.0}, ["kernel"]),
        ({"kernel": 1.0, "public": 1.11}, ["public"]),
        ({"kernel": 1.0, "public": 1 + 2e-6, "n": 63}, []),
        ({"kernel": 1.0, "public": 1 + 4e-6, "n": 63}, ["public"]),
    ],
)
def test_the_rule_for_losing(times, lost):
    assert tables.losses(result(1.0, **times)) == lost


@pytest.mark.parametrize(("n", "goal"), [(512, 0.0), (1024, 4.0), (2048, 10.0), (8192, 12.0)])
def test_goals_hold_from_their_size_on(n, goal):
    assert tables.goal(result(1.0, n=n)) == goal


def test_slow_peers_are_dropped_and_scipy_stays():
    scores = families.make_scores("uniform", 16, 1)
    earlier = {**result(1.0, n=8), "family": "uniform"}
    earlier["peers"] = {name: {"status": "exact", "seconds": s} for name, s in (("fast", 1.0), ("slow", 11.0))}
    earlier["peers"]["scipy"] = {"status": "exact", "seconds": 11.0}
    there = [peer("slow", peers.Call(identity)), peer("fast", peers.Call(identity)), scipy_peer()]
    row = measure.measure(scores, there, measure.Settings(repeats=1, limit=1000, isolate=False), earlier)
    assert row["peers"]["slow"]["status"].startswith("dropped")
    assert row["peers"]["fast"]["status"] == "wrong"
    assert row["peers"]["scipy"]["status"] == "exact"


def test_a_missing_peer_is_named():
    absent = peers.Peer("absent", "absent", peers._simple("no_such_module", "solve", np.asarray))
    versions, missing = peers.available([absent, scipy_peer()])
    assert list(versions) == ["scipy"]
    assert "no_such_module" in missing["absent"]


def test_command_line_from_run_to_report(tmp_path):
    out = tmp_path / "results.json"
    script = [sys.executable, str(BENCHMARKS / "bench_assignment.py")]
    sizes = ["--sizes", "2,8", "--families", "uniform,tall_2,batch_64", "--peers", "scipy", "--repeats", "2"]
    subprocess.run([*script, *sizes, "--seed", "5", "--out", str(out)], check=True, capture_output=True)
    results = json.loads(out.read_text())
    assert [(row["family"], row["n"]) for row in results["rows"]] == [
        (name, n) for name in ("uniform", "tall_2", "batch_64") for n in (2, 8)
    ]
    assert results["seed"] == 5
    assert set(results["peers"]) == {"scipy"}
    done = subprocess.run([*script, "report", str(out)], check=True, capture_output=True, text=True)
    assert done.stdout.index("## Losing rows") < done.stdout.index("## Time of the fastest correct peer")
    assert "| tall_2 |" in done.stdout
    assert "Not optimal" not in done.stdout


def test_unknown_names_end_in_one_line(tmp_path):
    script = [sys.executable, str(BENCHMARKS / "bench_assignment.py"), "--out", str(tmp_path / "x.json")]
    done = subprocess.run([*script, "--families", "unfirom"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("--families: no family 'unfirom'; there are weights_shallow")
    assert len(done.stderr.splitlines()) == 1


def test_vector_levels_side_by_side(tmp_path):
    out = tmp_path / "levels.json"
    script = [sys.executable, str(BENCHMARKS / "bench_levels.py")]
    size = ["--sizes", "9", "--families", "uniform,planted", "--rounds", "1", "--repeats", "1", "--out", str(out)]
    subprocess.run([*script, *size], check=True, capture_output=True)
    results = json.loads(out.read_text())
    assert [row["family"] for row in results["rows"]] == ["uniform", "planted"]
    assert all("baseline" in row["seconds"] for row in results["rows"])
    done = subprocess.run([*script, "report", str(out)], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[2].startswith("| n |")
