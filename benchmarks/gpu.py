"""Everything that a GPU can say about the kernels, in one run: build, tests, compute-sanitizer, times against the bars.

    python benchmarks/gpu.py --quick --out gpu            # ten minutes; gpu.json and gpu.md
    python benchmarks/gpu.py --out benchmarks/results/gpu-2027-01-31
    python benchmarks/gpu.py --emulated                   # the logic of this script alone: tiny sizes, no times
    python benchmarks/gpu.py --tables                     # make the tables of README and docs/gpu.md anew

Results are checked before they are timed, with a certificate that torch computes again and against the CPU solver.
Times are CUDA events around the enqueued work, the least of several. Needs torch with CUDA, pytest, nvcc, and for the
build scikit-build-core and pybind11.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import gpu_bars
import gpu_stages


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no CPU times of the largest problems")
    parser.add_argument("--emulated", action="store_true", help="run the script on the emulator")
    parser.add_argument("--tables", action="store_true", help="write the tables of README and docs from the results")
    parser.add_argument("--no-build", action="store_true", help="measure what is installed")
    parser.add_argument("--only", nargs="*", help="keys of the bars to measure, instead of everything")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    return parser.parse_args()


def checks(asked: argparse.Namespace) -> dict[str, str]:
    """Build, tests and sanitizers: "passed", or what went wrong."""
    found = {}
    if not (asked.no_build or asked.emulated):
        found["build"] = _timed("build", gpu_stages.build)
        if found["build"] != gpu_stages.PASSED:
            return found
    if asked.only is None:
        if not asked.emulated:
            found["tests"] = _timed("tests", gpu_stages.tests)
        for tool in gpu_stages.TOOLS[: 1 if asked.emulated else None]:
            found[tool] = _timed(tool, lambda tool=tool: gpu_stages.sanitizer(tool, asked.emulated))
    return found


def _timed(name: str, run: Any) -> Any:
    start = time.perf_counter()
    outcome = run()
    print(f"{name}: {outcome} ({time.perf_counter() - start:.0f} s)", flush=True)
    return outcome


def measurements(asked: argparse.Namespace) -> dict[str, Any]:
    """Every bar and the assumptions. A measurement that fails is recorded as such, and the next one goes on."""
    import gpu_cases  # after the build
    from gpu_clock import Site

    site = Site(asked.emulated, asked.quick)
    document: dict[str, Any] = {"rows": {}, "assumptions": {}}
    with site.kernels():
        for key, case in gpu_cases.CASES.items():
            if asked.only is None or key in asked.only:
                document["rows"][key] = _timed(key, lambda case=case: _guarded(lambda: case(site)))
        if asked.only is None:
            document["assumptions"] = _timed("assumptions", lambda: _guarded(lambda: gpu_cases.assumptions(site)))
    return document


def _guarded(run: Any) -> Any:
    try:
        return run()
    except Exception as error:  # recorded: a run on a rented GPU must not end at the first failure
        return {"measured": None, "failed": "".join(traceback.format_exception_only(error)).strip()}


def succeeded(document: dict[str, Any]) -> bool:
    """Whether nothing failed and nothing was cut off. What is not installed, and bars that are missed, do not count."""
    measured = [*document["rows"].values(), document["assumptions"]]
    outcomes = document["checks"].values()
    return all("failed" not in row for row in measured) and all(
        outcome == gpu_stages.PASSED or outcome.startswith(gpu_stages.NOT_RUN) for outcome in outcomes
    )


def main() -> int:
    asked = options()
    if asked.tables:
        for page, text in gpu_bars.pages().items():
            page.write_text(text)
        return 0
    outcomes = checks(asked)
    if outcomes.get("build", gpu_stages.PASSED) != gpu_stages.PASSED:
        return 1
    document = {"machine": gpu_stages.machine(asked.emulated), "quick": asked.quick, "checks": outcomes}
    document |= measurements(asked)
    page = gpu_bars.report(document)
    print("\n" + page)
    if asked.out:
        asked.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
        asked.out.with_suffix(".md").write_text(page)
    return 0 if succeeded(document) else 1


if __name__ == "__main__":
    sys.exit(main())
