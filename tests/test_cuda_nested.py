"""Weight matching of nested groups with the tensors on a device: the objective of the processor's path."""

from __future__ import annotations

import pytest
from helpers import nests
from helpers.device import ON_GPU, kernels, needs_kernels
from helpers.matching import noisy, plain_objective

import lmcfast
from lmcfast import weight_matching

pytestmark = needs_kernels

NETWORKS = {
    "gpt2": lambda: nests.gpt2(2, 24, 3),
    "grouped heads": lambda: nests.llama(1, 24, 2, 2, 6, rotary=False),
    "experts": lambda: nests.mixtral(1, 24, 3, 10, 2),
    "grouped convolutions": lambda: nests.resnext(2, 24, 4, 3),
}


@pytest.mark.parametrize("table_bytes", [0, 1 << 26])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_device_ends_where_the_processor_does(name: str, table_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmcfast.matching.nested_scores.TABLE_BYTES", table_bytes)
    spec = NETWORKS[name]()
    a = nests.random_params(spec, 1)
    hidden = spec.random_permutations(5)
    b = lmcfast.apply_permutations(spec, hidden, noisy(a, 0.1, 2))
    here = weight_matching(spec, a, b)
    with kernels():
        there = weight_matching(spec, a, b, device="cuda" if ON_GPU else None)
    assert there.objective == pytest.approx(here.objective, rel=1e-12)
    assert there.objective == pytest.approx(plain_objective(spec, there.permutations, a, b), rel=1e-12)
    assert there.exactness == here.exactness
    assert nests.same_settings(there.permutations, lmcfast.invert_permutations(spec, hidden))


def test_no_step_on_a_device_loses() -> None:
    """Unrelated weights: what is reported is the objective of the setting, and no step lowers it."""
    spec = nests.gpt2(1, 24, 3)
    a, b = (nests.random_params(spec, seed) for seed in (3, 4))
    with kernels():
        there = weight_matching(spec, a, b, device="cuda" if ON_GPU else None)
    assert there.objective == pytest.approx(plain_objective(spec, there.permutations, a, b), rel=1e-12)
    assert all(step.gain >= 0 for step in there.trace if step.kind == "step")
    assert there.objective >= plain_objective(spec, spec.identity(), a, b)
