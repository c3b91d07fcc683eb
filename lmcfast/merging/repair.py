"""The statistics of a merged network's channels set to those of its parents, and written into its own weights.

In the mean of two networks whose units are aligned but not equal, what differs cancels, and each pre-activation varies
less than in either parent; with depth little is left (variance collapse). Scaling and shifting each channel back to the
parents' statistics undoes that (Jordan et al., *REPAIR*, arXiv:2211.08403, section 4).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, Literal

import torch
from torch import nn

from ..batches import repeatable
from ..errors import InvalidParamsError
from .batchnorm import batchnorm_layers, reset_batchnorm
from .channels import Moments, Passage, channel_layers, fold, observe, passage, scale_rows, weight_rows

Parent = nn.Module | Mapping[str, torch.Tensor]
Patterns = str | Sequence[str]


@dataclass(frozen=True)
class RepairReport:
    """What was changed: ``layers``, in the order of the forward pass, ``norms`` (BatchNorm layers whose running
    statistics were computed anew), ``scaled_only`` (layers without a bias, whose mean cannot be set), and ``left`` with
    the reason for each layer that was not changed."""

    layers: tuple[str, ...]
    norms: tuple[str, ...]
    scaled_only: tuple[str, ...]
    left: Mapping[str, str]


def repair(
    module: nn.Module,
    module_a: Parent,
    module_b: Parent,
    batches: Iterable[Any],
    weight: float = 0.5,
    shift: bool = True,
    outputs: bool = True,
    layers: Patterns | None = None,
) -> RepairReport:
    """Set mean and deviation of each pre-activation of a merged network to the interpolation of its parents'.

    For every channel of every linear layer and convolution, over all examples and positions of ``batches``: mean
    (1 - weight) mean_a + weight mean_b, and the same of the standard deviations. The layers are done in the order of
    the forward pass, each measured with those before it repaired, so that at the end all have the statistics asked for
    at once, exactly on these batches. They are written into weight and bias: the module keeps its architecture.

    A layer whose output a BatchNorm takes as it is, is left to that: running statistics are computed anew, on which its
    scale and shift, which were merged with the weights, set the output. A network with nothing else to repair gets what
    :func:`reset_batchnorm` gives. Channels that do not vary in the merged network are shifted, not scaled.

    Args:
        module: the merged network; changed in place, as before after every error.
        module_a, module_b: its parents as they were merged: B aligned with A. Modules, or state dicts of ``module``.
            Not changed.
        batches: gone through once for both parents and once, on average half the way, for every layer. As for
            :func:`reset_batchnorm`; a list or DataLoader, not an iterator.
        weight: of B in the merge.
        shift: False for the rescale-only form: deviations alone are set, weight and bias are multiplied.
        outputs: False leaves out layers whose output is the network's.
        layers: paths of layers (fnmatch wildcards) to be repaired; default all.

    Layers that share their weight with another one, that are called more than once in a pass or never, are left as they
    are; the report says so.

    Raises ``InvalidParamsError`` (a parent does not fit, activations are not finite), ``TypeError`` or ``ValueError``
    naming the argument, and whatever the module raises.
    """
    if not 0.0 <= weight <= 1.0:
        raise ValueError(f"weight: must be in [0, 1], not {weight!r}")
    return _repair(
        module, {"module_a": module_a, "module_b": module_b}, batches, [1.0 - weight, weight], shift, outputs, layers
    )


def repair_many(
    module: nn.Module,
    parents: Sequence[Parent],
    batches: Iterable[Any],
    weights: Sequence[float] | None = None,
    shift: bool = True,
    outputs: bool = True,
    layers: Patterns | None = None,
) -> RepairReport:
    """:func:`repair` of the merge of any number of networks; ``weights``: each one's share, default the same."""
    named = {f"parents[{index}]": parent for index, parent in enumerate(parents)}
    return _repair(module, named, batches, _shares(weights, len(parents)), shift, outputs, layers)


