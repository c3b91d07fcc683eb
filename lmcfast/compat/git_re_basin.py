"""``utils.weight_matching`` of git-re-basin-pytorch, the PyTorch port of Git Re-Basin.

The tables follow the networks of that project. One of its lines is wrong and is not followed: its VGG16 permutes the
output of the last layer, that is, the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from ..matching.result import Step
from ..matching.weight_matching import weight_matching as _match
from ..spec import PermutationSpec as _Spec

__all__ = [
    "PermutationSpec", "apply_permutation", "get_permuted_param", "mlp_permutation_spec",
    "permutation_spec_from_axes_to_perm", "resnet20_permutation_spec", "resnet50_permutation_spec",
    "vgg16_permutation_spec", "weight_matching",
]  # fmt: skip

Axes = dict[str, tuple[Any, ...]]
Params = Mapping[str, torch.Tensor]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class PermutationSpec(NamedTuple):
    """``perm_to_axes``: {permutation: [(tensor, axis), ...]}; ``axes_to_perm``: {tensor: (permutation or None, ...)}.

    A tuple may be longer than its tensor has axes, as long as what is left over is None, or shorter.
    """

    perm_to_axes: dict[Any, list[tuple[str, int]]]
    axes_to_perm: Axes


def permutation_spec_from_axes_to_perm(axes_to_perm: Axes) -> PermutationSpec:
    perm_to_axes: dict[Any, list[tuple[str, int]]] = {}
    for name, groups in axes_to_perm.items():
        for axis, group in enumerate(groups):
            if group is not None:
                perm_to_axes.setdefault(group, []).append((name, axis))
    return PermutationSpec(perm_to_axes, axes_to_perm)


def mlp_permutation_spec(num_hidden_layers: int) -> PermutationSpec:
    """Layers ``layer0`` to ``layer{num_hidden_layers}``; permutations ``P_0``, ``P_1``, ..."""
    if num_hidden_layers < 1:
        raise AssertionError(f"num_hidden_layers: expected at least 1, got {num_hidden_layers}")
    outs = [f"P_{i}" for i in range(num_hidden_layers)]
    axes: Axes = {}
    for i, (p_in, p_out) in enumerate(zip([None, *outs], [*outs, None], strict=True)):
        axes |= {f"layer{i}.weight": (p_out, p_in), f"layer{i}.bias": (p_out,)}
    return permutation_spec_from_axes_to_perm(axes)


def resnet20_permutation_spec() -> PermutationSpec:
    """Wide ResNet 22 of the project: three stages of three pre-activation blocks, the first of each with a shortcut."""
    return _wide_resnet(blocks=3)


def resnet50_permutation_spec() -> PermutationSpec:
    """The same with eight blocks a stage."""
    return _wide_resnet(blocks=8)


def _wide_resnet(blocks: int) -> PermutationSpec:
    axes: Axes = {"conv1.weight": ("P_bg0", None, None, None)}
    for stage in (1, 2, 3):
        stream = f"P_bg{stage}"
        for block in range(blocks):
            name, before = f"layer{stage}.{block}", stream if block else f"P_bg{stage - 1}"
            inner = f"P_{name}_inner"
            axes |= _norm(f"{name}.bn1", before) | {f"{name}.conv1.weight": (inner, before, None, None)}
            axes |= _norm(f"{name}.bn2", inner) | {f"{name}.conv2.weight": (stream, inner, None, None)}
            if block == 0:
                axes[f"{name}.shortcut.0.weight"] = (stream, before, None, None)
                axes |= _norm(f"{name}.shortcut.1", stream)
    axes |= _norm("bn1", "P_bg3") | {"linear.weight": (None, "P_bg3"), "linear.bias": (None,)}
    return permutation_spec_from_axes_to_perm(axes)


def _norm(name: str, group: str) -> Axes:
    return {f"{name}.weight": (group,), f"{name}.bias": (group,)}


def vgg16_permutation_spec() -> PermutationSpec:
    """VGG16 with BatchNorm behind every convolution, and one linear layer, whose outputs stay in order."""
    axes: Axes = {}
    before = None
    for index in (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40):
        group = f"P_Conv_{index}"
        axes |= {f"features.{index}.weight": (group, before, None, None), f"features.{index}.bias": (group,)}
        axes |= _norm(f"features.{index + 1}", group)
        axes |= {f"features.{index + 1}.{name}": (group,) for name in _STATISTICS[:2]}
        axes[f"features.{index + 1}.{_STATISTICS[2]}"] = ()
        before = group
    axes |= {"classifier.weight": (None, before), "classifier.bias": (None,)}
    return permutation_spec_from_axes_to_perm(axes)


def get_permuted_param(
    ps: PermutationSpec, perm: Mapping[Any, Any], k: str, params: Params, except_axis: int | None = None
) -> torch.Tensor:
    """Tensor ``k`` with every axis but ``except_axis`` moved.

    BatchNorm statistics without an entry in the spec move with the channels of their layer. ``KeyError`` for any other
    tensor without an entry.
    """
    tensor = params[k]
    for axis, group in enumerate(_axes_of(ps, k)):
        if group is not None and axis != except_axis:
            tensor = torch.index_select(tensor, axis, torch.as_tensor(perm[group]).to(tensor.device, torch.int64))
    return tensor


def apply_permutation(ps: PermutationSpec, perm: Mapping[Any, Any], params: Params) -> dict[str, torch.Tensor]:
    """All tensors of ``params``, moved as by :func:`get_permuted_param`."""
    return {name: get_permuted_param(ps, perm, name, params) for name in params}


def _axes_of(ps: PermutationSpec, name: str) -> tuple[Any, ...]:
    layer, _, last = name.rpartition(".")
    if name in ps.axes_to_perm or last not in _STATISTICS:
        return ps.axes_to_perm[name]
    channels = ps.axes_to_perm.get(f"{layer}.weight", ())
    return () if last == "num_batches_tracked" else channels[:1]


def weight_matching(
    ps: PermutationSpec,
    params_a: Params,
    params_b: Params,
    max_iter: int = 100,
    init_perm: Mapping[Any, Any] | None = None,
) -> dict[Any, torch.Tensor]:
    """Permutations of ``params_b`` that make it match ``params_a``, by :func:`lmcfast.weight_matching`.

    Every tensor of the spec that is moved counts, statistics too where the spec lists them. Prints the gain of each
    step.

    Args:
        max_iter: sweeps over all permutations at most.
        init_perm: {permutation: indices} to start from, of any number type; not changed.

    Returns:
        {permutation: indices}, float32 tensors: unit i of the matched network is unit ``perm[i]`` of B.
    """
    found = match(ps, params_a, params_b, max_iter, init_perm, _print_step)
    return {group: index.to(torch.float32) for group, index in found.items()}


def match(
    ps: PermutationSpec,
    params_a: Params,
    params_b: Params,
    max_iter: int,
    init_perm: Mapping[Any, Any] | None,
    report: Callable[[Any, Step], None] | None,
) -> dict[Any, torch.Tensor]:
    """The int64 permutations. ``report``: gets the permutation's name and the step, after each step."""
    names = {group: f"g{k}" for k, group in enumerate(ps.perm_to_axes)}  # theirs may be no names to us
    groups = {name: group for group, name in names.items()}
    axes = {}
    for key in dict.fromkeys(key for places in ps.perm_to_axes.values() for key, _ in places):
        given = [None if group is None else names[group] for group in ps.axes_to_perm[key]]
        rank = params_a[key].dim()
        if any(given[rank:]):
            raise ValueError(f"axes_to_perm: {key!r} has {rank} axes, got {ps.axes_to_perm[key]}")
        axes[key] = (*given[:rank], *[None] * (rank - len(given)))
    spec = _Spec.from_axes(axes, buffers=())
    init = {names[group]: torch.as_tensor(index).to(torch.int64) for group, index in (init_perm or {}).items()}
    found = _match(
        spec,
        {key: params_a[key] for key in axes},
        {key: params_b[key] for key in axes},
        init=init or None,
        max_sweeps=max_iter,
        callback=None if report is None else lambda step: report(groups.get(step.group), step),
    )
    return {group: found.permutations[name] for group, name in names.items()}


def _print_step(group: Any, step: Step) -> None:
    if step.kind == "step":
        print(f"{step.sweep}/{group}: {step.gain}")
