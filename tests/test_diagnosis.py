"""The diagnosis: a stand-in for chance, figures that are those of the single functions, verdicts, the report."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.networks import inputs, mlp, randomize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import lmcfast
from lmcfast.analysis import barrier, diagnose, distance_reduction, report_page, singular_alignment, spectra
from lmcfast.analysis.diagnosis.chance import stand_in
from lmcfast.analysis.page import render_page

Params = dict[str, Tensor]
SIZES = (6, 16, 14, 4)


def planted(noise: float = 0.0) -> tuple[nn.Module, lmcfast.PermutationSpec, Params, Params, dict[str, Tensor]]:
    """A, a shuffled copy of it with some noise, and what undoes the shuffle."""
    module = mlp(SIZES, seed=3)
    a = dict(module.state_dict())
    spec = lmcfast.spec_from_params(a).bind(a)
    shuffle = spec.random_permutations(1)
    source = torch.Generator().manual_seed(5)
    noisy = {name: tensor + noise * torch.randn(tensor.shape, generator=source) for name, tensor in a.items()}
    b = lmcfast.apply_permutations(spec, shuffle, noisy)
    return module, spec, a, b, lmcfast.invert_permutations(spec, shuffle)


def labelled(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Batches that the network itself labels, so that it is right on all of them."""
    with torch.no_grad():
        return [(x, module(x).argmax(1)) for x in (inputs(40, 6, seed=seed) for seed in (1, 2))]


def test_the_stand_in_has_the_singular_values_and_not_the_vectors() -> None:
    _, spec, a, _, _ = planted()
    fake = stand_in(spec, a, seed=0)
    assert max(spectra(spec, [a, fake]).spread().values()) < 1e-5
    assert abs(singular_alignment(spec, a, fake).pooled) < 0.2
    for name in ("0.bias", "2.bias"):
        torch.testing.assert_close(fake[name].sort().values, a[name].sort().values)
        assert not torch.equal(fake[name], a[name])
    again, other = stand_in(spec, a, seed=0), stand_in(spec, a, seed=1)
    assert all(torch.equal(fake[name], again[name]) for name in a)
    assert not torch.equal(fake["0.weight"], other["0.weight"])


def test_the_stand_in_keeps_ties_and_buffers() -> None:
    a = {"w": torch.randn(4, 4, generator=torch.Generator().manual_seed(0)), "mean": torch.arange(4.0)}
    a["tied"] = a["w"]
    spec = lmcfast.PermutationSpec.from_axes({"w": ("g", None), "mean": ("g",)}, tied={"tied": "w"}, buffers=["mean"])
    fake = stand_in(spec, a)
    assert fake["tied"] is fake["w"]
    assert torch.equal(fake["mean"], a["mean"])


def test_the_figures_are_those_of_the_single_functions() -> None:
    module, spec, a, b, back = planted(noise=0.1)
    data = labelled(module)
    other = spec.random_permutations(7)
    found = diagnose(spec, a, b, [back, other], module=module, batches=data, loss=cross_entropy, lambdas=5)
    weights, behaviour = found.weights, found.behaviour
    assert behaviour is not None
    assert weights.reductions == distance_reduction(spec, a, b, [back, other])
    for gamma in (0.0, 0.3):
        assert weights.without[gamma].pooled == pytest.approx(singular_alignment(spec, a, b, None, gamma).pooled)
        expected = [one.pooled for one in singular_alignment(spec, a, b, [back, other], gamma)]
        assert [one.pooled for one in weights.aligned[gamma]] == pytest.approx(expected)
        assert weights.chance.alignment[gamma].pooled < weights.aligned[gamma][0].pooled
    aligned = lmcfast.apply_permutations(spec, back, b)
    assert behaviour.aligned[0].midpoint == pytest.approx(barrier(module, a, aligned, data, cross_entropy, 5).midpoint)
    assert behaviour.without.midpoint == pytest.approx(barrier(module, a, b, data, cross_entropy, 5).midpoint)
    assert len(behaviour.taylor) == len(behaviour.differences) == 2
    norms = [lmcfast.distance(None, one, {k: 0 * v for k, v in one.items()}) for one in (a, aligned)]
    merge = lmcfast.interpolate(a, aligned)
    norm = lmcfast.distance(None, merge, {k: 0 * v for k, v in merge.items()})
    assert weights.shrinkage[0] == pytest.approx(2 * norm / sum(norms))
    cosine = sum(float((a[k].double() * aligned[k].double()).sum()) for k in a) / (norms[0] * norms[1])
    assert weights.cosine_after[0] == pytest.approx(cosine)


