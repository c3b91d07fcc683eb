"""``weight_matching`` of git-re-basin, the authors' code: flat keys, kernels (inputs, outputs).

Works on numpy arrays without JAX, and on JAX arrays: what comes back is of the library that went in.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .git_re_basin import Axes, PermutationSpec, _print_step, match, permutation_spec_from_axes_to_perm

__all__ = [
    "PermutationSpec", "apply_permutation", "get_permuted_param", "mlp_permutation_spec",
    "permutation_spec_from_axes_to_perm", "resnet20_permutation_spec", "resnet50_permutation_spec",
    "vgg16_permutation_spec", "weight_matching",
]  # fmt: skip

Params = Mapping[str, Any]


def mlp_permutation_spec(num_hidden_layers: int) -> PermutationSpec:
    """Layers ``Dense_0`` to ``Dense_{num_hidden_layers}``; permutations ``P_0``, ``P_1``, ..."""
    if num_hidden_layers < 1:
        raise AssertionError(f"num_hidden_layers: expected at least 1, got {num_hidden_layers}")
    outs = [f"P_{i}" for i in range(num_hidden_layers)]
    axes: Axes = {}
    for i, (p_in, p_out) in enumerate(zip([None, *outs], [*outs, None], strict=True)):
        axes |= _dense(f"Dense_{i}", p_in, p_out)
    return permutation_spec_from_axes_to_perm(axes)


def vgg16_permutation_spec() -> PermutationSpec:
    """VGG16 with LayerNorm behind every convolution."""
    axes: Axes = {}
    before = None
    for i in range(13):
        group = f"P_Conv_{i}"
        axes |= _conv(f"Conv_{i}", before, group) | {f"Conv_{i}/bias": (group,)} | _norm(f"LayerNorm_{i}", group)
        before = group
    for i, group_out in enumerate(("P_Dense_0", "P_Dense_1", None)):
        axes |= _dense(f"Dense_{i}", before, group_out)
        before = group_out
    return permutation_spec_from_axes_to_perm(axes)


def resnet20_permutation_spec() -> PermutationSpec:
    """Three groups of three blocks; the first block of the second and third group has a shortcut."""
    axes = _conv("conv1", None, "P_bg0") | _norm("norm1", "P_bg0")
    for i in range(3):
        stream = f"P_bg{i}"
        for k in range(3):
            name, before = f"blockgroups_{i}/blocks_{k}", f"P_bg{i - 1}" if i and not k else stream
            inner = f"P_{name}_inner"
            axes |= _conv(f"{name}/conv1", before, inner) | _norm(f"{name}/norm1", inner)
            axes |= _conv(f"{name}/conv2", inner, stream) | _norm(f"{name}/norm2", stream)
            if before != stream:
                axes |= _conv(f"{name}/shortcut/layers_0", before, stream)
                axes |= _norm(f"{name}/shortcut/layers_1", stream)
    return permutation_spec_from_axes_to_perm(axes | _dense("dense", "P_bg2", None))


def resnet50_permutation_spec() -> PermutationSpec:
    """Four groups of 3, 4, 6 and 3 bottleneck blocks; the first block of each has a shortcut."""
    axes = _conv_block("layers_0/ConvBlock_0", None, "P_bg0")
    for i, count in enumerate((3, 4, 6, 3)):
        stream = f"P_bg{i + 1}"
        for k in range(count):
            name, before = f"blockgroups_{i}/blocks_{k}", stream if k else f"P_bg{i}"
            inner, further = f"P_{name}_inner1", f"P_{name}_inner2"
            axes |= _conv_block(f"{name}/ConvBlock_0", before, inner)
            axes |= _conv_block(f"{name}/ConvBlock_1", inner, further)
            axes |= _conv_block(f"{name}/ConvBlock_2", further, stream)
            if not k:
                axes |= _conv_block(f"{name}/ResNetSkipConnection_0/ConvBlock_0", before, stream)
    return permutation_spec_from_axes_to_perm(axes | _dense("dense", "P_bg4", None))


def _dense(name: str, p_in: str | None, p_out: str | None) -> Axes:
    return {f"{name}/kernel": (p_in, p_out), f"{name}/bias": (p_out,)}


def _conv(name: str, p_in: str | None, p_out: str | None) -> Axes:
    return {f"{name}/kernel": (None, None, p_in, p_out)}


def _norm(name: str, group: str) -> Axes:
    return {f"{name}/scale": (group,), f"{name}/bias": (group,)}


def _conv_block(name: str, p_in: str | None, p_out: str) -> Axes:
    return _conv(f"{name}/Conv_0", p_in, p_out) | _norm(f"{name}/BatchNorm_0", p_out)


def get_permuted_param(
    ps: PermutationSpec, perm: Mapping[Any, Any], k: str, params: Params, except_axis: int | None = None
) -> Any:
    """Array ``k`` with every axis but ``except_axis`` moved. ``KeyError`` for one without an entry in the spec."""
    array = params[k]
    for axis, group in enumerate(ps.axes_to_perm[k]):
        if group is not None and axis != except_axis:
            take = sys.modules["jax"].numpy.take if _is_jax(array) else np.take
            array = take(array, perm[group], axis=axis)
    return array


def apply_permutation(ps: PermutationSpec, perm: Mapping[Any, Any], params: Params) -> dict[str, Any]:
    """All arrays of ``params``, moved as by :func:`get_permuted_param`."""
    return {name: get_permuted_param(ps, perm, name, params) for name in params}


def weight_matching(
    rng: Any,
    ps: PermutationSpec,
    params_a: Params,
    params_b: Params,
    max_iter: int = 100,
    init_perm: Mapping[Any, Any] | None = None,
    silent: bool = False,
) -> dict[Any, Any]:
    """Permutations of ``params_b`` that make it match ``params_a``, by :func:`lmcfast.weight_matching`.

    Args:
        rng: without effect: the order of the steps is not random. None will do.
        max_iter: sweeps over all permutations at most.
        init_perm: {permutation: indices} to start from; not changed.
        silent: print no gains of steps.

    Returns:
        {permutation: indices}: unit i of the matched network is unit ``perm[i]`` of B. JAX arrays where ``params_a``
        holds such, else int64 numpy arrays.
    """
    a, b = ({key: _tensor(params[key]) for key in ps.axes_to_perm if key in params} for params in (params_a, params_b))
    init = None if init_perm is None else {group: np.array(index) for group, index in init_perm.items()}
    found = match(ps, a, b, max_iter, init, None if silent else _print_step)
    arrays = {group: index.numpy() for group, index in found.items()}
    if any(map(_is_jax, params_a.values())):
        return {group: sys.modules["jax"].numpy.asarray(array) for group, array in arrays.items()}
    return arrays


def _is_jax(array: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(array, jax.Array)


def _tensor(array: Any) -> torch.Tensor:
    values: NDArray[Any] = np.asarray(array)
    if values.dtype.kind == "V":  # bfloat16, which numpy has from elsewhere
        values = values.astype(np.float32)
    return torch.from_numpy(np.array(values))  # a copy: JAX lends read-only memory
