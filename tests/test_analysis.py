"""Singular vectors, inputs, Taylor estimate and plane, each against its definition written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.networks import inputs, mlp, randomize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import lmcfast
from lmcfast.analysis import (
    barrier,
    energy_share,
    input_energy,
    layer_difference,
    plane,
    singular_alignment,
    spectra,
    taylor_barrier,
)

Pairs = list[tuple[Tensor, Tensor]]


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1, stride=2)
        self.second = nn.Conv2d(6, 5, 3, dilation=2, padding=2, padding_mode="circular")
        self.third = nn.Conv1d(5, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x).relu()).relu().flatten(2))


CONVOLUTION_SPEC = lmcfast.PermutationSpec.from_axes(
    {
        "first.weight": ("c1", None, None, None), "first.bias": ("c1",),
        "second.weight": ("c2", "c1", None, None), "second.bias": ("c2",),
        "third.weight": (None, "c2", None), "third.bias": (None,),
    }
)  # fmt: skip


def pair_of_networks(seed: int = 0) -> tuple[nn.Module, lmcfast.PermutationSpec, dict[str, Tensor], dict[str, Tensor]]:
    module = mlp((6, 9, 8, 4), seed=seed)
    a, b = dict(module.state_dict()), dict(mlp((6, 9, 8, 4), seed=seed + 1).state_dict())
    return module, lmcfast.spec_from_params(a), a, b


def double_sum(weight_a: Tensor, weight_b: Tensor, gamma: float) -> float:
    """R_l as the paper writes it: over all pairs of kept singular vectors."""
    total = 0.0
    kept = []
    for weight in (weight_a, weight_b):
        u, s, v = torch.linalg.svd(weight.double().reshape(len(weight), -1), full_matrices=False)
        keep = s >= max(gamma, max(weight.shape[0], weight[0].numel()) * 2.0**-23) * s[0]
        kept.append((u[:, keep], v[keep].T))
    (ua, va), (ub, vb) = kept
    for i in range(ua.shape[1]):
        for j in range(ub.shape[1]):
            total += float(ua[:, i] @ ub[:, j]) * float(va[:, i] @ vb[:, j])
    return total / math.sqrt(ua.shape[1] * ub.shape[1])


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.7])
def test_alignment_is_the_double_sum(gamma: float) -> None:
    _, spec, a, b = pair_of_networks()
    setting = spec.bind(a).random_permutations(3)
    moved = lmcfast.apply_permutations(spec, setting, b)
    result = singular_alignment(spec, a, b, setting, gamma)
    weights = [name for name in a if name.endswith("weight")]
    assert list(result.per_layer) == weights
    kept, total = 0.0, 0.0
    for name in weights:
        expected = double_sum(a[name], moved[name], gamma)
        assert result.per_layer[name].r == pytest.approx(expected, abs=1e-9)
        kept += result.per_layer[name].kept
        total += result.per_layer[name].kept * expected
    assert result.pooled == pytest.approx(total / kept, abs=1e-9)


def test_alignment_of_a_layer_of_low_rank_leaves_arbitrary_vectors_out() -> None:
    """Dead units: the vectors of zero singular values are whatever the routine gives, and must not count."""
    _, spec, a, b = pair_of_networks()
    for params in (a, b):
        params["2.weight"] = params["2.weight"].clone()
        params["2.weight"][2:] = 0.0
    layer = singular_alignment(spec, a, b).per_layer["2.weight"]
    assert (layer.kept_a, layer.kept_b) == (2, 2)
    assert layer.r == pytest.approx(double_sum(a["2.weight"], b["2.weight"], 0.0), abs=1e-9)
    assert layer.left == pytest.approx(1.0, abs=1e-9)  # both span the two live units
    assert layer.right < 0.9


def test_a_network_is_aligned_with_itself_and_with_its_permuted_copy() -> None:
    _, spec, a, _ = pair_of_networks()
    assert singular_alignment(spec, a, a).pooled == pytest.approx(1.0, abs=1e-9)
    hidden = spec.bind(a).random_permutations(5)
    b = lmcfast.apply_permutations(spec, lmcfast.invert_permutations(spec.bind(a), hidden), a)
    without, with_it = singular_alignment(spec, a, b), singular_alignment(spec, a, b, hidden, gamma=0.3)
    assert with_it.pooled == pytest.approx(1.0, abs=1e-9)
    assert without.pooled < 0.9
    several = singular_alignment(spec, a, b, [hidden, spec.bind(a).identity()])
    assert [one.pooled for one in several] == pytest.approx([1.0, without.pooled], abs=1e-9)


def test_alignment_of_convolutions_and_its_refusals() -> None:
    a, b = (dict(randomize(Convolutions(), seed).state_dict()) for seed in (0, 1))
    setting = CONVOLUTION_SPEC.bind(a).random_permutations(1)
    moved = lmcfast.apply_permutations(CONVOLUTION_SPEC, setting, b)
    result = singular_alignment(CONVOLUTION_SPEC, a, b, setting, layers=["second*"])
    assert list(result.per_layer) == ["second.weight"]
    expected = double_sum(a["second.weight"], moved["second.weight"], 0.0)
    assert result.pooled == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match=r"gamma: .* not 1\.5"):
        singular_alignment(CONVOLUTION_SPEC, a, b, gamma=1.5)
    with pytest.raises(ValueError, match="layers: 'fourth' names none"):
        singular_alignment(CONVOLUTION_SPEC, a, b, layers=["fourth"])
    a["first.weight"] = torch.full_like(a["first.weight"], math.nan)
    with pytest.raises(lmcfast.InvalidParamsError, match=r"params_a: tensor 'first\.weight'"):
        singular_alignment(CONVOLUTION_SPEC, a, b)


def test_permutations_change_no_singular_value() -> None:
    _, spec, a, b = pair_of_networks()
    moved = lmcfast.apply_permutations(spec, spec.bind(a).random_permutations(2), b)
    found = spectra(spec, [b, moved])
    assert max(found.spread().values()) < 1e-6
    assert spectra(spec, [a, b]).spread()["0.weight"] > 1e-3
    for name, values in found.values.items():
        expected = np.linalg.svd(b[name].double().numpy(), compute_uv=False)
        np.testing.assert_allclose(values[0], expected, atol=1e-12)
    with pytest.raises(ValueError, match="models: a list"):
        spectra(spec, a)  # type: ignore[arg-type]


def test_input_energy_of_linear_layers() -> None:
    module, spec, a, _ = pair_of_networks()
    batches = [inputs(5, 6, seed=1), (inputs(3, 6, seed=2), None)]
    found = input_energy(spec, module, a, batches)
    z = torch.cat([inputs(5, 6, seed=1), inputs(3, 6, seed=2)]).double()
    for k, name in enumerate(("0.weight", "2.weight", "4.weight")):
        _, s, v = torch.linalg.svd(a[name].double(), full_matrices=False)
        np.testing.assert_allclose(found[name].values, s, atol=1e-12)
        np.testing.assert_allclose(found[name].energy, (z @ v.T).square().mean(0), rtol=1e-5)
        assert found[name].total == pytest.approx(float(z.square().sum(1).mean()), rel=1e-5)
        z = (z @ a[name].double().T + a[f"{2 * k}.bias"].double()).relu()
    assert energy_share(found["0.weight"], 6) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="count: must be from 0 to 6, not 7"):
        energy_share(found["0.weight"], 7)


def test_patches_are_what_the_convolutions_multiply() -> None:
    """|W z|^2 summed over patches is the convolution's squared output, whatever stride, padding and dilation."""
    module = randomize(Convolutions(), 3)
    a = dict(module.state_dict())
    b = {name: torch.zeros_like(tensor) for name, tensor in a.items()}
    x = inputs(2, 2, 9, 9, seed=4)
    found = layer_difference(CONVOLUTION_SPEC, module, a, b, [x])
    outputs = {}
    for name in ("first", "second", "third"):
        layer = getattr(module, name)
        layer.register_forward_hook(
            lambda m, _, y, name=name: outputs.update({name: y - m.bias.reshape(-1, *[1] * (y.ndim - 2))})
        )
    with torch.no_grad():
        module(x)
    for name, y in outputs.items():
        mean = float(y.double().square().sum()) / (y.numel() / y.shape[1])
        assert found[f"{name}.weight"].norm_a == pytest.approx(mean, rel=1e-5)
        assert found[f"{name}.weight"].difference == pytest.approx(mean, rel=1e-5)
        assert found[f"{name}.weight"].relative == pytest.approx(1.0)