def test_verdicts_on_data() -> None:
    module, spec, a, b, back = planted()
    data = labelled(module)
    options = {"module": module, "batches": data, "loss": cross_entropy, "lambdas": 3, "taylor": False}
    merged = diagnose(spec, a, b, back, **options).verdict
    assert (merged.answer, merged.measured, merged.permute) == ("yes", True, True)
    plain = diagnose(spec, a, a, spec.random_permutations(2), **options).verdict
    assert (plain.answer, plain.permute) == ("yes", False)
    assert "does not help" in plain.reason
    shuffled = diagnose(spec, a, b, spec.random_permutations(3), **options).verdict
    assert shuffled.answer == "no"


def test_verdicts_from_weights() -> None:
    _, spec, a, b, back = planted()
    likely = diagnose(spec, a, b, back)
    assert (likely.verdict.answer, likely.verdict.measured, likely.behaviour) == ("yes", False, None)
    fake = stand_in(spec, a, seed=9)
    match = lmcfast.weight_matching(spec, a, fake)
    assert diagnose(spec, a, fake, match.permutations).verdict.answer == "no"


def test_half_of_what_is_needed_is_refused() -> None:
    module, spec, a, b, back = planted()
    with pytest.raises(ValueError, match="all three are needed"):
        diagnose(spec, a, b, back, module=module)
    with pytest.raises(ValueError, match="settings: at least one"):
        diagnose(spec, a, b, [])


def test_the_report_says_everything() -> None:
    pytest.importorskip("matplotlib", reason="reports need matplotlib")
    pytest.importorskip("jinja2", reason="reports need jinja2")
    module, spec, a, b, back = planted(noise=0.05)
    sweeps = lmcfast.weight_matching(spec, a, b).sweep_trace()
    found = diagnose(
        spec, a, b, [back, spec.identity()], module=module, batches=labelled(module), loss=cross_entropy,
        lambdas=3, sweeps=sweeps,
    )  # fmt: skip
    page = report_page(found, "one.safetensors", "two.safetensors", ["a note on reading"])
    titles = [section.title for section in page.sections]
    assert titles == [
        "Verdict", "Loss on the line", "Distance", "Singular vectors", "Layer by layer", "Singular values",
        "What the layers see", "The search", "How it was measured",
    ]  # fmt: skip
    html = render_page(page)
    assert "a note on reading" in html
    assert html.count("<img ") == 8
    assert "±" in html
    alone = report_page(diagnose(spec, a, b, back))
    assert "±" not in render_page(alone)
    assert [section.title for section in alone.sections] == [*titles[:1], *titles[2:6], titles[-1]]


def test_the_figures_are_json() -> None:
    module, spec, a, b, back = planted(noise=0.1)
    found = diagnose(spec, a, b, back, module=module, batches=labelled(module), loss=cross_entropy, lambdas=3)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["verdict"]["measured"] is True
    assert document["alignment"][1]["gamma"] == 0.3
    assert document["data"]["with"][0]["midpoint"] == pytest.approx(found.behaviour.aligned[0].midpoint)


def test_layers_that_are_dead_or_alike_do_no_harm() -> None:
    """A network of zeros, and one against itself."""
    module = randomize(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), 0)
    a = dict(module.state_dict())
    zero = {name: torch.zeros_like(tensor) for name, tensor in a.items()}
    spec = lmcfast.spec_from_params(a).bind(a)
    for ends in ((a, a), (a, zero), (zero, zero)):
        found = diagnose(spec, *ends, spec.identity())
        document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert document["verdict"]["measured"] is False
        pytest.importorskip("matplotlib", reason="reports need matplotlib")
        assert report_page(found).sections
