"""Weight matching against the naive twin: seconds, objective, work, and where the time goes.

    python benchmarks/bench_matching.py --out bench            # bench.json and bench.md
    python benchmarks/bench_matching.py --cases resnet20 --weights random --peer-port ../git-re-basin-pytorch

Both sides run in one process, in turn, with as many threads as ``--threads`` says. The twin is Git Re-Basin's algorithm
on numpy and scipy (``naive_matching.py``): ten seeds, each a random order of the groups. Every time is the median of
its runs, which alternate. The network is matched once before timing; "first" is that call, with nothing remembered of
the spec. ``--peer-port``, ``--peer-jax``: checkouts of
the public Git Re-Basin codes (``matching_peers.py``), run side by side with the same specs and checked: their result
must be permutations, and its objective is computed as lmcfast's is.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

BARS = {"mlp 3x2048": 8.0, "vgg16": 5.0, "resnet20 x8": 5.0}  # at least so many times faster than the twin
MILLISECONDS = {"resnet20": 30.0}  # at most
OVER_PORT = {"resnet20": 3.0}  # at least so many times faster than the public port, where it runs
ASSIGNMENT = {"mlp 3x2048": 0.10}  # at most this share of the run


def main() -> None:
    options = _options()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)  # read when numpy and torch are imported, which is below
    import torch

    torch.set_num_threads(options.threads)
    import matching_networks as networks
    from matching_peers import load_peers

    peers = load_peers(options.peer_port, options.peer_jax)
    rows = []
    for name in options.cases or networks.CASES:
        for weights in options.weights:
            if weights == "random":
                pair = networks.random_pair(name)
            else:
                pair = networks.trained_pair(name, options.cache, options.mnist)
            rows.append(_measure(name, weights, pair, options, peers))
            print(_line(rows[-1]), flush=True)
    document = {"machine": _machine(options), "rows": rows}
    table = _markdown(document)
    print("\n" + table)
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(document, indent=1))
        options.out.with_suffix(".md").write_text(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Weight matching against the naive twin.")
    parser.add_argument("--cases", nargs="*", help="networks of matching_networks.py (default: all)")
    parser.add_argument("--weights", nargs="*", default=["random", "trained"], choices=["random", "trained"])
    parser.add_argument("--seeds", type=int, default=10, help="seeds of the twin (default 10)")
    parser.add_argument("--repeats", type=int, default=3, help="timed matches of large networks (default 3)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: on a machine that others use")
    parser.add_argument("--cache", type=Path, default=Path("trained"), help="folder of trained networks")
    parser.add_argument("--mnist", type=Path, help=".npz file of MNIST, to train the MLPs")
    parser.add_argument("--peer-port", type=Path, help="checkout of the public PyTorch port, git-re-basin-pytorch")
    parser.add_argument("--peer-jax", type=Path, help="checkout of the public JAX code, git-re-basin")
    parser.add_argument("--peer-seeds", type=int, default=3, help="seeds of the public codes (default 3)")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    return parser.parse_args()


def _measure(name: str, weights: str, pair: Any, options: argparse.Namespace, peers: dict[str, Any]) -> dict[str, Any]:
    from naive_matching import naive_matching

    import lmcfast
    from lmcfast.spec import format_layout, spec_from_params

    clock: Callable[[], float] = time.perf_counter if options.clock == "wall" else time.process_time
    a, b = pair
    spec = spec_from_params(a)
    axes = {
        key: tuple(format_layout(layout) for layout in layouts)
        for key, layouts in spec.axes.items()
        if key not in spec.buffers and key not in spec.tied
    }
    arrays = [{key: params[key].numpy() for key in axes} for params in pair]
    quick = max(tensor.numel() for tensor in a.values()) < 1 << 17

    def timed(run: Callable[[], Any]) -> tuple[float, Any]:
        started = clock()
        found = run()
        return clock() - started, found

    first, match = timed(lambda: lmcfast.weight_matching(spec, a, b))
    plain = {key: tuple(x if x in spec.groups else None for x in layouts) for key, layouts in axes.items()}
    seconds, twins = [], []
    runs: dict[str, list[tuple[float, float]]] = {peer: [] for peer in peers}
    if quick:
        for prepare in peers.values():
            prepare(plain, a, b, 0)()  # what is compiled at the first call is not timed
    for seed in range(options.seeds):
        if seed < options.repeats or quick:
            spent, match = timed(lambda: lmcfast.weight_matching(spec, a, b))
            seconds.append(spent)
        spent, twin = timed(lambda seed=seed: naive_matching(axes, *arrays, seed=seed))
        twins.append((spent, twin))
        for peer, prepare in peers.items():
            if seed < options.peer_seeds:
                spent, found = timed(prepare(plain, a, b, seed))
                runs[peer].append((spent, _objective(spec, a, b, found)))
    _check(lmcfast, match, spec, a, b)
    total = sum(match.seconds.values())
    row = {
        "network": name,
        "weights": weights,
        "seconds": statistics.median(seconds),
        "best": min(seconds),
        "first": first,
        "objective": match.objective,
        "sweeps": match.sweeps,
        **asdict(match.counts),
        "shares": {phase: spent / total for phase, spent in match.seconds.items()},
        "twin": _summary([spent for spent, _ in twins], [twin.objective for _, twin in twins]),
        "twin_visits": statistics.median(twin.visits for _, twin in twins),
    }
    row["ratio"] = row["twin"]["median"] / row["seconds"]
    row["above_twin"] = row["objective"] / row["twin"]["objective"] - 1
    row["peers"] = {
        peer: _summary([spent for spent, _ in ran], [value for _, value in ran]) for peer, ran in runs.items()
    }
    row["holds"] = _holds(row)
    return row


def _holds(row: dict[str, Any]) -> bool:
    """Whether a row keeps every bar of its network, and an objective that is not below the twin's median."""
    name, peers = row["network"], row["peers"]
    late = row["seconds"] * 1e3 > MILLISECONDS.get(name, float("inf"))
    slow = "port" in peers and peers["port"]["median"] < OVER_PORT.get(name, 0.0) * row["seconds"]
    heavy = row["shares"]["assignment"] > ASSIGNMENT.get(name, 1.0)
    return row["ratio"] >= BARS.get(name, 0.0) and row["above_twin"] >= -1e-3 and not (late or slow or heavy)


