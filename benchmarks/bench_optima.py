"""Better optima: what each method of weight matching reaches, for how long, and whether the merge is better for it.

    python benchmarks/bench_optima.py --cache trained --mnist mnist.npz --out optima

Objectives are given against the median of the naive algorithm over its seeds; seconds are those of one core, the naive
ones the mean of its runs. Ways that are not in the library are in ``optima_experiments.py``. For trained networks the
loss at the midpoint on the test images is measured as well.
Methods run with several seeds where a seed counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SEEDED = (
    "descent from a random start", "descent in random orders", "8 restarts", "annealing", "block moves by annealing",
)  # fmt: skip
COLUMNS = "| network | weights | method | objective above naive | seconds | of the naive time | midpoint loss |"


def ways() -> dict[str, Callable[[Any, Any, Any, int], Any]]:
    """What is measured: each takes spec, A, B and a seed."""
    import optima_experiments as experiments

    from lmcfast import weight_matching

    def matching(**options: Any) -> Callable[[Any, Any, Any, int], Any]:
        return lambda spec, a, b, seed: weight_matching(spec, a, b, seed=seed, **options)

    return {
        "descent from the identity": matching(start="identity"),
        "descent from a random start": matching(start="random"),
        "descent in random orders": experiments.random_order,
        "descent (default)": matching(),
        "8 restarts": matching(restarts=8),
        "start from truncated weights": experiments.truncated_start,
        "block moves by Frank-Wolfe": experiments.block_moves,
        "block moves by annealing": partial(experiments.block_moves, method="annealing"),
        "Frank-Wolfe": matching(method="frank_wolfe"),
        "annealing": matching(method="annealing"),
    }


def main() -> None:
    options = _options()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # read when numpy and torch are imported, which is below
    import torch

    torch.set_num_threads(1)
    import matching_networks as networks

    rows = []
    for name in options.cases:
        for weights in options.weights:
            pair = (
                networks.trained_pair(name, options.cache, options.mnist)
                if weights == "trained"
                else networks.random_pair(name)
            )
            rows += _measure(name, weights, pair, options)
    options.out.with_suffix(".json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(_markdown(rows))
    print(_markdown(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["mlp 3x512", "mlp 3x1024"])
    parser.add_argument("--weights", nargs="+", choices=("trained", "random"), default=["trained", "random"])
    parser.add_argument("--ways", nargs="+", metavar="NAME", help="rows of the table to be measured; default all")
    parser.add_argument("--seeds", type=int, default=10, help="runs of the naive algorithm")
    parser.add_argument("--cache", type=Path, default=Path("trained"), help="folder of the trained networks")
    parser.add_argument("--mnist", type=Path, required=True, help="an .npz file of MNIST")
    parser.add_argument("--out", type=Path, default=Path("optima"), help="name of the results, without ending")
    return parser.parse_args()


def _measure(name: str, weights: str, pair: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    import torch
    from naive_matching import naive_matching

    import lmcfast
    from lmcfast.spec import format_layout, spec_from_params

    a, b = pair
    spec = spec_from_params(a)
    axes = {key: tuple(format_layout(layout) for layout in layouts) for key, layouts in spec.axes.items()}
    arrays = [{key: params[key].numpy() for key in axes} for params in pair]
    midpoint = _midpoint(name, a, options.mnist) if weights == "trained" else None
    naive, spent = [], []
    for seed in range(options.seeds):
        began = time.process_time()
        naive.append(naive_matching(axes, *arrays, seed=seed))
        spent.append(time.process_time() - began)
    median, seconds = statistics.median(run.objective for run in naive), statistics.fmean(spent)
    rows = [
        _row(name, weights, "naive, best seed", max(run.objective for run in naive), median, sum(spent), seconds, None)
    ]
    if midpoint is not None:
        settings = [{group: torch.from_numpy(p) for group, p in run.permutations.items()} for run in naive]
        losses = [midpoint(lmcfast.apply_permutations(spec, setting, b)) for setting in settings]
        rows.insert(
            0, _row(name, weights, "naive, median", median, median, seconds, seconds, statistics.median(losses))
        )
    chosen = {way: run for way, run in ways().items() if options.ways is None or way in options.ways}
    for way, run in chosen.items():
        found = []
        for seed in range(3 if way in SEEDED else 1):
            began = time.process_time()
            result = run(spec, a, b, seed)
            found.append((time.process_time() - began, result))
        best = statistics.median(result.objective for _, result in found)
        loss = None
        if midpoint is not None:
            loss = statistics.median(midpoint(result.apply(b)) for _, result in found)
        rows.append(_row(name, weights, way, best, median, statistics.median(s for s, _ in found), seconds, loss))
        print(rows[-1], flush=True)
    return rows


def _row(
    name: str, weights: str, way: str, value: float, median: float, seconds: float, naive: float, loss: float | None
) -> dict[str, Any]:
    return {
        "network": name, "weights": weights, "method": way, "objective": value, "above": value / median - 1,
        "seconds": seconds, "share": seconds / naive, "midpoint_loss": loss,
    }  # fmt: skip


def _midpoint(name: str, a: Any, npz: Path) -> Any:
    """The loss of the merge of A with an aligned B on the test images."""
    import matching_networks as networks
    import torch
    from torch.nn.functional import cross_entropy

    import lmcfast
    from lmcfast.study.data import load_npz

    data = load_npz(npz)
    module = networks.CASES[name].network().eval()

    def loss(aligned: Any) -> float:
        module.load_state_dict(lmcfast.interpolate(a, aligned))
        with torch.no_grad():
            return float(cross_entropy(module(data.test_inputs), data.test_targets))

    return loss


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [COLUMNS, "|---|---|---|---|---|---|---|"]
    for row in rows:
        loss = "" if row["midpoint_loss"] is None else f"{row['midpoint_loss']:.4f}"
        lines.append(
            f"| {row['network']} | {row['weights']} | {row['method']} | {100 * row['above']:+.2f} % | "
            f"{row['seconds']:.2f} | {row['share']:.2f} | {loss} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
