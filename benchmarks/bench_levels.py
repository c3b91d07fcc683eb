"""Times lmcfast's assignment solver at every vector level that this processor has, on the same problems.

python benchmarks/bench_levels.py --sizes 64,256,1024,4096 --out levels.json
python benchmarks/bench_levels.py report levels.json

A level is chosen when the extension is loaded, so each has a process of its own; they work in turn, one at a time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LEVELS = ("v4", "v3", "baseline")
WIDTHS = {"v4": "AVX-512", "v3": "AVX2", "baseline": "SSE2"}
GOALS = {"v3": 1.3, "baseline": 3.0}  # times the time at the widest level

Row = dict[str, Any]


def serve(level: str, repeats: int, connection: Connection) -> None:
    """A worker: problems in, (level in use, objective, least seconds of a call) out."""
    os.environ.update(LMCFAST_CPU=level, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", LMCFAST_NUM_THREADS="1")
    import numpy as np
    from families import make_scores
    from measure import CLOCKS, interleaved, our_calls

    import lmcfast

    kernel = our_calls()["kernel"]
    while (problem := connection.recv()) is not None:
        scores = make_scores(*problem)
        objective = float(np.sum(lmcfast.solve_assignment(scores, certify="full").objective))
        seconds = interleaved({"kernel": (kernel, scores)}, repeats, CLOCKS["cpu"])["kernel"]
        connection.send((lmcfast._native.build_info()["level_in_use"], objective, seconds))


class Workers:
    """One process for each level that this processor supports."""

    def __init__(self, repeats: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connections: dict[str, Connection] = {}
        for level in LEVELS:
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(level, repeats, theirs), daemon=True).start()
            self._connections[level] = ours
        for level, (used, *_) in self.time(("uniform", 8, 1)).items():
            if used != level:
                print(f"skipped: {level} (this processor uses {used})", file=sys.stderr)
                self._connections.pop(level).send(None)

    def time(self, problem: tuple[str, int, int]) -> dict[str, tuple[str, float, float]]:
        answers = {}
        for level, connection in self._connections.items():
            connection.send(problem)
            answers[level] = connection.recv()
        return answers

    def close(self) -> None:
        for connection in self._connections.values():
            connection.send(None)


def measure(family: str, n: int, seed: int, rounds: int, workers: Workers) -> Row:
    """Least seconds over the rounds; raises where two levels disagree on the objective by more than rounding."""
    best: dict[str, float] = {}
    objectives: dict[str, float] = {}
    for _ in range(rounds):
        for level, (_, objective, seconds) in workers.time((family, n, seed)).items():
            best[level] = min(best.get(level, math.inf), seconds)
            objectives[level] = objective
    values = list(objectives.values())
    if max(values) - min(values) > 1e-9 * max(1.0, max(map(abs, values))):
        raise SystemExit(f"{family}, n = {n}: the levels disagree: {objectives}")
    return {"family": family, "n": n, "seconds": best}


def ratios(rows: Iterable[Row], level: str, widest: str) -> list[float]:
    return [row["seconds"][level] / row["seconds"][widest] for row in rows]


def report(results: dict[str, Any]) -> str:
    """For each size: mean and worst ratio to the time at the widest level."""
    rows = results["rows"]
    widest, *levels = [level for level in LEVELS if level in rows[0]["seconds"]]
    lines = [f"{results['machine']}. {results['date']}, commit {results['commit']}, seed {results['seed']}.", ""]
    lines += ["| n | " + " | ".join(f"{WIDTHS[level]} mean | worst family" for level in levels) + " |"]
    lines += ["|---" * (1 + 2 * len(levels)) + "|"]
    for n in sorted({row["n"] for row in rows}):
        cells = []
        for level in levels:
            here = [row for row in rows if row["n"] == n]
            found = ratios(here, level, widest)
            mean = math.exp(sum(map(math.log, found)) / len(found))
            worst = max(range(len(found)), key=found.__getitem__)
            beyond = sum(ratio > GOALS[level] for ratio in found)
            cells += [f"{mean:.2f}", f"{found[worst]:.2f} ({here[worst]['family']}); {beyond} beyond {GOALS[level]:g}"]
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] == "report":
        print(report(json.loads(Path(arguments[1]).read_text())), end="")
        return
    from bench_assignment import chosen_families, commit, machine, write
    from families import REPORT_SEED

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="16,64,256,1024,2048", help="n, by commas")
    parser.add_argument("--families", default="all", help="names by commas")
    parser.add_argument("--seed", type=int, default=REPORT_SEED)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    families = chosen_families(options.families, None)
    results: dict[str, Any] = {
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "seed": options.seed,
        "rows": [],
    }
    workers = Workers(options.repeats)
    for n in map(int, options.sizes.split(",")):
        for family in families:
            row = measure(family, n, options.seed, options.rounds, workers)
            results["rows"].append(row)
            times = "  ".join(f"{WIDTHS[level]} {s * 1e6:.1f}" for level, s in row["seconds"].items())
            print(f"{family:20} {n:5}  {times} us", file=sys.stderr, flush=True)
        write(results, options.out)
    workers.close()


if __name__ == "__main__":
    main(sys.argv[1:])
