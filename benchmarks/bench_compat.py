"""The examples of other projects, as they are and with one import line changed: seconds and objective of both.

    python benchmarks/bench_compat.py --path lap=FOLDER --path git-re-basin-pytorch=CHECKOUT --out compat

Every side of every script runs in processes of its own, in turn, on one thread; the time is that of the lines after
the imports and the inputs, the least of all runs. Objectives are compared before anything is printed: assignments must
be equal up to rounding, matchings (local optima) are printed. ``--path PROJECT=FOLDER`` puts a folder before all others
where Python looks for modules, for projects that are not installed, or whose import names collide (lap and lapx). A
project that cannot be imported is a named skip.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MLP = """
import torch
def network(seed):
    torch.manual_seed(seed)
    sizes = (784, 512, 512, 512, 256, 10)
    return {key: tensor for i, (n, m) in enumerate(zip(sizes, sizes[1:])) for key, tensor in
            ((f"layer{i}.weight", torch.randn(m, n) / n**0.5), (f"layer{i}.bias", torch.randn(m) / n**0.5))}
a, b = network(0), network(1)
"""
JAX = (
    MLP
    + """
import numpy as np
rename = lambda key: f"Dense_{key[5]}/" + ("kernel" if key.endswith("weight") else "bias")
a, b = ({rename(key): np.ascontiguousarray(x.numpy().T) for key, x in side.items()} for side in (a, b))
"""
)
MODULES = """
import copy, torch
def network(seed):
    torch.manual_seed(seed)
    sizes = (784, 512, 512, 512, 256, 10)
    layers = [layer for n, m in zip(sizes, sizes[1:]) for layer in (torch.nn.Linear(n, m), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers[:-1])
model_a, original, input_data = network(0), network(1), torch.randn(4, 784)
"""


@dataclass(frozen=True)
class Script:
    """``before`` and ``after``: the import line; ``value``: what the lines of ``body`` were for."""

    project: str
    case: str
    before: str
    after: str
    setup: str
    body: str
    value: str
    matching: bool = False

    @property
    def name(self) -> str:
        return f"{self.project}: {self.case}"


def _scipy(case: str, setup: str) -> Script:
    return Script(
        "scipy", case,
        "from scipy.optimize import linear_sum_assignment",
        "from lmcfast.compat.scipy import linear_sum_assignment",
        f"import numpy as np\nrng = np.random.default_rng(0)\ncost = {setup}",
        "row_ind, col_ind = linear_sum_assignment(cost)",
        "cost[row_ind, col_ind].sum()",
    )  # fmt: skip


def _lap(project: str, case: str, cost: str, call: str) -> Script:
    return Script(
        project, case, "import lap", "from lmcfast.compat import lap",
        f"import numpy as np\nrng = np.random.default_rng(0)\n{cost}", f"found = {call}", "found[0]",
    )  # fmt: skip


_LISTS = """
n, k = 3000, 20
kk = np.sort((np.arange(n)[:, None] + np.stack([rng.permutation(n)[:k - 1] for _ in range(n)])) % n)
kk = [np.unique(np.append(row, i)) for i, row in enumerate(kk)]
ii = np.concatenate([[0], np.cumsum([len(row) for row in kk])])
kk = np.concatenate(kk)
cc = rng.random(len(kk))
"""

SCRIPTS = (
    _scipy("the example, 3 x 3", "np.array([[4, 1, 3], [2, 0, 5], [3, 2, 2]])"),
    _scipy("100 x 100", "rng.random((100, 100))"),
    _scipy("1000 x 1000", "rng.random((1000, 1000))"),
    _lap("lap", "the example, lapjv 4 x 5", "c = rng.random((4, 5))", "lap.lapjv(c, extend_cost=True)"),
    _lap("lap", "lapjv 1000 x 1000", "c = rng.random((1000, 1000))", "lap.lapjv(c)"),
    _lap("lap", "lapjv 300 x 400, cost_limit", "c = rng.random((300, 400))", "lap.lapjv(c, True, 0.01)"),
    _lap("lap", "lapmod, 3000 rows of 20", _LISTS, "lap.lapmod(n, cc, ii, kk)"),
    _lap("lapx", "lapjvx 100 x 150", "c = rng.random((100, 150))", "lap.lapjvx(c, extend_cost=True)"),
    _lap("lapx", "lapjvr 1000 x 1000", "c = rng.random((1000, 1000))", "lap.lapjvr(c)"),
    _lap(
        "lapx", "lapjvx_batch, 50 of 100 x 100", "c = rng.random((50, 100, 100))",
        "(lambda t: (t[0].sum(),))(lap.lapjvx_batch(c, n_threads=1))",
    ),
    *(
        Script(
            "torch-linear-assignment", case,
            "from torch_linear_assignment import batch_linear_assignment",
            "from lmcfast.compat.torch_linear_assignment import batch_linear_assignment",
            f"import torch\ntorch.manual_seed(0)\ncost = {cost}",
            "assignment = batch_linear_assignment(cost)",
            "sum(float(c[torch.arange(len(x))[x >= 0], x[x >= 0]].double().sum()) for c, x in zip(cost, assignment))",
        )
        for case, cost in (
            ("the example, 1 x 4 x 3", "torch.tensor([8, 4, 7, 5, 2, 3, 9, 6, 7, 9, 4, 8]).reshape(1, 4, 3)"),
            ("64 x 100 x 80", "torch.rand(64, 100, 80)"),
        )
    ),
    Script(
        "git-re-basin-pytorch", "MLP of MNIST",
        "from utils.weight_matching import mlp_permutation_spec, weight_matching, apply_permutation",
        "from lmcfast.compat.git_re_basin import mlp_permutation_spec, weight_matching, apply_permutation",
        MLP,
        "spec = mlp_permutation_spec(4)\nmoved = apply_permutation(spec, weight_matching(spec, a, b), b)",
        "sum(float((a[key].double() * moved[key].double()).sum()) for key in a)",
        True,
    ),
    Script(
        "git-re-basin", "MLP of MNIST",
        "import jax\nfrom weight_matching import mlp_permutation_spec, weight_matching, apply_permutation\n"
        "rng = jax.random.PRNGKey(0)",
        "from lmcfast.compat.git_re_basin_jax import mlp_permutation_spec, weight_matching, apply_permutation\nrng = 0",
        JAX,
        "spec = mlp_permutation_spec(4)\nmoved = apply_permutation(spec, weight_matching(rng, spec, a, b), b)",
        "sum(float((np.asarray(a[key], np.float64) * np.asarray(moved[key], np.float64)).sum()) for key in a)",
        True,
    ),
    Script(
        "rebasin", "MLP of MNIST",
        "from rebasin import PermutationCoordinateDescent",
        "from lmcfast.compat.rebasin import PermutationCoordinateDescent",
        MODULES,
        "model_b = copy.deepcopy(original)\n"
        "pcd = PermutationCoordinateDescent(model_a, model_b, input_data)\npcd.rebasin()",
        "sum(float((p.detach().double() * q.detach().double()).sum()) "
        "for p, q in zip(model_a.parameters(), model_b.parameters()))",
        True,
    ),
)  # fmt: skip


def run_here(script: Script, side: str, seconds: float) -> dict[str, Any]:
    """Times one side in this process; its own output goes nowhere."""
    space: dict[str, Any] = {}
    body = compile(script.body, script.name, "exec")
    with open(os.devnull, "w") as nowhere:
        stdout, sys.stdout = sys.stdout, nowhere
        try:
            exec(getattr(script, side), space)
            exec(script.setup, space)
            times: list[float] = []
            while not times or sum(times) < seconds:
                start = time.perf_counter()
                exec(body, space)
                times.append(time.perf_counter() - start)
        finally:
            sys.stdout = stdout
    return {"seconds": min(times), "value": float(eval(script.value, space))}


def run_apart(script: Script, side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The same in a process of its own; ``{"missing": reason}`` where the project cannot be imported."""
    folders = dict(pair.split("=", 1) for pair in arguments.path)
    paths = [folders[script.project]] if side == "before" and script.project in folders else []
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LMCFAST_NUM_THREADS"), "1")
    path = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", __file__, "--one", script.name, side, str(arguments.seconds)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **threads, "PYTHONPATH": path}, check=False
    )
    if done.returncode:
        return {"missing": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(script: Script, arguments: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
    for _ in range(arguments.rounds):
        for side, found in runs.items():
            found.append(run_apart(script, side, arguments))
            if "missing" in found[-1]:
                if side == "after":
                    raise RuntimeError(f"{script.name}: {found[-1]['missing']}")
                return {"name": script.name, "missing": found[-1]["missing"]}
    row: dict[str, Any] = {"name": script.name, "matching": script.matching}
    for side, found in runs.items():
        row[side] = min(run["seconds"] for run in found)
        row[f"{side}_value"] = found[0]["value"]
    if not script.matching and not math.isclose(row["before_value"], row["after_value"], rel_tol=1e-9):
        raise RuntimeError(f"{script.name}: objectives differ: {row['before_value']} and {row['after_value']}")
    return row


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| script | before, ms | after, ms | times faster | objective before | after |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if "missing" in row:
            lines.append(f"| {row['name']} | not run: {row['missing']} | | | | |")
            continue
        ratio = row["before"] / row["after"]
        values = " | ".join(f"{row[f'{side}_value']:.7g}" for side in ("before", "after"))
        lines.append(
            f"| {row['name']} | {1e3 * row['before']:.3g} | {1e3 * row['after']:.3g} | {ratio:.2g} | {values} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="The examples of other projects, before and after one import line.")
    parser.add_argument("--path", action="append", default=[], metavar="PROJECT=FOLDER", help="where its modules are")
    parser.add_argument("--only", default="", help="scripts whose name contains this")
    parser.add_argument("--rounds", type=int, default=2, help="processes for each side")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for the runs of one process, at least one run")
    parser.add_argument("--out", type=Path, help="also write OUT.json and OUT.md")
    parser.add_argument("--one", nargs=3, metavar=("SCRIPT", "SIDE", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, side, seconds = arguments.one
        script = next(script for script in SCRIPTS if script.name == name)
        print(json.dumps(run_here(script, side, float(seconds))))
        return
    rows = [compare(script, arguments) for script in SCRIPTS if arguments.only in script.name]
    print(table(rows))
    if arguments.out:
        arguments.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(table(rows) + "\n")


if __name__ == "__main__":
    main()
