"""Three and more networks merged: MLPs of the paper's recipe from many seeds, by each method of ``match_many``.

    python benchmarks/bench_many.py --data mnist.npz --cache many --out many-models

Loss and accuracy on the test images: mean of the networks, the merge, and the merge repaired without data (``rescale``)
and with training images (``repair_many``). Networks are kept in ``--cache`` and read from there the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

METHODS = ("anchor", "mean", "cycle")
FIRST_SEED = 100
COLUMNS = (
    "| networks | matching | share of squared norm | rounds | seconds | merge: loss, accuracy | rescaled | repaired |"
)
REPAIR_IMAGES = 5000


def main() -> None:
    options = _options()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # read when numpy and torch are imported, which is below
    import torch

    torch.set_num_threads(1)
    from lmcfast.study.data import load_npz

    data = load_npz(options.data)
    rows: list[dict[str, Any]] = []
    models = [_trained(data, options.data.stem, FIRST_SEED + k, options.cache) for k in range(max(options.counts))]
    for count in options.counts:
        rows += _measure(models[:count], data, options)
    options.out.with_suffix(".json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(_markdown(rows))
    print(_markdown(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an .npz file with x_train, y_train, x_test, y_test")
    parser.add_argument("--counts", type=int, nargs="+", default=[3, 5, 32], help="how many networks are merged")
    parser.add_argument("--cache", type=Path, default=Path("many"), help="folder of the trained networks")
    parser.add_argument("--straight-through", type=int, default=0, metavar="STEPS", help="with three networks, too")
    parser.add_argument("--out", type=Path, default=Path("many-models"), help="name of the results, without ending")
    return parser.parse_args()


def _network(data: Any) -> Any:
    from lmcfast.study.networks import Mlp

    return Mlp(data.input_size, (512, 512, 512), data.classes)


def _trained(data: Any, name: str, seed: int, cache: Path) -> Mapping[str, Any]:
    from lmcfast.io import load_checkpoint, save_checkpoint
    from lmcfast.study.training import MLP_RECIPE, train

    path = cache / f"mlp-{name}-{seed}.safetensors"
    if not path.exists():
        began = time.perf_counter()
        params = train(lambda: _network(data), data, MLP_RECIPE, seed).state_dict()
        cache.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, {key: tensor.detach().clone() for key, tensor in params.items()})
        print(f"trained {path.name} in {time.perf_counter() - began:.0f} s", flush=True)
    return load_checkpoint(path)


def _measure(models: list[Any], data: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    import lmcfast

    spec, count = lmcfast.spec_from_params(models[0]), len(models)
    judge = _Judge(data)
    ends = [judge.score(params) for params in models]
    mean = [statistics.fmean(values) for values in zip(*ends, strict=True)]
    rows = [{"networks": count, "matching": "(each network by itself)", "merge": mean}]
    plain = {name: sum(params[name] for params in models) / count for name in models[0]}
    rows.append({"networks": count, "matching": "none", "share": _share(models), **judge.repairs(plain, models)})
    print(rows, flush=True)
    for method in METHODS:
        began = time.process_time()
        found = lmcfast.match_many(spec, models, method=method)
        rows.append(_row(count, method, found, time.process_time() - began, judge))
        print(rows[-1], flush=True)
    if options.straight_through and count == 3:
        from torch.nn.functional import cross_entropy

        began = time.process_time()
        found = lmcfast.straight_through_many(
            spec, _network(data), models, data.train_batches(500), cross_entropy, steps=options.straight_through
        )
        rows.append(_row(count, f"straight-through, {options.straight_through} steps", found, 0.0, judge))
        rows[-1]["seconds"] = time.process_time() - began
        print(rows[-1], flush=True)
    return rows


def _row(count: int, method: str, found: Any, seconds: float, judge: _Judge) -> dict[str, Any]:
    aligned = found.apply()
    return {
        "networks": count, "matching": method, "share": _share(aligned), "rounds": found.rounds, "seconds": seconds,
        **judge.repairs(found.merge(), aligned),
    }  # fmt: skip


def _share(models: Sequence[Any]) -> float:
    """|mean|^2 over the mean of | |^2: 1 where all are equal, 1 / count where nothing agrees."""
    mean = {name: sum(params[name].double() for params in models) / len(models) for name in models[0]}
    squares = sum(float(tensor.double().square().sum()) for params in models for tensor in params.values())
    return sum(float(tensor.square().sum()) for tensor in mean.values()) / (squares / len(models))


class _Judge:
    """Test loss and accuracy of weights, as they are and repaired."""

    def __init__(self, data: Any) -> None:
        self.data, self.module = data, _network(data).eval()
        self.batches = [data.train_inputs[k : k + 1000] for k in range(0, REPAIR_IMAGES, 1000)]

    def score(self, params: Mapping[str, Any] | None = None) -> tuple[float, float]:
        import torch
        from torch.nn.functional import cross_entropy

        if params is not None:
            self.module.load_state_dict(params)
        with torch.no_grad():
            output = self.module(self.data.test_inputs)
        right = (output.argmax(1) == self.data.test_targets).float().mean()
        return float(cross_entropy(output, self.data.test_targets)), float(right)

    def repairs(self, merged: Mapping[str, Any], parents: Sequence[Any]) -> dict[str, tuple[float, float]]:
        import lmcfast

        found = {"merge": self.score(merged)}
        lmcfast.rescale(self.module, parents)
        found["rescaled"] = self.score()
        self.module.load_state_dict(merged)
        lmcfast.repair_many(self.module, parents, self.batches)
        return {**found, "repaired": self.score()}


def _markdown(rows: list[dict[str, Any]]) -> str:
    def shown(pair: Sequence[float] | None) -> str:
        return f"{pair[0]:.3f}, {100 * pair[1]:.2f} %" if pair else ""

    lines = [COLUMNS, "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        figures = [f"{row['share']:.3f}" if "share" in row else "", str(row.get("rounds", ""))]
        figures.append(f"{row['seconds']:.1f}" if "seconds" in row else "")
        figures += [shown(row.get(key)) for key in ("merge", "rescaled", "repaired")]
        lines.append(f"| {row['networks']} | {row['matching']} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