def test_layer_difference_is_theorem_4_2() -> None:
    module, spec, a, b = pair_of_networks()
    setting = spec.bind(a).random_permutations(4)
    x = inputs(7, 6, seed=3)
    found = layer_difference(spec, module, a, b, [x[:4], x[4:]], setting)
    moved = lmcfast.apply_permutations(spec, setting, b)
    z = x.double()
    for k, name in enumerate(("0.weight", "2.weight", "4.weight")):
        ua, sa, va = torch.linalg.svd(a[name].double(), full_matrices=False)
        ub, sb, vb = torch.linalg.svd(moved[name].double(), full_matrices=False)
        one, two = sa * (z @ va.T), sb * (z @ vb.T)
        cross = torch.einsum("zi,ij,zj->z", one, ua.T @ ub, two)
        expected = (one.square().sum(1) + two.square().sum(1) - 2 * cross).mean()
        assert found[name].difference == pytest.approx(float(expected), rel=1e-5)
        z = (z @ a[name].double().T + a[f"{2 * k}.bias"].double()).relu()


def tanh_network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def shifted(params: dict[str, Tensor], scale: float, seed: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        name: tensor + scale * torch.randn(tensor.shape, generator=source, dtype=tensor.dtype)
        for name, tensor in params.items()
    }


