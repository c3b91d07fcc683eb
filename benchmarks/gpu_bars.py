"""What the GPU kernels have to reach, and a page of results: the one list that the script, README and docs share."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NOT_MEASURED = "not measured yet"
PLACE = re.compile(r"(<!-- gpu table[^\n]*-->\n).*?(<!-- end of gpu table -->)", re.DOTALL)


@dataclass(frozen=True)
class Bar:
    """A goal on one H100: at most ``value`` milliseconds, or at least so many per cent or times."""

    key: str
    what: str
    value: float
    unit: str

    @property
    def at_most(self) -> bool:
        return self.unit == "ms"

    def is_met(self, measured: float) -> bool:
        return measured <= self.value if self.at_most else measured >= self.value


BARS = (
    Bar("independent 4096", "n = 4096, scores of unrelated networks", 4, "ms"),
    Bar("independent 16384", "n = 16384, the same", 20, "ms"),
    Bar("independent 28672", "n = 28672, the same", 60, "ms"),
    Bar("planted 28672", "n = 28672, a planted permutation", 5, "ms"),
    Bar("batch 208 x 300", "208 problems of 300 x 300", 2, "ms"),
    Bar("batch 1000 x 100", "1000 problems of 100 x 100", 1, "ms"),
    Bar("list pass", "building the lists, against the bandwidth of a large copy", 70, "%"),
    Bar("certificate", "the certificate, against the same", 70, "%"),
    Bar("similarity", "similarity of 64 groups of 256 x 1024, against a loop of torch.matmul", 3, "times"),
    Bar("vgg16", "matching VGG16, against lmcfast on the CPU", 10, "times"),
    Bar("mlp 3x2048", "matching an MLP of 3 x 2048, against lmcfast on the CPU", 10, "times"),
)

ASSUMPTIONS = {  # what the design was reckoned with, before any measurement; microseconds
    "launch gap": 2.5,
    "bid of one warp": 1.0,
    "scan of one row of 4096 by a block": 1.0,
    "path step": 0.5,
}


def text_of(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}" if unit != "%" else f"{value:.0f} %"


def table(document: Mapping[str, Any] | None) -> str:
    """The bars and what was measured, as Markdown."""
    rows = {} if document is None else document["rows"]
    lines = ["| on one H100, scores on the GPU, exact and certified | goal | measured |", "| --- | --- | --- |"]
    for bar in BARS:
        measured = rows.get(bar.key, {}).get("measured")
        said = NOT_MEASURED if measured is None else text_of(measured, bar.unit)
        if measured is not None and not bar.is_met(measured):
            said = f"**{said}**"
        goal = f"{'at most' if bar.at_most else 'at least'} {text_of(bar.value, bar.unit)}"
        lines.append(f"| {bar.what} | {goal} | {said} |")
    lines += ["", source_line(document)]
    return "\n".join(lines) + "\n"


def source_line(document: Mapping[str, Any] | None) -> str:
    if document is None:
        return "No GPU was at hand so far: `python benchmarks/gpu.py` measures on one that is."
    m = document["machine"]
    return f"{m['card']}, driver {m['driver']}, {m['date']}, commit {m['commit']}. In bold: what fell short."


def assumptions_table(document: Mapping[str, Any] | None) -> str:
    rows = {} if document is None else document["assumptions"]
    lines = ["| microseconds | assumed | measured |", "| --- | --- | --- |"]
    for name, assumed in ASSUMPTIONS.items():
        measured = rows.get(name)
        lines.append(f"| {name} | {assumed:g} | {NOT_MEASURED if measured is None else f'{measured:.3g}'} |")
    return "\n".join(lines) + "\n"


def latest() -> dict[str, Any] | None:
    """The newest complete results that lie in the repository."""
    found = sorted(RESULTS.glob("gpu-*.json"))
    document: dict[str, Any] | None = json.loads(found[-1].read_text()) if found else None
    return document


def pages() -> dict[Path, str]:
    """README and docs/gpu.md with their tables made anew from the latest results."""
    document = latest()
    made = {}
    for page in (ROOT / "README.md", ROOT / "docs" / "gpu.md"):
        tables = iter((table(document), assumptions_table(document)))
        made[page] = PLACE.sub(lambda found, t=tables: f"{found[1]}{next(t)}{found[2]}", page.read_text())
    return made


def report(document: Mapping[str, Any]) -> str:
    """A page on one run."""
    fell_short = [bar.what for bar in BARS if short(document, bar)]
    failed = [f"{name}: {outcome}" for name, outcome in document["checks"].items() if outcome != "passed"]
    lines = ["# GPU measurements", "", table(document), assumptions_table(document), "## Fell short", ""]
    lines += [f"- {what}" for what in fell_short] or ["- nothing that was measured"]
    lines += ["", "## Checks that did not pass", ""]
    lines += [f"- {what}" for what in failed] or ["- none"]
    lines += ["", "## Details", ""]
    for key, row in document["rows"].items():
        lines.append(f"- {key}: {_details(row)}")
    return "\n".join(lines) + "\n"


def _details(row: Mapping[str, Any]) -> str:
    parts = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            parts.append(f"{name} ({_details(value)})")
        elif value is not None:
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def short(document: Mapping[str, Any], bar: Bar) -> bool:
    measured = document["rows"].get(bar.key, {}).get("measured")
    return measured is not None and not bar.is_met(measured)
