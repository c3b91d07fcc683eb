"""Visits of families from files: what they find is what the matching of whole networks finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.folders import MIXTRAL, NETWORKS, random_params, write_folder

import lmcfast
from lmcfast.io.shards import LazyCheckpoint
from lmcfast.merging.families import Family, families, residual_groups, roles_of
from lmcfast.merging.seen import Model, read_placed
from lmcfast.merging.sources import bind, seen_alike
from lmcfast.merging.stacked import is_stacked
from lmcfast.merging.visits import visit
from lmcfast.spec.tables.by_config import table_for

Pair = tuple[lmcfast.PermutationSpec, Model, Model, dict[str, torch.Tensor], dict[str, torch.Tensor]]


@pytest.fixture(params=list(NETWORKS))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Unrelated networks, as files and as state dicts."""
    config, keys = NETWORKS[request.param]
    spec = table_for(config)
    params = [random_params(spec, seed) for seed in (0, 1)]
    for name, some in zip("ab", params, strict=True):
        write_folder(tmp_path / name, config, keys(some), 2)
    with LazyCheckpoint(tmp_path / "a") as a, LazyCheckpoint(tmp_path / "b") as b:
        bound, first = bind(spec, a)
        yield bound, first, seen_alike(first, b), params[0], params[1]


def kept_families(spec: lmcfast.PermutationSpec) -> tuple[Family, ...]:
    streams = residual_groups(spec)
    assert streams == ("stream",)
    return families(spec, [name for name in spec.movable_groups if name not in streams])


def test_a_visit_is_what_weight_matching_does(pair: Pair) -> None:
    spec, a, b, params_a, params_b = pair
    for family in kept_families(spec):
        found = visit(family, a, b)
        own = {name: params_a[name] for name in family.tensors}, {name: params_b[name] for name in family.tensors}
        wanted = lmcfast.weight_matching(family.spec, *own)
        assert found.after == pytest.approx(wanted.objective, rel=1e-5)
        assert found.before == pytest.approx(wanted.starts["identity"], abs=1e-3)
        assert found.distances[0] == pytest.approx(wanted.distance_before, rel=1e-5)
        assert found.distances[1] == pytest.approx(wanted.distance_after, rel=1e-5)
        setting = {**family.spec.identity(), **found.permutations}
        placed = lmcfast.apply_permutations(family.spec, setting, own[1])
        assert lmcfast.distance(family.spec, own[0], placed) == pytest.approx(found.distances[1], rel=1e-5)


def test_every_key_moves_as_its_tensor_does(pair: Pair) -> None:
    spec, a, _, params, _ = pair
    setting = spec.random_permutations(3)
    keys = {key: a.files.read(entry) for key, entry in a.files.entries.items()}
    wanted = a.names.to_checkpoint(lmcfast.apply_permutations(spec, setting, params), keys)
    for key in a.slots:
        assert torch.equal(read_placed(a, key, setting), wanted[key]), key


def test_experts_in_single_keys_are_matched_a_pair_at_a_time(tmp_path: Path) -> None:
    config, keys = NETWORKS["mixtral"]
    spec = table_for(MIXTRAL)
    write_folder(tmp_path / "a", config, keys(random_params(spec, 0)))
    with LazyCheckpoint(tmp_path / "a") as a:
        bound, model = bind(spec, a)
        stacked = {family.name: is_stacked(family, model) for family in kept_families(bound)}
        assert stacked == {"kv.0": False, "expert.0": True, "kv.1": False, "expert.1": True}
        (held, *_) = families(bound, ["unit.0"])
        assert is_stacked(held, model)
        found = visit(held, model, model)
        assert (found.moved, found.units) == (0, 3 * 24)
        assert found.before == found.after


@pytest.mark.parametrize("name", list(NETWORKS))
def test_parts_that_groups_play(name: str) -> None:
    spec = table_for(NETWORKS[name][0])
    roles = roles_of(spec, residual_groups(spec))
    wanted = {
        "llama": {"stream": "residual", "kv.0": "kv", "q.0": "heads", "v.0": "heads", "mlp.0": "ffn"},
        "gpt2": {"stream": "residual", "head.0": "heads", "qk.0": "heads", "v.0": "heads", "mlp.0": "ffn"},
        "mixtral": {"stream": "residual", "kv.0": "kv", "q.0": "heads", "expert.0": "experts", "unit.0": "ffn"},
    }[name]
    assert {group: roles[group] for group in wanted} == wanted


def test_a_chain_has_no_residual_stream() -> None:
    params = {"0.weight": torch.ones(8, 4), "2.weight": torch.ones(6, 8), "4.weight": torch.ones(3, 6)}
    params |= {f"{k}.bias": torch.ones(n) for k, n in ((0, 8), (2, 6), (4, 3))}
    spec = lmcfast.spec_from_params(params).bind(params)
    assert residual_groups(spec) == ()
    assert len(families(spec, spec.movable_groups)) == 1