def _summary(seconds: list[float], objectives: list[float]) -> dict[str, float]:
    return {
        "best": min(seconds),
        "median": statistics.median(seconds),
        "objective": statistics.median(objectives),
        "best_objective": max(objectives),
    }


def _check(lmcfast: ModuleType, match: Any, spec: Any, a: Any, b: Any) -> None:
    """A wrong answer is not timed: the distance of the aligned networks, computed apart, is the one reported."""
    distance = lmcfast.distance(spec, a, match.apply(b))
    if not match.converged or abs(distance - match.distance_after) > 1e-9 * distance:
        raise SystemExit(f"the match is wrong: distance {distance}, reported {match.distance_after}")


def _objective(spec: Any, a: Any, b: Any, found: Any) -> float:
    """The objective of a public code's permutations; groups that it does not know stay."""
    from lmcfast.matching.objective import objective
    from lmcfast.matching.problem import make_problem
    from lmcfast.spec import check_permutations

    return objective(make_problem(spec, a, b), check_permutations(spec.bind(a), {**spec.bind(a).identity(), **found}))


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from lmcfast import _native

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "processor": model,
        "threads": options.threads,
        "clock": options.clock,
        "load": os.getloadavg()[0],
        "level": _native.build_info()["level_in_use"],
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }


def _line(row: dict[str, Any]) -> str:
    state = "" if row["holds"] else "  BELOW ITS BAR"
    return (
        f"{row['network']:<12} {row['weights']:<8} {row['seconds']:9.4f} s  twin {row['twin']['median']:9.4f} s  "
        f"{row['ratio']:6.2f}x  objective {100 * row['above_twin']:+.2f} %{state}"
    )


def _markdown(document: dict[str, Any]) -> str:
    """The tables, rows below their bar first."""
    machine, rows = document["machine"], sorted(document["rows"], key=lambda row: (row["holds"], row["ratio"]))
    lines = [
        f"{machine['date']}, commit {machine['commit']}, {machine['processor']}, {machine['threads']} thread(s), "
        f"{machine['clock']} time, load {machine['load']:.1f}, torch {machine['torch']}, level {machine['level']}",
        "",
        "| network | weights | seconds | best | first call | twin: median | best | faster | objective "
        "| over twin's median | over twin's best | port | jax | holds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        twin, peers = row["twin"], row["peers"]
        lines.append(
            f"| {row['network']} | {row['weights']} | {row['seconds']:.4f} | {row['best']:.4f} | {row['first']:.4f} "
            f"| {twin['median']:.4f} "
            f"| {twin['best']:.4f} | {row['ratio']:.1f}x | {row['objective']:.4f} | {100 * row['above_twin']:+.2f} % "
            f"| {100 * (row['objective'] / twin['best_objective'] - 1):+.2f} % "
            f"| {_of_peer(row, peers.get('port'))} | {_of_peer(row, peers.get('jax'))} "
            f"| {'yes' if row['holds'] else 'no'} |"
        )
    lines += [
        "",
        "| network | weights | sweeps | visits (twin) | terms computed | updated | kept | skipped visits "
        "| multiply-adds | MB gathered | reads of scores | products | assignment | steps | setup | rest |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = {phase: f"{100 * share:.0f} %" for phase, share in row["shares"].items()}
        rest = 100 * (row["shares"]["objective"] + row["shares"]["other"])
        lines.append(
            f"| {row['network']} | {row['weights']} | {row['sweeps']} | {row['visits']} ({row['twin_visits']:.0f}) "
            f"| {row['computed']} | {row['updated']} | {row['kept']} | {row['skipped']} | {row['multiplied']:.3g} "
            f"| {row['gathered'] / 1e6:.1f} | {row['reads']:.3g} | {shares['products']} | {shares['assignment']} "
            f"| {shares['steps']} | {shares['setup']} | {rest:.0f} % |"
        )
    return "\n".join(lines) + "\n"


def _of_peer(row: dict[str, Any], peer: dict[str, float] | None) -> str:
    if peer is None:
        return "-"
    over = 100 * (row["objective"] / peer["objective"] - 1)
    return f"{peer['median']:.4f} ({peer['median'] / row['seconds']:.1f}x, objective {over:+.2f} %)"


if __name__ == "__main__":
    main()
