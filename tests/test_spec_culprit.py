"""The search for a wrong axis ends when its time is spent, and says what is known by then."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from helpers import networks
from torch import Tensor

from lmcfast.spec import PermutationSpec, culprit, format_layout, spec_from_params
from lmcfast.spec.trial import Trial


@pytest.fixture(scope="module")
def trial() -> Trial:
    """A network of 41 hidden layers, and a spec in which its outputs move as well."""
    module = networks.mlp((5,) * 43)
    spec = spec_from_params(networks.params_of(module))
    axes: dict[str, list[str | None]] = {
        name: [format_layout(layout) for layout in layouts] for name, layouts in spec.axes.items()
    }
    axes["82.weight"][0] = axes["82.bias"][0] = "out"
    return Trial(PermutationSpec.from_axes(axes), module, networks.inputs(4, 5), None, None)


@pytest.mark.parametrize(
    ("seconds", "group", "message"),
    [
        (0, None, "when all groups move; in 0 s 0 of the 42 were moved alone"),
        (4, None, "when all groups move; in 4 s 0 of the 42 were moved alone"),
        (40, "out", r"when group 'out' moves: which axis is wrong was not found in 40 s \('out' stands at 82.weight"),
        (10_000, "out", "when group 'out' moves: it must not move"),
    ],
)
def test_the_search_has_a_budget(
    trial: Trial, seconds: float, group: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on by a second at every look, so that there are at least as many looks as forward passes."""
    clock = itertools.count()
    monkeypatch.setattr(culprit, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    passes = 0

    def counted(params: Mapping[str, Tensor]) -> float:
        nonlocal passes
        passes += 1
        return Trial.error(trial, params)

    monkeypatch.setattr(trial, "error", counted)
    error = culprit.find_culprit(trial, trial.spec.random_permutations(1), 0.5, seconds)
    assert error.group == group
    assert re.search(message, str(error))
    assert passes <= seconds
