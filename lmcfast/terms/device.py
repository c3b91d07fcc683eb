"""Score matrices on a device: the tables of `csrc/include/lmcfast/cuda_similarity.h`, and who multiplies what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._native import device_module, dtype_code, upload
from .plan import is_large
from .precision import full_precision
from .term import ScoreSum, Term, working_dtype

Table = NDArray[np.int64]

MOST_DEPTH = 2**31 - 1


class GroupedProducts:
    """Score matrices that are formed together, once or many times.

    The tables of addresses are on the device when the object is made; :meth:`run` only enqueues on the caller's stream,
    so it can be captured in a CUDA graph. Between runs operands and indices (contiguous ones) may change their values.
    The tensors of the sums live as long as the object.

    ``tensor_cores=False`` forms float32 sums by plain arithmetic; for tests and measurements.
    """

    def __init__(self, sums: Sequence[ScoreSum], tensor_cores: bool = True) -> None:
        self._sums = list(sums)
        self._tensor_cores = tensor_cores
        self.device = next(term.a.device for entry in sums for term in entry.terms)
        self.results: list[torch.Tensor] = []
        self._large: list[tuple[int, Term, bool]] = []  # sum, term, whether it adds to what is there
        groups: dict[torch.dtype, list[tuple[int, bool, list[Term]]]] = {}
        for k, entry in enumerate(self._sums):
            _check(entry, self.device)
            dtype = working_dtype(entry.terms, entry.precision) if entry.out is None else entry.out.dtype
            out = torch.empty((entry.n, entry.n), dtype=dtype, device=self.device) if entry.out is None else entry.out
            self.results.append(out)
            kind = products_of(entry.terms, dtype)
            small = [term for term in entry.terms if not is_large(term, entry.n, kind)]
            keep = entry.out is not None
            if small or not entry.terms:
                groups.setdefault(kind, []).append((k, keep, small))
                keep = True
            for term in entry.terms:
                if is_large(term, entry.n, kind):
                    self._large.append((k, term, keep))
                    keep = True
        with device_module(self.device) as (module, _):
            self._launches = [_Tables(module, self, kind, entries) for kind, entries in groups.items()]

    @property
    def launches(self) -> int:
        """Kernels of a run, a large product of torch's counted as one."""
        return len(self._launches) + len(self._large)

    @property
    def gathered(self) -> int:
        """Bytes that a run copies to gather operands of large products."""
        operands = [pair for _, t, _ in self._large for pair in ((t.a, t.index_a, t.depth), (t.b, t.index_b, t.depth))]
        return sum(x.shape[0] * depth * x.itemsize for x, index, depth in operands if index is not None)

    def run(self) -> list[torch.Tensor]:
        """Enqueue. Returns the score matrices, the same tensors on every run."""
        with device_module(self.device) as (module, stream):
            for tables in self._launches:
                tables.launch(module, self._tensor_cores, stream)
        if self._large:
            with full_precision():
                for k, term, keep in self._large:
                    _multiply_large(term, self.results[k], keep)
        return self.results


def add_on_device(sums: Sequence[ScoreSum]) -> list[torch.Tensor]:
    """The score matrices, on the device of their terms."""
    return GroupedProducts(sums).run()


def products_of(terms: Sequence[Term], out: torch.dtype) -> torch.dtype:
    """The storage that a group's products are formed of: 16 bits only where all of its operands are stored so."""
    if out == torch.float64:
        return torch.float64
    stored = {operand.dtype for term in terms for operand in (term.a, term.b)}
    return stored.pop() if len(stored) == 1 else torch.float32


def _check(entry: ScoreSum, device: torch.device) -> None:
    """``ValueError`` for what the kernels would read or write out of bounds."""
    if entry.out is not None and (
        entry.out.shape != (entry.n, entry.n)
        or entry.out.device != device
        or entry.out.dtype not in (torch.float32, torch.float64)
    ):
        raise ValueError(
            f"out: expected ({entry.n}, {entry.n}) float32 or float64 on {device}, not {tuple(entry.out.shape)} "
            f"{entry.out.dtype} on {entry.out.device}"
        )
    for term in entry.terms:
        for operand in (term.a, term.b):
            if operand.shape[0] != entry.n or operand.device != device or dtype_code(operand.dtype) is None:
                raise ValueError(
                    f"term: expected {entry.n} units of real floating numbers on {device}, not "
                    f"{tuple(operand.shape)} {operand.dtype} on {operand.device}"
                )
            if entry.out is not None and entry.out.dtype == torch.float32 and operand.dtype == torch.float64:
                raise ValueError("out is float32, but a term is stored as float64")
        for index in (term.index_a, term.index_b):
            if index is not None and (index.dtype != torch.int64 or index.device != device or index.dim() != 1):
                raise ValueError(f"term: expected an int64 index (k,) on {device}, not {index.dtype} on {index.device}")
        if term.depth > MOST_DEPTH:
            raise ValueError(f"term: a depth of {term.depth} is beyond {MOST_DEPTH}")


def _multiply_large(term: Term, out: torch.Tensor, keep: bool) -> None:
    """By torch, on copies that are gathered and, where the storage is another one, widened."""
    a, b = (matrix.to(out.dtype) for matrix in term.matrices())
    out.addmm_(a, b.T, beta=int(keep), alpha=term.weight)


def _code(dtype: torch.dtype) -> int:
    code = dtype_code(dtype)
    assert code is not None  # _check has refused others
    return code


class _Tables:
    """The tables of one launch, on the device."""

    def __init__(
        self,
        module: Any,
        owner: GroupedProducts,
        kind: torch.dtype,
        entries: Sequence[tuple[int, bool, list[Term]]],
    ) -> None:
        terms = [term for _, _, some in entries for term in some]
        group_table = np.zeros((len(entries), module.product_group_words), dtype=np.int64)
        term_table = np.zeros((len(terms), module.product_term_words), dtype=np.int64)
        first_term = tiles = 0
        for row, (k, keep, some) in zip(group_table, entries, strict=True):
            out, n = owner.results[k], owner._sums[k].n
            row[:] = (out.data_ptr(), *out.stride(), n, n, first_term, len(some), keep, tiles)
            first_term += len(some)
            tiles += (-(-n // module.product_tile)) ** 2
        self._indices: list[torch.Tensor] = []  # contiguous copies of those that were strided
        for row, term in zip(term_table, terms, strict=True):
            self._fill(row, term)
        self._kind = _code(kind)
        self._count, self._tiles = len(entries), tiles
        joined = np.concatenate([group_table.reshape(-1), term_table.reshape(-1)])
        # The host copy is kept too: a graph that was captured here reads it on every replay.
        self._table, self._host_table = upload(joined, owner.device)
        self._terms_at = self._table.data_ptr() + group_table.nbytes

    def _fill(self, row: Table, term: Term) -> None:
        a, b = term.operands()
        words = []
        for operand, index in ((a, term.index_a), (b, term.index_b)):
            if index is not None and not index.is_contiguous():
                index = index.contiguous()
                self._indices.append(index)
            gather = 0 if index is None else index.data_ptr()
            words += [operand.data_ptr(), gather, *operand.stride(), _code(operand.dtype)]
        row[: len(words)] = words
        row[len(words) : -1] = term.inner_shape()
        row[-1:] = np.array([term.weight]).view(np.int64)

    def launch(self, module: Any, tensor_cores: bool, stream: int) -> None:
        module.similarity(
            groups=self._table.data_ptr(),
            group_count=self._count,
            tiles=self._tiles,
            terms=self._terms_at,
            products=self._kind,
            tensor_cores=tensor_cores,
            stream=stream,
        )
