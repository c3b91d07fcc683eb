"""The demo: two networks from two seeds joined into one, with the figures that show that it worked."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .. import __version__
from ..analysis import Barrier, DistanceReduction, barrier, distance_reduction, plot_barrier
from ..analysis.plots import new_figure
from ..io import atomic_path, check_writable, check_writable_folder, file_sha256, save_checkpoint
from ..matching import MatchResult, weight_matching
from ..params import interpolate
from ..spec import spec_from_params, verify_spec
from .data import Dataset, load_digits
from .networks import Mlp
from .training import Recipe, train

Progress = Callable[[str, int, int], object]

DEMO_RECIPE = Recipe(epochs=60, batch_size=100, learning_rate=2e-3, shift=1)
"""Few images: more epochs, smaller batches and a higher rate than the paper's, and shifts against overfitting."""

FILES = {
    "a": "a.safetensors",
    "b": "b.safetensors",
    "b_aligned": "b_aligned.safetensors",
    "merged": "merged.safetensors",
    "permutations": "permutations.safetensors",
    "picture": "barrier.png",
    "figures": "demo.json",
}


@dataclass(frozen=True)
class DemoRow:
    """One network of the demo's table: mean cross-entropy and share of right answers (0 to 1) on the test images."""

    label: str
    loss: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo found and wrote.

    ``rows``: A, B, and the midpoint without and with matching. ``unmatched``, ``matched``: the barriers on the test
    images. ``reduction``: of the distance of B to A. ``proof``: what ``verify_spec`` says. ``seconds``: {stage: wall
    time}. ``files``: {"a", "b", "b_aligned", "merged", "permutations", "picture", "figures": path}.
    """

    rows: tuple[DemoRow, ...]
    unmatched: Barrier
    matched: Barrier
    reduction: DistanceReduction
    match: MatchResult
    proof: str
    seconds: dict[str, float]
    files: dict[str, Path]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return {
            "table": [asdict(row) for row in self.rows],
            "barrier": {"without matching": self.unmatched.to_dict(), "with matching": self.matched.to_dict()},
            "distance": {"before": self.reduction.before, "after": self.reduction.after, "rate": self.reduction.rate},
            "match": {
                "objective": self.match.objective,
                "gap": self.match.gap,
                "converged": self.match.converged,
                "sweeps": self.match.sweeps,
            },
            "proof": self.proof,
            "seconds": self.seconds,
            "files": {name: path.name for name, path in self.files.items()},
        }


def run_demo(
    out: str | os.PathLike[str],
    seeds: tuple[int, int] = (0, 1),
    width: int = 512,
    layers: int = 3,
    recipe: Recipe = DEMO_RECIPE,
    lambdas: int = 25,
    progress: Progress | None = None,
) -> DemoResult:
    """Train two MLPs on scikit-learn's digits, match B to A, merge, measure, and write all of it into a folder.

    Args:
        out: the folder, made if needed. It is proved writable first; files in it appear at the end, each whole or not
            at all: both checkpoints, B aligned, the merge, the permutations, a picture and ``demo.json`` (last).
        seeds: of A and B: initial weights, order of the examples, shifts.
        width, layers: units of each hidden layer, and how many there are.
        recipe: the training.
        lambdas: points of the barrier, as for ``analysis.barrier``.
        progress: called as ``progress(stage, done, total)`` with the stages "train A", "train B" (in epochs), "match",
            "measure" and "write".

    Raises before the training: ``CheckpointError`` (the folder cannot be written to), ``UnavailableError``
    (scikit-learn or matplotlib is missing), ``ValueError`` (an argument is out of range).
    """
    for name, value, least in (("width", width, 1), ("layers", layers, 1), ("lambdas", lambdas, 2)):
        if value < least:
            raise ValueError(f"{name}: must be at least {least}, not {value!r}")
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ValueError(f"seeds: must be whole numbers from 0 to 2^63 - 1, not {seed!r}")
    files = {name: Path(out) / file for name, file in FILES.items()}
    folder = check_writable_folder(out)
    if folder.exists():
        for path in files.values():
            check_writable(path)
    new_figure()  # tells now, not after the training, that matplotlib is missing
    data = load_digits()
    clock = _Clock(progress)
    with one_thread():
        result, tensors = _study(data, files, seeds, (width,) * layers, recipe, lambdas, clock)
    with clock.stage("write"):
        folder.mkdir(parents=True, exist_ok=True)
        _write(result, tensors)
    settings = {"seeds": list(seeds), "width": width, "layers": layers, "recipe": asdict(recipe), "data": data.name}
    _write_figures(result, settings)
    return result


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the rows whose largest logit is at the target."""
    return outputs.argmax(1).eq(targets).double().mean()


