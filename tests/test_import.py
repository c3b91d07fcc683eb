"""`import lmcfast` is light, and layers import only downwards."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lmcfast

PACKAGE = Path(lmcfast.__file__).parent

# Rank of each part of the package; a module imports only from lower ranks or from its own part.
RANKS = {
    "errors": 0, "batches": 0,
    "_native": 1, "io": 1, "parallel": 1,
    "assignment": 2, "terms": 2,
    "spec": 3, "params": 3.5,
    "matching": 4,
    "merging": 5,
    "analysis": 6,
    "study": 7, "compat": 7,
    "cli": 8, "__main__": 9,
}  # fmt: skip


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_and_a_numpy_solve_do_not_import_torch():
    code = """
import sys, numpy as np, lmcfast
assert lmcfast.solve_assignment(np.eye(4), prices=np.zeros(4)).objective == 4
print("torch" in sys.modules)
"""
    assert run(code) == "False\n"


def seconds(code: str) -> float:
    return float(run(f"import time\nstart = time.process_time()\n{code}\nprint(time.process_time() - start)"))


def test_import_takes_less_than_100_ms():
    # In turn, so that a busy spell of the machine meets both.
    pairs = [(seconds("import numpy"), seconds("import numpy, lmcfast\nlmcfast.solve_assignment")) for _ in range(5)]
    numpy_alone, both = (min(times) for times in zip(*pairs, strict=True))
    # Where numpy alone takes nearly as long (a slow or busy machine), at most half as much may come on top.
    assert both < max(0.1, 1.5 * numpy_alone)


def test_every_public_name_exists():
    for name in lmcfast.__all__:
        assert getattr(lmcfast, name) is not None, name
    assert set(lmcfast.__all__) <= set(dir(lmcfast))
    with pytest.raises(AttributeError, match="no attribute 'solve_everything'"):
        lmcfast.solve_everything  # noqa: B018


def imports(file: Path) -> set[str]:
    """First components, inside the package, of everything that a file imports."""
    here = file.relative_to(PACKAGE).with_suffix("").parts
    folder = here[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) - (node.level - 1)]
            target = [*base, *(node.module.split(".") if node.module else [])]
            found |= {target[0]} if target else {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lmcfast":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
    return found


def test_layers_import_only_downwards():
    checked = 0
    for file in PACKAGE.rglob("*.py"):
        part = file.relative_to(PACKAGE).with_suffix("").parts[0]
        if part == "__init__":
            continue
        for other in imports(file) & RANKS.keys():
            assert other == part or RANKS[other] < RANKS[part], f"{file.relative_to(PACKAGE)} imports {other}"
            checked += 1
    assert checked > 3


@pytest.mark.parametrize(("name", "value"), [("LMCFAST_CPU", "v9"), ("LMCFAST_NUM_THREADS", "many")])
def test_wrong_environment_variables_are_named(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    code = "import numpy, lmcfast\nlmcfast.solve_assignment(numpy.eye(3))"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(code)
    assert f"{name} is '{value}'" in caught.value.stderr


def test_a_lower_processor_level_can_be_forced(monkeypatch):
    monkeypatch.setenv("LMCFAST_CPU", "baseline")
    code = "from lmcfast import _native\nprint(_native.build_info()['level_in_use'])"
    assert run(code) == "baseline\n"
