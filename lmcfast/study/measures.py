"""What is measured of trained networks: one, two, three of them; plain values that JSON can keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..analysis import (
    SingularAlignment,
    barrier,
    distance_reduction,
    input_energy,
    plane,
    singular_alignment,
    spectra,
    taylor_barrier,
)
from ..analysis.evaluation import evaluate
from ..merging.batchnorm import batchnorm_layers, reset_batchnorm
from ..params import apply_permutations, interpolate
from ..spec import PermutationSpec
from .data import Batches, Dataset
from .demo import accuracy
from .settings import GAMMAS, StudySettings

Params = Mapping[str, Tensor]
Setting = Mapping[str, Tensor]

_COSTLY_BATCH = 100  # second derivatives and patches of convolutions take memory


@dataclass(frozen=True, eq=False)
class Shuffled:
    """(inputs, targets) pairs of ``size`` examples, in a new order on every pass, the same for the same seed."""

    inputs: Tensor
    targets: Tensor
    size: int
    generator: torch.Generator

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.inputs), generator=self.generator)
        for begin in range(0, len(order), self.size):
            chosen = order[begin : begin + self.size]
            yield self.inputs[chosen], self.targets[chosen]


class Bench:
    """Module, spec and the examples on which everything is measured."""

    def __init__(self, module: nn.Module, spec: PermutationSpec, data: Dataset, settings: StudySettings) -> None:
        self.module, self.spec, self.data, self.settings = module, spec, data, settings
        few, costly = settings.images, settings.costly_images
        self.test = Batches(data.test_inputs[:few], data.test_targets[:few], 500)
        self.train = Batches(data.train_inputs[:few], data.train_targets[:few], 500)
        size = _COSTLY_BATCH if batchnorm_layers(module) else 500
        self.costly_test = Batches(data.test_inputs[:costly], data.test_targets[:costly], size)
        self.costly_train = Batches(data.train_inputs[:costly], data.train_targets[:costly], 500)

    def with_params(self, params: Params) -> nn.Module:
        """The module with these tensors; it is the same one every time."""
        self.module.load_state_dict(dict(params))
        return self.module

    def prepare(self, module: nn.Module) -> None:
        """What follows every merge: BatchNorm statistics anew, on training images."""
        reset_batchnorm(module, self.train)

    def prepare_costly(self, module: nn.Module) -> None:
        reset_batchnorm(module, self.costly_train)

    def losses(self, params: Params, where: str, prepare: bool = False) -> dict[str, float]:
        """{"loss", "accuracy"} on the test images."""
        module = self.with_params(params)
        if prepare:
            self.prepare(module)
        return evaluate(module, self.test, {"loss": cross_entropy, "accuracy": accuracy}, where)


def alignment(result: SingularAlignment) -> dict[str, Any]:
    """R as plain values: pooled and per layer."""
    layers = {name: asdict(layer) for name, layer in result.per_layer.items()}
    return {"gamma": result.gamma, "pooled": result.pooled, "per_layer": layers}


def alignments(spec: PermutationSpec, one: Params, two: Params, setting: Setting | None = None) -> dict[str, Any]:
    """{"0": R, "0.3": R} between two networks."""
    return {f"{gamma:g}": alignment(singular_alignment(spec, one, two, setting, gamma)) for gamma in GAMMAS}


def measure_networks(bench: Bench, models: Sequence[Params]) -> dict[str, Any]:
    """Of the networks alone: singular values of all (figure 1), inputs along the first one's vectors (figure 4)."""
    values = spectra(bench.spec, models)
    energy = input_energy(bench.spec, bench.module, models[0], bench.costly_test)
    return {
        "spectra": {name: found.tolist() for name, found in values.values.items()},
        "spread": values.spread(),
        "inputs": {
            name: {"values": one.values.tolist(), "energy": one.energy.tolist(), "total": one.total}
            for name, one in energy.items()
        },
    }


def measure_search(
    bench: Bench, params_a: Params, params_b: Params, setting: Setting, merged: bool = True
) -> dict[str, Any]:
    """Of A and the permuted B: barrier, distance, R; with ``merged`` also Taylor estimate and R of their midpoint."""
    spec = bench.spec
    aligned = apply_permutations(spec, setting, params_b)
    line = barrier(
        bench.module, params_a, aligned, bench.test, cross_entropy, bench.settings.points, {"accuracy": accuracy},
        bench.prepare,
    )  # fmt: skip
    reduction = distance_reduction(spec, params_a, params_b, setting)
    found = {
        "barrier": line.to_dict(),
        "distance": {"before": reduction.before, "after": reduction.after, "rate": reduction.rate},
        "r": alignments(spec, params_a, params_b, setting),
        "spectrum_change": max(spectra(spec, [params_b, aligned]).spread().values()),
    }
    if merged:
        estimate = taylor_barrier(bench.module, params_a, aligned, bench.costly_test, cross_entropy)
        middle = interpolate(params_a, aligned)
        found["taylor"] = {"midpoint": estimate.midpoint, **asdict(estimate)}
        found["r_merged"] = {"a": alignments(spec, middle, params_a), "b": alignments(spec, middle, aligned)}
    return found


def measure_triple(
    bench: Bench, params_a: Params, aligned_b: Params, aligned_c: Params, with_plane: bool
) -> dict[str, Any]:
    """Of two networks that were matched to a third: barrier and R between them, the mean of all three, the plane."""
    line = barrier(
        bench.module, aligned_b, aligned_c, bench.test, cross_entropy, bench.settings.points, {"accuracy": accuracy},
        bench.prepare,
    )  # fmt: skip
    three = (params_a, aligned_b, aligned_c)
    found: dict[str, Any] = {
        "barrier": line.to_dict(),
        "r": alignments(bench.spec, aligned_b, aligned_c),
        "merged": bench.losses(_mean(three), "of the mean of three networks", prepare=True),
    }
    if with_plane:
        images = bench.costly_test
        resolution = bench.settings.resolution
        seen = plane(bench.module, three, images, cross_entropy, resolution, prepare=bench.prepare_costly)
        found["plane"] = {name: getattr(seen, name).tolist() for name in ("x", "y", "losses", "points")}
    return found


def _mean(models: Sequence[Params]) -> dict[str, Tensor]:
    """Each floating tensor's mean, summed in float64; others are the first network's."""
    mean = {}
    for name, first in models[0].items():
        mean[name] = first
        if first.is_floating_point():
            mean[name] = torch.stack([one[name].double() for one in models]).mean(0).to(first.dtype)
    return mean
