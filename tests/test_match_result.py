"""The result of a matching: figures, text, files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from helpers import networks

import lmcfast
from lmcfast.spec import spec_from_params


def match() -> tuple[lmcfast.MatchResult, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    a, b = (networks.params_of(networks.vgg(seed=seed)) for seed in (1, 2))
    return lmcfast.weight_matching(spec_from_params(a), a, b), a, b


def test_the_objective_is_half_of_what_the_distance_loses() -> None:
    """|A - pi(B)|^2 = |A|^2 + |B|^2 - 2 objective."""
    result, a, b = match()
    counted = [name for name in result.spec.axes if name not in result.spec.buffers]
    norms = sum(float(params[name].double().square().sum()) for name in counted for params in (a, b))
    assert result.distance_after is not None
    assert result.distance_after**2 == pytest.approx(norms - 2 * result.objective, rel=1e-12)
    assert result.distance_after == pytest.approx(lmcfast.distance(result.spec, a, result.apply(b)), rel=1e-12)
    assert result.distance_before == pytest.approx(lmcfast.distance(result.spec, a, b), rel=1e-12)
    assert result.distance_after < result.distance_before


def test_apply_moves_b() -> None:
    result, _, b = match()
    moved, expected = result.apply(b), lmcfast.apply_permutations(result.spec, result.permutations, b)
    assert list(moved) == list(b)
    assert all(torch.equal(moved[name], expected[name]) for name in b)
    module = networks.vgg(seed=2).double()
    x = networks.inputs(2, 3, 8, 8).double()
    before = module(x)
    module.load_state_dict(moved)
    torch.testing.assert_close(module.double()(x), before, rtol=1e-5, atol=1e-5)


def test_text_is_one_line_and_the_trace_is_a_table() -> None:
    result, _, _ = match()
    assert str(result) == repr(result)
    assert "\n" not in str(result)
    for part in ("groups", "objective", "distance", "converged after", "gap"):
        assert part in str(result)
    lines = result.trace_table().splitlines()
    assert len(lines) == len(result.trace) + 1
    assert lines[0].split() == ["sweep", "group", "kind", "changed", "gain", "objective", "gap", "ms"]
    assert len({line.index("start") for line in lines[1:] if " start " in line}) <= 2
    assert set(asdict(result.trace[1])) >= {"sweep", "group", "kind", "changed", "gain", "objective", "gap", "seconds"}
    with pytest.raises(AttributeError):
        result.trace[0].gain = 1.0  # type: ignore[misc]


def test_permutations_are_int64_on_the_cpu_for_every_group() -> None:
    result, _, _ = match()
    assert list(result.permutations) == list(result.spec.groups)
    for group, permutation in result.permutations.items():
        assert permutation.dtype == torch.int64
        assert permutation.device.type == "cpu"
        assert torch.equal(permutation.sort().values, torch.arange(result.spec.sizes[group]))


def test_save_and_load(tmp_path: Path) -> None:
    result, _, b = match()
    path = tmp_path / "p.safetensors"
    result.save(path, sources={"a": "0" * 64, "b": "1" * 64})
    loaded = lmcfast.load_permutations(path)
    assert loaded.spec == result.spec
    assert loaded.objective == result.objective
    assert loaded.gap == result.gap
    assert loaded.converged is None
    assert loaded.distance_after is None
    assert "from a file" in str(loaded)
    assert all(torch.equal(loaded.permutations[group], result.permutations[group]) for group in result.permutations)
    moved = loaded.apply(b)
    assert all(torch.equal(tensor, moved[name]) for name, tensor in result.apply(b).items())


def test_a_file_that_is_no_permutation_file(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(lmcfast.CheckpointError, match=r"p\.safetensors"):
        lmcfast.load_permutations(path)
