"""All figures of two networks in one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ...matching import Sweep
from ...spec import PermutationSpec
from ..alignment import SingularAlignment
from ..evaluation import Measure, Params
from ..inputs import energy_share
from ..layers import Setting
from .behaviour import Behaviour, measure_behaviour
from .verdict import Verdict, judge
from .weights import Progress, Weights, weigh


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """``behaviour``: None where there were no module and data. ``sweeps``: of the match, where it is known."""

    weights: Weights
    behaviour: Behaviour | None
    verdict: Verdict
    sweeps: tuple[Sweep, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain numbers and lists, for JSON; the spectra and energies of single indices left out."""
        weights = self.weights
        document: dict[str, Any] = {
            "verdict": asdict(self.verdict),
            "distance": [{"before": one.before, "after": one.after, "rate": one.rate} for one in weights.reductions],
            "cosine": {"before": weights.cosine_before, "after": weights.cosine_after},
            "merge_norm": weights.shrinkage,
            "alignment": [self._alignment(gamma) for gamma in weights.without],
            "objective": [{"gamma": one.gamma, "whole": one.whole, "kept": one.kept} for one in weights.objective],
            "chance_rate": weights.chance.rate,
            "spectra_spread": weights.spectra.spread(),
            "sweeps": [asdict(sweep) for sweep in self.sweeps],
        }
        if self.behaviour is not None:
            document["data"] = _behaviour_dict(self.behaviour)
        return document

    def _alignment(self, gamma: float) -> dict[str, Any]:
        weights = self.weights
        return {
            "gamma": gamma,
            "without": _alignment_dict(weights.without[gamma]),
            "with": [_alignment_dict(one) for one in weights.aligned[gamma]],
            "merged_and_a": [_alignment_dict(one.with_a) for one in weights.merged[gamma]],
            "merged_and_b": [_alignment_dict(one.with_b) for one in weights.merged[gamma]],
            "chance": _alignment_dict(weights.chance.alignment[gamma]),
        }


def diagnose(
    spec: PermutationSpec,
    params_a: Params,
    params_b: Params,
    permutations: Setting | Sequence[Setting],
    *,
    module: nn.Module | None = None,
    batches: Iterable[tuple[Any, Any]] | None = None,
    loss: Measure | None = None,
    lambdas: int | Sequence[float] = 25,
    metrics: Mapping[str, Measure] | None = None,
    prepare: Callable[[nn.Module], object] | None = None,
    taylor: bool = True,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    sweeps: Sequence[Sweep] = (),
    progress: Progress | None = None,
) -> Diagnosis:
    """Everything that can be said about merging A and B, and a verdict.

    Args:
        permutations: a setting of ``spec``, or several (searches with different seeds): figures are then means.
        module, batches, loss: all three, or none: then the weights alone speak. These and ``lambdas``, ``metrics`` and
            ``prepare`` as for ``analysis.barrier``.
        taylor: whether the Taylor estimate is made; the module must be differentiable twice.
        layers: names or wildcards of the tensors whose singular vectors and inputs are looked at; default all.
        seed: of the stand-in that gives the level of chance.
        sweeps: ``MatchResult.sweep_trace()``, for the report.
        progress: called as ``progress(stage, done, total)`` with the stages "weights" and "data".

    Raises as the functions of ``analysis`` do; ``ValueError`` where only some of module, batches and loss are given.
    """
    settings = [permutations] if isinstance(permutations, Mapping) else list(permutations)
    weights = weigh(spec, params_a, params_b, settings, layers, seed, progress)
    behaviour = None
    if module is not None and batches is not None and loss is not None:
        behaviour = measure_behaviour(
            spec, module, params_a, params_b, settings, batches, loss, lambdas=lambdas, metrics=metrics,
            prepare=prepare, taylor=taylor, layers=layers, progress=progress,
        )  # fmt: skip
    elif any(given is not None for given in (module, batches, loss)):
        raise ValueError("module, batches, loss: all three are needed, or none of them")
    return Diagnosis(weights, behaviour, judge(weights, behaviour), tuple(sweeps))


def _alignment_dict(alignment: SingularAlignment) -> dict[str, Any]:
    return {"pooled": alignment.pooled, "layers": {name: asdict(layer) for name, layer in alignment.per_layer.items()}}


def _behaviour_dict(behaviour: Behaviour) -> dict[str, Any]:
    return {
        "without": behaviour.without.to_dict(),
        "with": [line.to_dict() for line in behaviour.aligned],
        "taylor": [{**asdict(one), "midpoint": one.midpoint} for one in behaviour.taylor],
        "energy_share_of_largest_tenth": {
            name: energy_share(one, -(-len(one.energy) // 10)) for name, one in behaviour.energy.items()
        },
        "output_difference": {
            "without": {name: one.relative for name, one in behaviour.difference_without.items()},
            "with": [{name: one.relative for name, one in layers.items()} for layers in behaviour.differences],
        },
    }
