"""What two networks and their merges do on data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...params import apply_permutations
from ...spec import PermutationSpec
from ..barrier import Barrier, barrier
from ..evaluation import Measure, Params
from ..inputs import InputEnergy, LayerDifference, input_energy, layer_difference
from ..layers import Setting
from ..taylor import TaylorBarrier, taylor_barrier
from .weights import Progress


@dataclass(frozen=True, eq=False)
class Behaviour:
    """Lists have one entry for each setting.

    ``without``, ``aligned``: the line from A to B as it is, and to pi(B). ``taylor``: the estimates of ``aligned``;
    empty where they were not asked for. ``energy``: inputs of A's layers. ``difference_without``, ``differences``:
    outputs of A's layers against B's and pi(B)'s; both empty for a spec with stacks.
    """

    without: Barrier
    aligned: list[Barrier]
    taylor: list[TaylorBarrier]
    energy: dict[str, InputEnergy]
    difference_without: dict[str, LayerDifference]
    differences: list[dict[str, LayerDifference]]


def measure_behaviour(
    spec: PermutationSpec,
    module: nn.Module,
    params_a: Params,
    params_b: Params,
    settings: Sequence[Setting],
    batches: Iterable[tuple[Any, Any]],
    loss: Measure,
    *,
    lambdas: int | Sequence[float] = 25,
    metrics: Mapping[str, Measure] | None = None,
    prepare: Callable[[nn.Module], object] | None = None,
    taylor: bool = True,
    layers: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Behaviour:
    """Barriers, Taylor estimates, input energy and output differences of two networks.

    Arguments as of ``analysis.barrier``; ``taylor``: whether to estimate (the module must be differentiable twice);
    ``layers`` as of ``input_energy``; ``progress``: called as ``progress("data", done, total)``. Errors as of these.
    """
    tell = progress or (lambda *_: None)
    total = 4 + len(settings) * (2 if taylor else 1)
    done = 0

    def step() -> None:
        nonlocal done
        tell("data", done, total)
        done += 1

    step()
    lines, estimates = [], []
    without = barrier(module, params_a, params_b, batches, loss, lambdas, metrics, prepare)
    step()
    for setting in settings:
        aligned = apply_permutations(spec, setting, params_b)
        lines.append(barrier(module, params_a, aligned, batches, loss, lambdas, metrics, prepare))
        step()
        if taylor:
            estimates.append(taylor_barrier(module, params_a, aligned, batches, loss))
            step()
    energy: dict[str, InputEnergy] = {}
    before: dict[str, LayerDifference] = {}
    after: list[dict[str, LayerDifference]] = [{} for _ in settings]
    if not spec.stacks:  # the weights of a stack belong to modules of their own
        energy = input_energy(spec, module, params_a, batches, layers)
        step()
        identity = spec.bind(params_a).identity()
        before, *after = layer_difference(spec, module, params_a, params_b, batches, [identity, *settings], layers)
    tell("data", total, total)
    return Behaviour(without, lines, estimates, energy, before, after)
