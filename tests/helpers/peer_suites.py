"""The tests of other projects, run against lmcfast's faces of them.

By hand, in ``tests``: ``python -m helpers.peer_suites FACE PATH`` (FACE: scipy, lap or torch_linear_assignment; PATH:
the folder of the tests of that project).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path


def run_suite(face: str, target: str, *arguments: str) -> dict[str, str]:
    """{test: "passed", "skipped: ..." or "failed: ..."}; ``target``: a path, or a module after ``--pyargs``."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "helpers.peer_plugin", "-p", "no:cacheprovider",
            "-p", "no:randomly", "-c", os.devnull, "--rootdir", folder, f"--junitxml={report}", *arguments, target,
        ]  # fmt: skip
        here = str(Path(__file__).parents[1])
        environment = {**os.environ, "LMCFAST_FACE": face, "PYTHONPATH": here}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if not report.exists():
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in _cases(report)}


def _cases(report: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(report).getroot().iter("testcase"))


def _outcome(case: ElementTree.Element) -> str:
    for part in case:
        if part.tag in ("failure", "error", "skipped"):
            kind = "skipped" if part.tag == "skipped" else "failed"
            return f"{kind}: {(part.get('message') or '').splitlines()[0]}"
    return "passed"


def main() -> None:
    outcomes = run_suite(*sys.argv[1:])
    for name, outcome in outcomes.items():
        if outcome != "passed":
            print(name, outcome)
    print(dict(Counter(outcome.partition(":")[0] for outcome in outcomes.values())))


if __name__ == "__main__":
    main()
