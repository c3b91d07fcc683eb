"""Score matrices within a memory budget: which chunks, how much they take, and that nothing is lost."""

from __future__ import annotations

import pytest
import torch

from lmcfast.terms import Term, accumulate_ref, accumulate_within, plan_chunks

CPU, META = torch.device("cpu"), torch.device("meta")


def term(n: int, *inner: int, dtype: torch.dtype = torch.float32, index: bool = False, device: str = "cpu") -> Term:
    if device == "meta":
        a, b = (torch.empty(n, *inner, dtype=dtype, device=META) for _ in range(2))
    else:
        generator = torch.Generator().manual_seed(n + sum(inner))
        a, b = (torch.randn(n, *inner, generator=generator).to(dtype) for _ in range(2))
    permutation = torch.randperm(inner[-1], generator=torch.Generator().manual_seed(3)) if index else None
    return Term(a, b, 0.5, None, permutation)


def covered(terms: list[Term], n: int, budget: int, device: torch.device = CPU) -> list[int]:
    """Checks a plan; the depth of each chunk."""
    depths = []
    at = 0
    for k, entry in enumerate(terms):
        lengths = entry.inner_shape()
        stop = 0
        while at < len(plan := plan_chunks(terms, n, device, budget)) and plan[at].term == k:
            chunk = plan[at]
            assert chunk.start == stop
            assert chunk.stop > chunk.start
            stop, at = chunk.stop, at + 1
            depths.append((chunk.stop - chunk.start) * lengths[1 - chunk.axis])
        assert stop == (0 if entry.depth == 0 else lengths[plan[at - 1].axis])
    assert at == len(plan_chunks(terms, n, device, budget))
    return depths


def test_a_group_of_28672_units_fits_8_gib():
    """Scores of 3.1 GiB; two layers of 28672 x 8192 in bfloat16 on another device pass through the rest."""
    n, budget = 28672, 8 << 30
    terms = [term(n, 8192, dtype=torch.bfloat16, device="meta") for _ in range(2)]
    depths = covered(terms, n, budget)
    assert sum(depths) == 2 * 8192
    assert all(4 * n * n + depth * n * 2 * (2 + 4) <= budget for depth in depths)
    assert len(depths) <= 4
    with pytest.raises(ValueError, match=r"budget is 3000000000 bytes; the scores of 28672 units take 3288334336"):
        plan_chunks(terms, n, CPU, 3_000_000_000)


@pytest.mark.parametrize("extra", [1, 3, 64, 1000, 10**6])
def test_every_depth_once_whatever_the_budget(extra):
    n = 10
    terms = [
        term(n, 100, index=True),
        term(n, 300, 2, dtype=torch.bfloat16),
        term(n, 2, 70, dtype=torch.float16, index=True),
        term(n, 0),
        term(n, 5),
    ]
    budget = 4 * n * n + 2 * n * 16 + extra * n * 16
    assert sum(covered(terms, n, budget)) == sum(entry.depth for entry in terms)
    found = accumulate_within(terms, n, CPU, budget)
    torch.testing.assert_close(found.double(), accumulate_ref(terms, n), rtol=1e-5, atol=1e-5)


def test_what_lies_there_and_needs_no_copy_costs_nothing():
    n = 50
    assert covered([term(n, 900)], n, 4 * n * n) == [900]
    with pytest.raises(ValueError, match="narrowest chunk of term 1"):
        plan_chunks([term(n, 900), term(n, 900, dtype=torch.float16)], n, CPU, 4 * n * n)
    assert covered([term(n, 900, dtype=torch.float64)], n, 8 * n * n) == [900]


def test_shapes_that_do_not_fit_are_named():
    n = 3
    for a, b, index in [((n, 4), (n, 5), None), ((n, 2, 3), (n, 3, 2), None), ((n, 2, 3), (n, 6), torch.arange(6))]:
        with pytest.raises(ValueError, match="blocks of"):
            Term(torch.ones(a), torch.ones(b), 1.0, None, index).inner_shape()
    split = Term(torch.ones(n, 6), torch.ones(n, 2, 3))
    assert split.inner_shape() == (2, 3)
    assert split.operands()[0].shape == (n, 2, 3)
