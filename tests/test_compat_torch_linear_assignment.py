"""``lmcfast.compat.torch_linear_assignment``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.device import kernels, needs_kernels, to_device
from scipy.optimize import linear_sum_assignment

from lmcfast.compat.torch_linear_assignment import assignment_to_indices, batch_linear_assignment


def test_the_example_of_its_readme():
    cost = torch.tensor([8, 4, 7, 5, 2, 3, 9, 6, 7, 9, 4, 8]).reshape(1, 4, 3)
    assignment = batch_linear_assignment(cost)
    assert assignment.dtype == torch.int64
    assert assignment.tolist() == [[0, 2, -1, 1]]
    rows, columns = assignment_to_indices(assignment)
    assert rows.tolist() == [[0, 1, 3]]
    assert columns.tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("shape", [(1, 20, 100), (5, 100, 20), (3, 12, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.float16])
def test_indices_are_scipys_on_ties_too(shape, dtype):
    cost = torch.from_numpy(np.random.default_rng(0).integers(-5, 5, shape)).to(dtype)
    rows, columns = assignment_to_indices(batch_linear_assignment(cost))
    for k in range(shape[0]):
        expected = linear_sum_assignment(cost[k].double().numpy())
        assert np.array_equal(rows[k], expected[0])
        assert np.array_equal(columns[k], expected[1])


def test_large_problems_have_the_least_sum():
    cost = torch.from_numpy(np.random.default_rng(0).random((2, 400, 500)))
    for matrix, columns in zip(cost.numpy(), batch_linear_assignment(cost).numpy(), strict=True):
        assert matrix[range(400), columns].sum() == pytest.approx(matrix[linear_sum_assignment(matrix)].sum())


@needs_kernels
def test_tensors_on_a_device_stay_there():
    cost = torch.from_numpy(np.random.default_rng(0).random((3, 6, 9)).astype(np.float32))
    with kernels():
        found = batch_linear_assignment(to_device(cost))
    assert found.device == to_device(cost).device
    assert torch.equal(found.cpu(), batch_linear_assignment(cost))


def test_empty_batches():
    found = batch_linear_assignment(torch.zeros(0, 5, 5))
    assert found.shape == (0, 5)
    rows, columns = assignment_to_indices(found)
    assert rows.shape == columns.shape == (0, 0)


def test_gradients_do_not_matter():
    assert batch_linear_assignment(torch.eye(3, requires_grad=True)[None]).shape == (1, 3)


def test_errors():
    with pytest.raises(ValueError, match=r"Need 3-dimensional tensor with shape \(B, W, T\)\."):
        batch_linear_assignment(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"Inconsistent matching sizes\."):
        assignment_to_indices(torch.tensor([[0, -1], [0, 1]]))
    with pytest.raises(ValueError, match="forbidden pairs"):
        batch_linear_assignment(torch.full((1, 2, 2), torch.inf))
