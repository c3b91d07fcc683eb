"""Times lmcfast's assignment solver beside the other exact solvers, family by family.

Measure:     python benchmarks/bench_assignment.py --sizes 8,64,512 --out results.json
Report:      python benchmarks/bench_assignment.py report results.json
A short set: pytest benchmarks/bench_assignment.py --benchmark-only
"""

# ruff: noqa: E402 (the thread counts must be set before numpy and the solvers are imported)

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

for variable in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "LMCFAST_NUM_THREADS",
):
    os.environ.setdefault(variable, "1")

import numpy as np
import pytest
from families import FAMILIES, REPORT_SEED, Array, make_scores
from measure import CLOCKS, Problem, Settings, best_peer, check_peer, measure, our_calls
from peers import Peer, all_peers, available, call_for
from tables import losses, report
from trained import trained_scores

import lmcfast
from lmcfast import _native

SHORT_FAMILIES = ("weights", "planted", "uniform", "integers_100", "constant")
SHORT_SIZES = (64, 512)
SHORT_SEED = 1  # not the report's, on which nobody tunes
SHORT_PEERS = ("scipy", "lapx.lapjv", "lapx.lapjvh")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = Settings()
    parser.add_argument("--sizes", default="1,2,4,8,16,32,64,128,256,512,1024,2048,4096", help="n, by commas")
    parser.add_argument("--families", default="all", help="names by commas; a group's name stands for its families")
    parser.add_argument("--peers", default="all", help="names by commas")
    parser.add_argument("--seed", type=int, default=REPORT_SEED)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--repeats", type=int, default=defaults.repeats)
    parser.add_argument("--limit", type=float, default=defaults.limit, help="seconds that one call of a peer may take")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default=defaults.clock)
    parser.add_argument("--no-isolation", action="store_true", help="check the peers in this process")
    parser.add_argument("--lap", type=Path, metavar="FOLDER", help="where `pip install --target FOLDER lap` went")
    parser.add_argument("--mnist", type=Path, metavar="FILE", help="data of the trained families, default: digits")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="scores of trained networks; without it none")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    return parser.parse_args(arguments)


def chosen_families(text: str, cache: Path | None) -> list[str]:
    names: list[str] = []
    for part in text.split(","):
        members = [f.name for f in FAMILIES.values() if part in ("all", f.name, f.group)]
        if not members:
            raise SystemExit(f"--families: no family {part!r}; there are {', '.join(FAMILIES)}")
        names += members
    skipped = [name for name in dict.fromkeys(names) if FAMILIES[name].trained and cache is None]
    if skipped:
        print(f"skipped: {', '.join(skipped)} (no --cache FOLDER for the trained networks)", file=sys.stderr)
    return [name for name in dict.fromkeys(names) if name not in skipped]


def chosen_peers(text: str, lap_folder: Path | None) -> list[Peer]:
    peers = all_peers(lap_folder)
    unknown = set(text.split(",")) - {peer.name for peer in peers} - {"all"}
    if unknown:
        raise SystemExit(f"--peers: no peer {sorted(unknown)[0]!r}; there are {', '.join(p.name for p in peers)}")
    return [peer for peer in peers if text == "all" or peer.name in text.split(",")]


def scores_of(family: str, n: int, options: argparse.Namespace) -> Array:
    if FAMILIES[family].trained:
        return trained_scores(family, n, options.seed, options.cache, options.mnist).astype(options.dtype)
    return make_scores(family, n, options.seed, options.dtype)


def commit() -> str:
    """The commit of this source tree, with "+" where it was changed; "unknown" outside of git."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor() or platform.machine()}, {platform.system()}"


def header(options: argparse.Namespace, settings: Settings, versions: dict[str, str]) -> dict[str, Any]:
    build = _native.build_info()
    extension = Path(str(sys.modules["lmcfast._core"].__file__)).read_bytes()
    return {
        "machine": f"{machine()}, vector level {build['level_in_use']}, {build['compiler']}",
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "extension": hashlib.sha256(extension).hexdigest(),
        "seed": options.seed,
        "dtype": options.dtype,
        "settings": asdict(settings),
        "versions": {
            "lmcfast": lmcfast.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "peers": versions,
        "missing_peers": {},
        "rows": [],
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    settings = Settings(options.repeats, limit=options.limit, clock=options.clock, isolate=not options.no_isolation)
    families = chosen_families(options.families, options.cache)
    peers = chosen_peers(options.peers, options.lap)
    versions, missing = available(peers)
    for name, reason in missing.items():
        print(f"skipped: {name} ({reason})", file=sys.stderr)
    results = header(options, settings, versions)
    results["missing_peers"] = missing
    present = [peer for peer in peers if peer.name in versions]
    for family in families:
        earlier = None
        for n in sorted(int(word) for word in options.sizes.split(",")):
            row = measure(scores_of(family, n, options), present, settings, earlier)
            earlier = {"family": family, "group": FAMILIES[family].group, "n": n, **row}
            results["rows"].append(earlier)
            print(summary(earlier), file=sys.stderr, flush=True)
        write(results, options.out)
    return results


def summary(row: dict[str, Any]) -> str:
    name, seconds = best_peer(row)
    lost = f"  slower: {', '.join(losses(row))}" if losses(row) else ""
    return (
        f"{row['family']:20} {row['n']:5}  kernel {row['kernel'] * 1e6:10.1f}  public {row['public'] * 1e6:10.1f}  "
        f"{name} {seconds * 1e6:.1f} us{lost}"
    )


def write(results: dict[str, Any], path: Path) -> None:
    """Whole or not at all: a run that is stopped leaves the families that it has finished."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    temporary.replace(path)


def main(arguments: list[str]) -> None:
    if arguments and arguments[0] == "report":
        parser = argparse.ArgumentParser(prog="bench_assignment.py report", description="JSON to Markdown.")
        parser.add_argument("results", type=Path)
        print(report(json.loads(parser.parse_args(arguments[1:]).results.read_text())), end="")
    else:
        run(parse(arguments))


@pytest.mark.parametrize("solver", ["kernel", "public", *SHORT_PEERS])
@pytest.mark.parametrize("n", SHORT_SIZES)
@pytest.mark.parametrize("family", SHORT_FAMILIES)
def test_solver(benchmark: Any, family: str, n: int, solver: str) -> None:
    problem, solved = Problem.of(make_scores(family, n, SHORT_SEED))
    benchmark.group = f"{family} {n}"
    benchmark.extra_info["counts"] = solved.stats._asdict()
    if solver in our_calls():
        call, matrix = our_calls()[solver], problem.scores
    else:
        peer = next(peer for peer in all_peers() if peer.name == solver)
        missing = available([peer])[1]
        if missing:
            pytest.skip(missing[solver])
        found = call_for(peer, problem.scores.shape)
        assert found is not None
        reading = check_peer(found, problem, Settings(isolate=False))
        assert reading.correct, reading.status
        call, matrix = found, problem.costs[reading.form]
    benchmark(call.function, matrix, *call.arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
