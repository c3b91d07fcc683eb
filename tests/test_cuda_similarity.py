"""Grouped products on a device against float64, in every layout that a tensor of a network is read in.

Bounds are shares of sum |a b|, the sum of the magnitudes of the products. float32 storage is multiplied as three TF32
products, 16-bit storage exactly; what is left is the rounding of sums.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.device import emulated_only, kernels, needs_kernels, to_device
from helpers.memory import lazy

from lmcfast import _native
from lmcfast.terms import GroupedProducts, ScoreSum, Term, accumulate, accumulate_all, accumulate_ref, plan

pytestmark = needs_kernels

BOUNDS = {torch.float32: 5e-7, torch.bfloat16: 5e-7, torch.float16: 5e-7, torch.float64: 5e-15}
DTYPES = list(BOUNDS)


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return to_device(torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype))


def shuffled(count: int, seed: int) -> torch.Tensor:
    return to_device(torch.randperm(count, generator=torch.Generator().manual_seed(seed)))


def error(found: torch.Tensor, terms: list[Term], n: int, before: torch.Tensor | None = None) -> float:
    """The largest error as a share of the sum of magnitudes."""
    exact = accumulate_ref(terms, n)
    sizes = torch.zeros_like(exact)
    for a, b, weight in ((*term.matrices(), term.weight) for term in terms):
        sizes += abs(weight) * (a.double().abs().cpu() @ b.double().abs().cpu().T)
    if before is not None:
        exact, sizes = exact + before.double().cpu(), sizes + before.double().abs().cpu()
    off = (found.double().cpu() - exact).abs()
    assert bool((off[sizes == 0] == 0).all())
    return float((off / sizes.clamp_min(1e-300)).max()) if off.numel() else 0.0


def formed(sums: list[ScoreSum], tensor_cores: bool = True) -> list[torch.Tensor]:
    with kernels():
        return GroupedProducts(sums, tensor_cores).run()


# ---- shapes, layouts, storage


@pytest.mark.parametrize("tensor_cores", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "depth"), [(1, 1), (2, 17), (63, 33), (64, 32), (65, 100)])
def test_any_size_and_storage(n, depth, dtype, tensor_cores):
    terms = [Term(normal(n, depth, seed=n, dtype=dtype), normal(n, depth, seed=depth + 100, dtype=dtype))]
    (found,) = formed([ScoreSum(terms, n)], tensor_cores)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert error(found, terms, n) <= BOUNDS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_of_a_tensor(dtype):
    """The axes of a convolution (O, 9, I), each as units, with a permutation of the other; parts of a tensor."""
    o, k, i = 21, 9, 35
    a, b = normal(o, k, i, seed=1, dtype=dtype), normal(o, k, i, seed=2, dtype=dtype)
    rows, columns = shuffled(o, 3), shuffled(i, 4)
    outputs = [Term(a, b, 1.0, None, columns), Term(a.flip(1).reshape(o, k * i), b, 0.5)]
    inputs = [Term(a.permute(2, 1, 0), b.permute(2, 1, 0), 2.0, None, rows)]
    some = [Term(a[::2, 0, 3:20], b[::2, 8, 10:27]), Term(a[1:12, :, 5], b[3:14, :, 6], -1.0)]
    found = formed([ScoreSum(outputs, o), ScoreSum(inputs, i), ScoreSum(some, 11)])
    for scores, terms, n in zip(found, [outputs, inputs, some], [o, i, 11], strict=True):
        assert error(scores, terms, n) <= BOUNDS[dtype]


def test_negative_zero_and_wide_strides():
    n, depth = 20, 40
    storage = normal(4 * n * depth, seed=5)
    flat = storage.cpu().numpy()
    once = storage[:n].reshape(n, 1).expand(n, depth)  # the same number at every depth
    wide = storage.as_strided((n, depth), (3 * depth, 3))
    terms = [Term(once, wide), Term(wide.T[:n, :7], wide[:, 3:10])]
    (found,) = formed([ScoreSum(terms, n)])
    assert error(found, terms, n) <= BOUNDS[torch.float32]
    assert np.array_equal(flat, storage.cpu().numpy())


def test_16_bit_products_are_exact():
    n, depth = 40, 24
    a, b = (to_device(torch.randint(-9, 9, (n, depth), generator=torch.Generator().manual_seed(s))) for s in (1, 2))
    for dtype in (torch.bfloat16, torch.float16):
        (found,) = formed([ScoreSum([Term(a.to(dtype), b.to(dtype), 0.25)], n)])
        assert torch.equal(found, 0.25 * (a.float() @ b.float().T))
    tiny = torch.full((1, 1), 2.0**-24, dtype=torch.float16)  # below the normal numbers
    (found,) = formed([ScoreSum([Term(to_device(tiny), to_device(tiny))], 1)])
    assert float(found) == 2.0**-48


def test_storage_is_mixed():
    n, depth = 30, 50
    pairs = [(torch.bfloat16, torch.float32), (torch.float16, torch.bfloat16), (torch.float32, torch.float64)]
    for k, (first, second) in enumerate(pairs):
        terms = [Term(normal(n, depth, seed=k, dtype=first), normal(n, depth, seed=9 + k, dtype=second))]
        (found,) = formed([ScoreSum(terms, n)])
        assert found.dtype == (torch.float64 if k == 2 else torch.float32)
        assert error(found, terms, n) <= BOUNDS[found.dtype]


@pytest.mark.parametrize("tensor_cores", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("depth", [6000, 28672])
def test_long_sums_of_one_sign_are_not_biased(dtype, tensor_cores, depth):
    """Where every addition rounds a growing sum: the tensor cores' truncation and long chains would show here."""
    n = 64
    terms = [Term(normal(n, depth, seed=1).abs().to(dtype), normal(n, depth, seed=2).abs().to(dtype))]
    (found,) = formed([ScoreSum(terms, n)], tensor_cores)
    assert error(found, terms, n) <= BOUNDS[dtype]


