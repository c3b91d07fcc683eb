"""Turns the results of ``bench_assignment.py`` into Markdown, the losing rows first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from families import BATCH_SIDE, FAMILIES
from measure import BETTER, CORRECT, best_peer

Row = dict[str, Any]

TOLERATED = 1.1  # times the fastest peer
SMALL = 64
SMALL_EXTRA = 3e-6  # seconds that the public function may add below SMALL


def side(row: Row) -> int:
    """The smaller side of the row's matrices."""
    return BATCH_SIDE if len(row["shape"]) == 3 else min(row["shape"])


def losses(row: Row) -> list[str]:
    """Which columns are slower than the rule allows: "kernel", "public"."""
    fastest = best_peer(row)[1]
    if math.isinf(fastest):
        return []
    allowed = fastest + SMALL_EXTRA if side(row) < SMALL else TOLERATED * fastest
    lost = ["kernel"] if row["kernel"] > TOLERATED * fastest else []
    return [*lost, "public"] if row["public"] > allowed else lost


def goal(row: Row) -> float:
    """The ratio wanted of this row; 0 if none is."""
    goals = FAMILIES[row["family"]].goals if row["family"] in FAMILIES else {}
    return goals[max(n for n in goals if n <= row["n"])] if any(n <= row["n"] for n in goals) else 0.0


def ratio(row: Row, column: str = "kernel") -> float:
    return best_peer(row)[1] / row[column]


def scipy_ratio(row: Row) -> float:
    entry = row["peers"].get("scipy", {"status": "not tried"})
    return entry["seconds"] / row["kernel"] if entry["status"] in CORRECT else math.inf


def report(results: dict[str, Any]) -> str:
    rows = results["rows"]
    lines = ["# Assignment benchmark", "", *_machine(results), ""]
    better = [row for row in rows if any(entry["status"] == BETTER for entry in row["peers"].values())]
    if better:
        lines += ["## Not optimal (a bug)", "", *(f"- {row['family']}, n = {row['n']}" for row in better), ""]
    lines += ["## Losing rows", "", *_losing(rows), ""]
    lines += ["## Rows below their goal", "", *_below_goal(rows), ""]
    lines += ["## Time of the fastest correct peer / time of the kernel", "", *_grid(rows, ratio), ""]
    lines += ["## Time of the fastest correct peer / time of the public function", ""]
    lines += [*_grid(rows, lambda row: ratio(row, "public")), ""]
    lines += ["## Time of scipy / time of the kernel", "", *_grid(rows, scipy_ratio), ""]
    lines += [
        "## Reads of the matrix, certificate included",
        "",
        *_grid(rows, lambda row: row["counts"]["reads"], False),
    ]
    lines += ["", "## Largest gap", "", f"{max((abs(row['gap']) for row in rows), default=0.0):.3g}", ""]
    return "\n".join([*lines, "## Peers", "", *_peers(results)]) + "\n"


def _machine(results: dict[str, Any]) -> list[str]:
    settings, versions = results["settings"], results["versions"]
    return [
        f"{results['machine']}. {results['date']}, commit {results['commit']}, seed {results['seed']}, "
        f"{results['dtype']}, one thread, {settings['clock']} clock, minimum of {settings['repeats']} interleaved "
        "rounds.",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "Ratios above 1: lmcfast is faster. `kernel` is the call of the extension without a certificate, `public` is "
        "`solve_assignment` with its defaults. Peers get a ready matrix of costs in the form that is faster for them.",
        f"A peer was called once only where it took {settings['once_ratio']:g} times the fastest peer's time or "
        f"{settings['once_seconds']:g} s, and dropped for larger n of a family where it was {settings['drop_ratio']:g} "
        "times slower.",
    ]


def _losing(rows: list[Row]) -> list[str]:
    lost = [(row, losses(row)) for row in rows if losses(row)]
    if not lost:
        return ["None."]
    lost.sort(key=lambda entry: ratio(entry[0]))
    head = ["| family | n | kernel us | public us | fastest peer | its us | peer/kernel | peer/public | loses |"]
    head.append("|---|---|---|---|---|---|---|---|---|")
    return head + [
        f"| {row['family']} | {row['n']} | {_us(row['kernel'])} | {_us(row['public'])} | {best_peer(row)[0]} "
        f"| {_us(best_peer(row)[1])} | {ratio(row):.2f} | {ratio(row, 'public'):.2f} | {', '.join(which)} |"
        for row, which in lost
    ]


def _below_goal(rows: list[Row]) -> list[str]:
    below = [row for row in rows if ratio(row) < goal(row)]
    return [f"- {row['family']}, n = {row['n']}: {ratio(row):.2f}, wanted {goal(row):g}" for row in below] or ["None."]


def _grid(rows: list[Row], value: Callable[[Row], float], means: bool = True) -> list[str]:
    sizes = sorted({row["n"] for row in rows})
    cells = {(row["family"], row["n"]): value(row) for row in rows}
    lines = ["| family | " + " | ".join(map(str, sizes)) + " |", "|---" * (len(sizes) + 1) + "|"]
    for family in dict.fromkeys(row["family"] for row in rows):
        lines.append(f"| {family} | " + " | ".join(_cell(cells.get((family, n))) for n in sizes) + " |")
    if means:
        for group in dict.fromkeys(row["group"] for row in rows):
            names = {row["family"] for row in rows if row["group"] == group}
            lines.append(_mean_line(f"geometric mean, {group}", sizes, cells, names))
        lines.append(_mean_line("geometric mean", sizes, cells, {row["family"] for row in rows}))
    return lines


def _mean_line(title: str, sizes: list[int], cells: dict[tuple[str, int], float], names: set[str]) -> str:
    means = [geometric_mean(x for (family, m), x in cells.items() if m == n and family in names) for n in sizes]
    return f"| **{title}** | " + " | ".join(_cell(mean) for mean in means) + " |"


def geometric_mean(values: Iterable[float]) -> float | None:
    logs = [math.log(x) for x in values if 0 < x < math.inf]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def _cell(x: float | None) -> str:
    return "" if x is None or math.isinf(x) or math.isnan(x) else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.{1 if seconds < 1e-4 else 0}f}"


def _peers(results: dict[str, Any]) -> list[str]:
    rows = results["rows"]
    lines = ["| peer | version | fastest in | correct in | up to float32 rounding in | failed in |", "|---" * 6 + "|"]
    failures: dict[str, list[str]] = {}
    for name, version in results["peers"].items():
        entries = [(row, row["peers"][name]) for row in rows if name in row["peers"]]
        statuses = [entry["status"] for _, entry in entries]
        failed = [
            (row, e["status"])
            for row, e in entries
            if e["status"].startswith(("wrong", "raised", "crash", "no answer"))
        ]
        lines.append(
            f"| {name} | {version} | {sum(best_peer(row)[0] == name for row, _ in entries)} "
            f"| {statuses.count('exact')} | {statuses.count('float32')} | {len(failed)} |"
        )
        for row, status in failed:
            failures.setdefault(f"{name}: {status}", []).append(f"{row['family']} {row['n']}")
    lines += ["", *(f"- {what}: {', '.join(where)}" for what, where in failures.items())]
    return [*lines, *(f"- {name}: not measured ({reason})" for name, reason in results["missing_peers"].items())]