def labelled(seed: int = 0) -> Pairs:
    source = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(n, 4, generator=source, dtype=torch.float64), torch.randint(0, 3, (n,), generator=source))
        for n in (6, 9)
    ]


def test_the_error_of_the_taylor_estimate_falls_with_the_cube_of_the_distance() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = tanh_network()
    a, batches = dict(module.state_dict()), labelled()
    errors = []
    for scale in (0.1, 0.05, 0.025, 0.0125):
        b = shifted(a, scale, seed=1)
        exact = barrier(module, a, b, batches, cross_entropy, lambdas=5)
        estimate = taylor_barrier(module, a, b, batches, cross_entropy, dtype=torch.float64)
        distance = lmcfast.distance(None, a, b)
        errors.append(float(np.abs(estimate.curve(exact.lambdas) - exact.curve).max()) / distance**3)
        assert abs(exact.midpoint) > 3 * abs(estimate.midpoint - exact.midpoint)
    assert max(errors) < 2 * errors[0]


def test_the_taylor_estimate_is_exact_for_a_quadratic_loss() -> None:
    """A linear model under squared error is its own second-order expansion."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = nn.Linear(4, 2).double()
    a = dict(module.state_dict())
    b = shifted(a, 1.0, seed=2)
    source = torch.Generator().manual_seed(5)
    batches = [
        (torch.randn(n, 4, generator=source).double(), torch.randn(n, 2, generator=source).double()) for n in (3, 8)
    ]
    exact = barrier(module, a, b, batches, mse_loss, lambdas=9)
    estimate = taylor_barrier(module, a, b, batches, mse_loss)
    np.testing.assert_allclose(estimate.curve(exact.lambdas), exact.curve, atol=1e-12)
    assert estimate.midpoint == pytest.approx(exact.midpoint, abs=1e-12)


def test_the_taylor_estimate_refuses_what_it_cannot_use() -> None:
    module = tanh_network()
    a = dict(module.state_dict())
    with pytest.raises(TypeError, match="only once"):
        taylor_barrier(module, a, a, iter(labelled()), cross_entropy)
    with pytest.raises(lmcfast.InvalidParamsError, match="params_b lacks the module's tensor"):
        taylor_barrier(module, a, {"0.weight": a["0.weight"]}, labelled(), cross_entropy)
    huge = {name: tensor * math.inf for name, tensor in a.items()}
    with pytest.raises(lmcfast.InvalidParamsError, match="not finite"):
        taylor_barrier(module, a, huge, labelled(), cross_entropy)


def test_the_plane_holds_the_three_networks() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        module = tanh_network()
    a = dict(module.state_dict())
    b = shifted(a, 0.5, seed=3)
    c = shifted(lmcfast.interpolate(a, b, 0.3), 0.3, seed=4)  # above the segment from A to B
    found = plane(module, [a, b, c], labelled(), cross_entropy, resolution=3, margin=0.0)
    distances = [lmcfast.distance(None, *pair) for pair in ((a, b), (a, c), (b, c))]
    points = found.points
    apart = [float(np.linalg.norm(points[i] - points[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(apart, distances, rtol=1e-9)
    line = barrier(module, a, b, labelled(), cross_entropy, lambdas=[])
    assert (found.x[0], found.x[-1], found.y[0], found.y[-1]) == (0.0, points[1, 0], 0.0, points[2, 1])
    np.testing.assert_allclose(found.losses[0], line.losses, rtol=1e-9)
    wide = plane(module, [a, b, c], labelled(), cross_entropy, resolution=2, margin=0.5)
    assert wide.losses.shape == (2, 2)
    assert wide.y[0] == pytest.approx(-0.5 * points[2, 1])
    with pytest.raises(lmcfast.InvalidParamsError, match="on one line"):
        plane(module, [a, b, lmcfast.interpolate(a, b, 0.5)], labelled(), cross_entropy)
    with pytest.raises(ValueError, match="three state dicts are needed, not 2"):
        plane(module, [a, b], labelled(), cross_entropy)
