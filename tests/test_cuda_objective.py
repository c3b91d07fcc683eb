"""Float64 inner products and magnitudes on a device, against sums that are rounded once."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.device import emulated_only, kernels, needs_kernels, to_device
from helpers.memory import lazy

from lmcfast import _native
from lmcfast.terms import Inner, View, inner_products, magnitudes
from lmcfast.terms.inner import ADDITIONS, inner_products_ref

pytestmark = needs_kernels

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return to_device(torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype))


def shuffled(count: int, seed: int) -> torch.Tensor:
    return to_device(torch.randperm(count, generator=torch.Generator().manual_seed(seed)))


def check(products: list[Inner]) -> torch.Tensor:
    with kernels():
        found = inner_products(products).cpu()
    exact = inner_products_ref(products)
    for value, reference, product in zip(found.tolist(), exact.tolist(), products, strict=True):
        b = product.b.gathered().double()
        if product.less is not None:
            b = b - product.less.gathered().double()
        size = float((product.a.gathered().double() * b).abs().sum())
        assert abs(value - reference) <= 1.01 * ADDITIONS * 2.0**-53 * size
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_shape_and_gather(dtype):
    a, b = normal(23, 4, 31, seed=1, dtype=dtype), normal(23, 4, 31, seed=2, dtype=dtype)
    rows, columns = shuffled(23, 3), shuffled(31, 4)
    vector = normal(77, seed=5, dtype=dtype)
    check(
        [
            Inner(View(a), View(b)),
            Inner(View(a), View(b, (rows, None, columns))),
            Inner(View(a, (rows[:5], None, None)), View(b, (rows[5:10], None, columns))),
            Inner(View(a.permute(2, 0, 1)), View(b.permute(2, 0, 1), (None, rows, None))),
            Inner(View(a[0].T), View(b[3].T, (columns, None))),
            Inner(View(vector), View(vector.flip(0), (shuffled(77, 6),))),
            Inner(View(vector[:0]), View(vector[:0])),
            Inner(View(vector[5]), View(vector[6])),
            Inner(View(a[:, :, :0]), View(b[:, :, :0])),
        ]
    )


def test_the_gain_of_a_step():
    """<a, b_new - b_old> over the units that move: exact where the difference is far below the inner products."""
    a, b = normal(40, 30, seed=1), normal(40, 30, seed=2) * 1e-3 + 1e3
    old = shuffled(40, 3)
    units = shuffled(40, 4)[:2]
    source = units.flip(0)
    views = [View(b, (old[source], None)), View(b, (old[units], None))]
    check([Inner(View(a, (units, None)), views[0], views[1]), Inner(View(a, (units, None)), views[0], views[0])])


def test_long_sums_and_several_chunks():
    long = normal(3 * 8192 + 5, seed=1).abs()
    found = check([Inner(View(long), View(long)), Inner(View(long[:8192]), View(long[:8192]))])
    assert found[0] > found[1]


def test_cancellation_between_chunks_is_exact():
    """A large sum in one chunk and its negative in another leave what stands between them, whatever its size."""
    numbers = torch.zeros(3 * 8192, dtype=torch.float64)
    numbers[0], numbers[8192], numbers[-1] = 1e30, 1.0, -1e30
    with kernels():
        found = inner_products([Inner(View(to_device(numbers)), View(to_device(torch.ones(3 * 8192))))])
    assert float(found) == 1.0


@emulated_only
def test_no_schedule_changes_a_bit():
    products = [Inner(View(normal(50, 400, seed=1)), View(normal(50, 400, seed=2), (shuffled(50, 3), None)))]
    module = _native._emulated_module()
    with kernels():
        expected = inner_products(products)
        for seed in range(1, 4):
            module.configure(seed=seed)
            try:
                assert torch.equal(inner_products(products), expected)
            finally:
                module.configure()


@emulated_only
def test_offsets_beyond_31_bits():
    far = lazy(64 * 2**26, torch.bfloat16).as_strided((64, 10), (2**26, 1))
    far.copy_(normal(64, 10, seed=1))
    far[63, 4] = float("nan")
    near = normal(64, 10, seed=2)
    check([Inner(View(near[:63]), View(far[:63])), Inner(View(near[:60].T), View(far[:60].T, (shuffled(10, 3), None)))])
    with kernels():
        assert magnitudes([far])[1].tolist() == [634]


@pytest.mark.parametrize("dtype", DTYPES)
def test_magnitudes_and_the_first_number_that_is_not_finite(dtype):
    tensors = [normal(*shape, seed=k, dtype=dtype) for k, shape in enumerate([(9000,), (40, 30), (5, 6, 7, 8), (0, 3)])]
    tensors += [
        torch.tensor(-3.0, dtype=dtype),
        tensors[1].T,
        tensors[1].clone(),
        tensors[1].clone().T,
        tensors[0].clone(),
    ]
    tensors = [to_device(tensor) for tensor in tensors]
    tensors[6][7, 3] = float("-inf")
    tensors[6][9, 1] = float("nan")
    tensors[7][3, 7] = float("nan")
    tensors[8].fill_(float("nan"))
    with kernels():
        largest, first = (values.tolist() for values in magnitudes(tensors))
    for k, tensor in enumerate(tensors):
        finite = tensor[tensor.isfinite()].double().abs()
        assert largest[k] == (float(finite.max()) if finite.numel() else 0.0)
    assert first == [-1, -1, -1, -1, -1, -1, 7 * 30 + 3, 3 * 40 + 7, 0]


def test_nothing_to_do_and_wrong_arguments():
    with kernels():
        assert inner_products([]).shape == (0,)
        assert [values.shape for values in magnitudes([])] == [(0,), (0,)]
        a = normal(3, 4, seed=1)
        with pytest.raises(ValueError, match=r"numbers of shape \(3, 4\)"):
            inner_products([Inner(View(a), View(a.T))])
        with pytest.raises(ValueError, match="int64 index"):
            inner_products([Inner(View(a), View(a, (None, to_device(torch.arange(4, dtype=torch.int32)))))])
        with pytest.raises(ValueError, match="complex64"):
            inner_products([Inner(View(a), View(a.to(torch.complex64)))])


def test_the_reference_is_a_sum_rounded_once():
    values = torch.tensor([1e20, 1.0, -1e20], dtype=torch.float64)
    assert inner_products_ref([Inner(View(values), View(torch.ones(3)))]).tolist() == [math.fsum([1e20, 1.0, -1e20])]