def rescale(
    module: nn.Module,
    parents: Sequence[Parent],
    weights: Sequence[float] | None = None,
    inputs: Literal["weights", "white"] = "weights",
    layers: Patterns | None = None,
) -> tuple[str, ...]:
    """The rescale-only form without data: deviations are estimated from the weights alone, in closed form.

    The deviation of a pre-activation is sqrt(w C w) with w its row of weights and C the covariance of the layer's
    inputs. What is assumed of C, up to a factor that cancels: "weights": C is the mean over the parents of W^T W.
    Training leaves the inputs of a layer where its weights are large (along the leading right singular vectors: Ito et
    al., arXiv:2402.04051, section 4). "white": C is the identity and the deviation the norm of the row. That overrates
    what differs between the parents, most of which lies where no input does, and did harm where it was measured
    (docs/methods.md). Both estimates are our own; that the scale matters more than the shift is found by Qu and
    Horvath, arXiv:2402.05966.

    Args:
        module: the merged network; changed in place. Weights alone are multiplied, biases stay as they were merged.
        parents: the aligned networks as they were merged, modules or state dicts of ``module``.
        weights: each one's share, default the same.
        layers: paths of layers (fnmatch wildcards); default all.

    Returns the paths of the layers that were changed. Layers that share their weight are left as they are. Raises
    ``InvalidParamsError``, ``ValueError`` naming the argument.
    """
    if inputs not in ("weights", "white"):
        raise ValueError(f"inputs: must be 'weights' or 'white', not {inputs!r}")
    shares = _shares(weights, len(parents))
    states = [_state(module, parent, f"parents[{index}]") for index, parent in enumerate(parents)]
    owned = channel_layers(module)
    _check_patterns(owned, layers)
    chosen = {path: layer for path, layer in owned.items() if _is_chosen(path, layers)}
    for path, layer in chosen.items():
        name = f"{path}.weight" if path else "weight"
        rows = [weight_rows(layer, state[name]).to(layer.get_parameter("weight").device) for state in states]
        energy = input_energy(rows if inputs == "weights" else [], shares)
        found = energy(weight_rows(layer, layer.get_parameter("weight")))
        scale_rows(layer, _factors(found, _mean([energy(row) for row in rows], shares)))
    return tuple(chosen)


def input_energy(rows: Sequence[torch.Tensor], shares: Sequence[float]) -> Callable[[torch.Tensor], torch.Tensor]:
    """w -> sqrt(w C w) of each row of a (groups, channels, inputs) tensor, flattened: C of each group is the mean of
    the parents' W^T W, the identity without any."""
    if not rows:
        return lambda own: own.norm(dim=-1).flatten()
    stacked = torch.cat([share**0.5 * row for share, row in zip(shares, rows, strict=True)], dim=1)
    if stacked.shape[2] > stacked.shape[1]:
        return lambda own: (own @ stacked.mT).norm(dim=-1).flatten()
    covariance = stacked.mT @ stacked
    return lambda own: ((own @ covariance) * own).sum(-1).clamp_(min=0.0).sqrt().flatten()


def _repair(
    module: nn.Module,
    parents: Mapping[str, Parent],
    batches: Iterable[Any],
    shares: Sequence[float],
    shift: bool,
    outputs: bool,
    patterns: Patterns | None,
) -> RepairReport:
    repeatable(batches)
    first = list(islice(batches, 1))
    if not first:
        raise ValueError("batches: at least one batch is needed, there is none")
    networks = {name: _module(module, parent, name) for name, parent in parents.items()}
    seen = passage(module, first[0])
    layers, left = _plan(module, seen, outputs, patterns)
    norms = [path for path in seen.order if path in batchnorm_layers(module)]
    if not layers:
        reset_batchnorm(module, batches)
        return RepairReport((), tuple(norms), (), left)
    targets = [observe(network, layers, batches, name) for name, network in networks.items()]
    parts = dict(module.named_modules())
    with _unchanged_on_error(parts[path] for path in (*layers, *norms)):
        for path in [path for path in seen.order if path in layers or path in norms]:
            found = observe(module, [path], batches, "module", early=True)[path]
            if path in norms:
                _set_statistics(parts[path], found)
            else:
                _set_channels(parts[path], found, [target[path] for target in targets], shares, shift)
    without_bias = tuple(path for path in layers if shift and parts[path]._parameters.get("bias") is None)
    return RepairReport(tuple(layers), tuple(norms), without_bias, left)