def test_float64_sums_of_float32_storage():
    terms = [Term(normal(33, 70, seed=1), normal(33, 70, seed=2), 1 / 3)]
    with kernels():
        found = accumulate(terms, 33, precision="float64")
    assert found.dtype == torch.float64
    assert error(found, terms, 33) <= BOUNDS[torch.float64]


# ---- many groups, accumulation, updates


def test_ragged_groups_share_a_launch():
    sizes = [5, 0, 130, 1, 64, 65, 0, 2]
    sums = []
    for k, n in enumerate(sizes):
        depths = [3, 0, 40][: k % 3 + 1]
        terms = [Term(normal(n, d, seed=k), normal(d, n, seed=k + 50).T, 1.0 - k, None, shuffled(d, k)) for d in depths]
        sums.append(ScoreSum(terms, n))
    sums.append(ScoreSum([], 7))
    with kernels():
        if _native.is_emulating():
            _native._emulated_module().reset_counters()
        found = accumulate_all(sums)
        if _native.is_emulating():
            assert _native._emulated_module().counters()["launches"] == 1
    for scores, entry in zip(found, sums, strict=True):
        assert scores.shape == (entry.n, entry.n)
        assert error(scores, list(entry.terms), entry.n) <= BOUNDS[torch.float32]
    assert not found[-1].any()


