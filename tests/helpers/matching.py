"""What the tests of matching share: the naive twin, state dicts, planted permutations, brute force."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch

import lmcfast
from lmcfast import PermutationSpec
from lmcfast.spec import format_layout, spec_from_params

from . import networks

Params = dict[str, torch.Tensor]


def load_naive() -> ModuleType:
    """benchmarks/naive_matching.py as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / "naive_matching.py"
    spec = importlib.util.spec_from_file_location("naive_matching", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def random_like(params: Mapping[str, torch.Tensor], seed: int) -> Params:
    """Standard normal floating tensors of the same shapes; others copied."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in params.items()
    }


def noisy(params: Mapping[str, torch.Tensor], scale: float, seed: int) -> Params:
    """The state dict plus normal noise on its floating tensors."""
    noise = random_like(params, seed)
    return {
        name: tensor + scale * noise[name] if tensor.is_floating_point() else tensor for name, tensor in params.items()
    }


def plain_objective(
    spec: lmcfast.PermutationSpec, permutations: Mapping[str, torch.Tensor], params_a: Params, params_b: Params
) -> float:
    """Sum over tensors of <A, pi(B)>, written down again: apply, then multiply in float64."""
    moved = lmcfast.apply_permutations(spec, permutations, params_b)
    names = [name for name in spec.axes if name not in spec.buffers and name not in spec.tied]
    return sum(float((params_a[name].double() * moved[name].double()).sum()) for name in names)


def single_group_optima(
    spec: lmcfast.PermutationSpec, permutations: Params, params_a: Params, params_b: Params
) -> float:
    """The best objective that moving one group alone can reach, by trying every permutation of it."""
    best = plain_objective(spec, permutations, params_a, params_b)
    for group, current in permutations.items():
        for order in itertools.permutations(range(current.shape[0])):
            moved = {**permutations, group: torch.tensor(order)}
            best = max(best, plain_objective(spec, moved, params_a, params_b))
    return best


def axis_strings(spec: lmcfast.PermutationSpec) -> dict[str, tuple[str | None, ...]]:
    """Layout strings of the scored tensors, for the naive twin."""
    return {
        name: tuple(format_layout(layout) for layout in layouts)
        for name, layouts in spec.axes.items()
        if name not in spec.buffers and name not in spec.tied
    }


naive = load_naive()

MLP_AXES = naive.mlp_axes(2)

Case = tuple[PermutationSpec, dict[str, torch.Tensor], dict[str, torch.Tensor]]


def mlp_params(widths: tuple[int, ...], seed: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in naive.random_mlp(widths, seed).items()}


def mlp_case(width: int = 20) -> Case:
    spec = PermutationSpec.from_axes(MLP_AXES)
    return spec, mlp_params((12, width, width, 5), 1), mlp_params((12, width, width, 5), 2)


def residual_case() -> Case:
    a, b = (networks.params_of(networks.resnet((12, 16), seed=seed)) for seed in (1, 2))
    return spec_from_params(a), a, b


CASES = {"mlp": mlp_case, "resnet": residual_case}
