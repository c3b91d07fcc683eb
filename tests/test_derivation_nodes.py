"""The node check names the operator whose rule is wrong, and nothing where all are right."""

from __future__ import annotations

import pytest
import torch
from helpers import networks
from helpers.program_steps import Program
from torch import Tensor, nn

from lmcfast.spec.derivation import rules
from lmcfast.spec.derivation.derivation import Derivation
from lmcfast.spec.derivation.node_check import wrong_nodes
from lmcfast.spec.derivation.tracing import trace


class Reversed(nn.Module):
    """Units meet themselves in another order: they must not move."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(5, 6)
        self.leave = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(torch.relu(x.flip(-1) + 2.0 * x))


def test_wrong_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = Reversed(), networks.inputs(4, 5)
    assert wrong_nodes(Derivation(trace(module, x)), module, x) == []
    monkeypatch.setitem(rules.RULES, "flip", rules.RULES["relu"])  # as if a flip kept its units in place
    found = wrong_nodes(Derivation(trace(module, x)), module, x)
    assert found, "the wrong rule was not noticed"
    assert found[0].name == "flip"
    assert found[0].error > 1e-3


@pytest.mark.parametrize("seed", range(12))
def test_all_nodes_of_random_programs_hold(seed: int) -> None:
    program = Program(seed, 15)
    x = program.example()
    derivation = Derivation(trace(program, x))
    assert wrong_nodes(derivation, program, x, seed=seed) == []