def _plan(
    module: nn.Module, seen: Passage, outputs: bool, patterns: Patterns | None
) -> tuple[list[str], dict[str, str]]:
    """The layers to be repaired, in order, and the others with the reason."""
    owned = channel_layers(module)
    _check_patterns(owned, patterns)
    left = {}
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and path not in owned:
            left[path] = "its weight is shared or computed"
    for path in owned:
        if path not in seen.calls:
            left[path] = "never called"
        elif not _is_chosen(path, patterns):
            left[path] = "not in layers"
        elif seen.calls[path] > 1:
            left[path] = f"called {seen.calls[path]} times in one pass"
        elif path in seen.normalised:
            left[path] = "a BatchNorm takes its output"
        elif path in seen.outputs and not outputs:
            left[path] = "its output is the network's"
    return [path for path in seen.order if path in owned and path not in left], left


def _set_channels(
    layer: nn.Module, found: Moments, targets: Sequence[Moments], shares: Sequence[float], shift: bool
) -> None:
    scale = _factors(found.deviation, _mean([target.deviation for target in targets], shares))
    mean = _mean([target.mean for target in targets], shares)
    fold(layer, scale, mean - scale * found.mean if shift else torch.zeros_like(scale))


def _set_statistics(layer: nn.Module, found: Moments) -> None:
    """As BatchNorm itself would over one batch of everything: the variance unbiased."""
    layer.get_buffer("running_mean").copy_(found.mean)
    layer.get_buffer("running_var").copy_(found.squares / max(1, found.count - 1))


def _factors(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """wanted / found; 1 where there is nothing to scale."""
    return torch.where(found > 0.0, wanted / torch.where(found > 0.0, found, torch.ones_like(found)), 1.0)


def _mean(values: Sequence[torch.Tensor], shares: Sequence[float]) -> torch.Tensor:
    return torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(0)


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if count < 1:
        raise ValueError("parents: at least one network is needed, there is none")
    shares = [1.0 / count] * count if weights is None else [float(weight) for weight in weights]
    if len(shares) != count or not all(0.0 <= share < float("inf") for share in shares):
        raise ValueError(f"weights: {count} finite numbers >= 0 are needed, one for each network, not {weights!r}")
    return shares


def _is_chosen(path: str, patterns: Patterns | None) -> bool:
    some = (patterns,) if isinstance(patterns, str) else patterns
    return some is None or any(fnmatchcase(path, pattern) for pattern in some)


def _check_patterns(paths: Iterable[str], patterns: Patterns | None) -> None:
    known = list(paths)
    for pattern in (patterns,) if isinstance(patterns, str) else patterns or ():
        if not any(fnmatchcase(path, pattern) for path in known):
            raise ValueError(f"layers: {pattern!r} matches no layer; there are: {', '.join(known[:8])}")


def _state(module: nn.Module, parent: Parent, argument: str) -> Mapping[str, torch.Tensor]:
    """The parent's state dict, checked against the module's."""
    state = parent.state_dict() if isinstance(parent, nn.Module) else parent
    for name, tensor in module.state_dict().items():
        if name not in state:
            raise InvalidParamsError(f"{argument} lacks the tensor {name!r} of module", name)
        if state[name].shape != tensor.shape:
            found, wanted = tuple(state[name].shape), tuple(tensor.shape)
            raise InvalidParamsError(f"{argument}: tensor {name!r} has shape {found}, that of module {wanted}", name)
    return state


def _module(module: nn.Module, parent: Parent, argument: str) -> nn.Module:
    """The parent as a module."""
    state = _state(module, parent, argument)
    if isinstance(parent, nn.Module):
        return parent
    made = copy.deepcopy(module)
    made.load_state_dict(dict(state), strict=False)
    return made


@contextmanager
def _unchanged_on_error(layers: Iterable[nn.Module]) -> Iterator[None]:
    before = [
        (tensor, tensor.detach().clone())
        for layer in layers
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    ]
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            with torch.no_grad():
                for tensor, old in before:
                    tensor.copy_(old)