def test_accumulating_into_strided_memory_touches_nothing_else():
    n = 37
    whole = normal(2 * n, 3 * n, seed=3)
    before = whole.clone()
    for out in (whole[:n, : 3 * n : 3], whole[n : 2 * n, n : 2 * n].T):
        start = out.clone()
        terms = [Term(normal(n, 20, seed=4), normal(n, 20, seed=5), -0.7)]
        with kernels():
            assert accumulate(terms, n, out=out) is out
        assert error(out, terms, n, start) <= BOUNDS[torch.float32]
    before[:n, ::3], before[n:, n : 2 * n] = whole[:n, ::3], whole[n:, n : 2 * n]
    assert torch.equal(before, whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_update_of_some_columns(dtype):
    """S += A[:, c] (B[:, new] - B[:, old])^T gives the scores of B with those columns moved."""
    n, k, positions = 40, 3, 50
    a, b = normal(n, k, positions, seed=1, dtype=dtype), normal(n, k, positions, seed=2, dtype=dtype)
    old = shuffled(positions, 3)
    moved = shuffled(positions, 4)[:12]
    new = old.clone()
    new[moved] = old[moved.roll(1)]
    with kernels():
        scores = accumulate([Term(a, b, 1.0, None, old)], n)
        update = [Term(a, b, 1.0, moved, new[moved]), Term(a, b, -1.0, moved, old[moved])]
        accumulate(update, n, out=scores)
    expected = [Term(a, b, 1.0, None, new)]
    assert error(scores, expected, n) <= 3 * BOUNDS[dtype]


def test_a_plan_runs_again_with_other_values():
    n, depth = 20, 30
    a, b, index = normal(n, depth, seed=1), normal(n, depth, seed=2), shuffled(depth, 3)
    terms = [Term(a, b, 1.0, None, index)]
    with kernels():
        products = GroupedProducts([ScoreSum(terms, n)])
        first = products.run()[0].clone()
        index.copy_(shuffled(depth, 4))
        a.mul_(2.0)
        second = products.run()[0]
    assert not torch.equal(first, second)
    assert error(second, terms, n) <= BOUNDS[torch.float32]


# ---- extremes


@emulated_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offsets_beyond_31_bits(dtype):
    n, depth, stride = 64, 20, 2**26
    far = lazy(n * stride, dtype)
    a, b = normal(n, depth, seed=1, dtype=dtype), normal(n, depth, seed=2, dtype=dtype)
    rows = far.as_strided((n, depth), (stride, 1))
    rows.copy_(b)
    plain = [Term(a, rows)]
    whole = far.as_strided((n, stride), (stride, 1))
    gathered = [Term(a[:, 5:20].contiguous(), whole, 1.0, None, torch.arange(5, 20))]
    found = formed([ScoreSum(plain, n), ScoreSum(gathered, n)])
    assert error(found[0], plain, n) <= BOUNDS[dtype]
    assert error(found[1], gathered, n) <= BOUNDS[dtype]
    deep = [Term(a.T[:, :60].contiguous(), rows.T[:, :60])]  # the far stride along the depth
    assert error(formed([ScoreSum(deep, depth)])[0], deep, depth) <= BOUNDS[dtype]


@emulated_only
def test_a_far_result():
    n, stride = 64, 2**26
    out = lazy(n * stride, torch.float32).as_strided((n, n), (stride, 1))
    terms = [Term(normal(n, 5, seed=1), normal(n, 5, seed=2))]
    with kernels():
        accumulate(terms, n, out=out)
    assert error(out, terms, n) <= BOUNDS[torch.float32]


@emulated_only
@pytest.mark.parametrize("seed", range(1, 6))
def test_no_schedule_changes_a_bit(seed):
    terms = [Term(normal(70, 60, seed=1), normal(70, 60, seed=2), 1.0, None, shuffled(60, 3))]
    half = [replace(term, a=term.a.bfloat16(), b=term.b.bfloat16()) for term in terms]
    sums = [ScoreSum(terms, 70), ScoreSum(half, 70)]
    expected = formed(sums)
    module = _native._emulated_module()
    module.configure(seed=seed, residency=1 + seed % 3)
    try:
        found = formed(sums)
    finally:
        module.configure()
    assert all(map(torch.equal, expected, found))


def test_infinities_and_nan_reach_the_scores():
    a, b = normal(3, 4, seed=1), normal(3, 4, seed=2)
    a[1, 2] = float("nan")
    (found,) = formed([ScoreSum([Term(a, b)], 3)])
    assert bool(found[1].isnan().all())
    assert bool(found[[0, 2]].isfinite().all())


# ---- who multiplies


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_terms_go_to_torch_and_give_the_same(dtype, monkeypatch):
    n = 40
    terms = [
        Term(normal(n, 30, seed=1, dtype=dtype), normal(n, 30, seed=2, dtype=dtype)),
        Term(normal(n, 5, 60, seed=3, dtype=dtype), normal(n, 5, 60, seed=4, dtype=dtype), 0.5, None, shuffled(60, 5)),
    ]
    monkeypatch.setattr(plan, "NARROW", 8)
    for bound, launches in [(1, 0), (n * n * 100, 1), (1 << 40, 1)]:
        monkeypatch.setattr(plan, "LARGE", dict.fromkeys(plan.LARGE, bound))
        with kernels():
            if _native.is_emulating():
                _native._emulated_module().reset_counters()
            (found,) = accumulate_all([ScoreSum(terms, n)])
            if _native.is_emulating():
                assert _native._emulated_module().counters()["launches"] == launches
        assert error(found, terms, n) <= BOUNDS[dtype]


def test_the_rule_between_kernel_and_torch():
    big = Term(torch.empty(4096, 4096, device="meta"), torch.empty(4096, 4096, device="meta"))
    thin = Term(torch.empty(28672, 64, device="meta"), torch.empty(28672, 64, device="meta"))
    assert plan.is_large(big, 4096, torch.float32)
    assert not plan.is_large(thin, 28672, torch.float32)
    assert set(plan.LARGE) == set(DTYPES)


def test_what_would_read_out_of_bounds_is_refused():
    a, b = normal(4, 6, seed=1), normal(4, 6, seed=2)
    cases = [
        (ScoreSum([Term(a, b)], 5), "expected 5 units"),
        (ScoreSum([Term(a, b[:, :5])], 4), "1 blocks of 6 positions"),
        (ScoreSum([Term(a, b)], 4, out=torch.zeros(4, 5)), r"out: expected \(4, 4\)"),
        (ScoreSum([Term(a, b.double())], 4, out=to_device(torch.zeros(4, 4))), "stored as float64"),
        (ScoreSum([Term(a, b, 1.0, None, to_device(torch.arange(6, dtype=torch.int32)))], 4), "int64 index"),
        (ScoreSum([Term(a, b.to(torch.int64))], 4), "real floating numbers"),
    ]
    for entry, message in cases:
        with pytest.raises(ValueError, match=message):
            formed([entry])
