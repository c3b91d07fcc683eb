"""Random programs: a derived spec leaves the output unchanged, whatever the operators."""

from __future__ import annotations

import os

import pytest
import torch
from helpers.program_steps import Program

from lmcfast.errors import SpecError
from lmcfast.spec import derive_spec, verify_spec

COUNT = int(os.environ.get("LMCFAST_FUZZ_PROGRAMS", "300"))
BATCHES = 10


def check(seed: int) -> tuple[int, int]:
    """Proves the spec of one program; returns how many groups it has and how many of them are nested."""
    program = Program(seed, steps=12 if seed % 2 else 18)
    example = program.example()
    spec = derive_spec(program, example)
    try:
        verify_spec(spec, program, example)
    except SpecError as error:
        raise AssertionError(f"program {seed}: {error}; its steps: {'; '.join(program.log)}") from error
    return len(spec.movable_groups), sum(bool(spec.groups[name].within) for name in spec.movable_groups)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_programs(batch: int) -> None:
    """``LMCFAST_FUZZ_PROGRAMS`` programs in all."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny
    try:
        found = [check(seed) for seed in range(batch, COUNT, BATCHES)]
    finally:
        torch.set_num_threads(threads)
    assert sum(groups for groups, _ in found) > 2 * len(found), "programs that leave nothing to move prove nothing"
    assert sum(nested for _, nested in found) > 0


@pytest.mark.long
def test_many_random_programs() -> None:
    for seed in range(COUNT, 5000):
        check(seed)


def test_programs_repeat_themselves() -> None:
    first, second = Program(5, 12), Program(5, 12)
    assert first.log == second.log
    assert torch.equal(first(first.example()), second(second.example()))


def test_what_no_layout_can_state_is_fixed() -> None:
    """A tensor of this program would need the arm of a concatenation that stands in none of its axes."""
    groups, _ = check(954)
    assert groups > 4
    program = Program(954, steps=18)
    reasons = {reason for entry in derive_spec(program, program.example()).why_fixed.values() for reason in entry}
    assert any(reason.startswith("no layout states how it moves") for reason in reasons)