def _study(
    data: Dataset,
    files: dict[str, Path],
    seeds: tuple[int, int],
    widths: tuple[int, ...],
    recipe: Recipe,
    lambdas: int,
    clock: _Clock,
) -> tuple[DemoResult, dict[str, dict[str, Tensor]]]:
    """Everything between reading the data and writing: the result, and the state dicts by their names in ``FILES``."""

    def network() -> nn.Module:
        return Mlp(data.input_size, widths, data.classes)

    module, params_a = _trained(network, data, recipe, seeds[0], "A", clock)
    _, params_b = _trained(network, data, recipe, seeds[1], "B", clock)
    with clock.stage("match"):
        spec = spec_from_params(params_a)
        proof = str(verify_spec(spec, module, data.test_inputs[:8]))
        match = weight_matching(spec, params_a, params_b)
        aligned = match.apply(params_b)
    with clock.stage("measure"):
        unmatched = _measure(module, params_a, params_b, data, lambdas)
        matched = _measure(module, params_a, aligned, data, lambdas)
        reduction = distance_reduction(match.spec, params_a, params_b, match.permutations)
    result = DemoResult(
        _rows(seeds, unmatched, matched), unmatched, matched, reduction, match, proof, clock.seconds, files
    )
    return result, {"a": params_a, "b": params_b, "b_aligned": aligned, "merged": interpolate(params_a, aligned)}


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: no slower for such small products, and the figures do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Clock:
    """Times the stages and reports them."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    def report(self, stage: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(stage, done, total)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - begin

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """A stage that is one step."""
        self.report(stage, 0, 1)
        with self.timed(stage):
            yield
        self.report(stage, 1, 1)


def _trained(
    network: Callable[[], nn.Module], data: Dataset, recipe: Recipe, seed: int, name: str, clock: _Clock
) -> tuple[nn.Module, dict[str, Tensor]]:
    stage = f"train {name}"
    with clock.timed(stage):
        module = train(network, data, recipe, seed, progress=lambda done, total: clock.report(stage, done, total))
    return module, {key: value.detach().clone() for key, value in module.state_dict().items()}


def _measure(
    module: nn.Module, params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor], data: Dataset, lambdas: int
) -> Barrier:
    return barrier(
        module, params_a, params_b, data.test_batches(), cross_entropy, lambdas, metrics={"accuracy": accuracy}
    )


def _rows(seeds: tuple[int, int], unmatched: Barrier, matched: Barrier) -> tuple[DemoRow, ...]:
    points = (
        (f"A (seed {seeds[0]})", unmatched, 0.0),
        (f"B (seed {seeds[1]})", unmatched, 1.0),
        ("midpoint without matching", unmatched, 0.5),
        ("midpoint with matching", matched, 0.5),
    )
    measured = [(label, curve.at(weight)) for label, curve, weight in points]
    return tuple(DemoRow(label, values["loss"], values["accuracy"]) for label, values in measured)


def _write(result: DemoResult, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    for name, params in tensors.items():
        save_checkpoint(result.files[name], dict(params))
    sources = {name: file_sha256(result.files[name]) for name in ("a", "b")}
    result.match.save(result.files["permutations"], sources=sources)
    curves = {"without matching": result.unmatched, "with matching": result.matched}
    plot_barrier(curves, result.files["picture"], metric=("loss", "accuracy"))


def _write_figures(result: DemoResult, settings: Mapping[str, Any]) -> None:
    content = {"lmcfast": __version__, "torch": torch.__version__, "settings": settings, **result.to_dict()}
    with atomic_path(result.files["figures"]) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
