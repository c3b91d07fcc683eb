"""Couplings whose table is too large to be formed: their products are made for the choices that are asked for.

The table of a coupling, T[k, m, l, n] = <a[k, m], b[l, n]> for each pair of outer units, grows with the square of both
sizes. What an alternation needs of it is small: with one member's choice held, the scores of the other are one product
over the held member's units and the depth.

*Bound.* For "place k takes unit l" the sum over m of <a[k, m], b[l, t(m)]> is, whatever t, at most what it is with both
sorted along m, at each index of the depth by itself (rearrangement inequality: Hardy, Littlewood, Polya,
*Inequalities*, theorem 368). These sums are one product of sorted weights, of the cost of a plain product.
"""

from __future__ import annotations

import torch

from .clock import Counts


class Factored:
    """A coupling as its two factors.

    ``a``: (held, rows, one, two, depth), ``b``: (held, pairs, one, two, depth); the problems are (held, rows, pairs),
    flat. Results are on the CPU.
    """

    def __init__(self, a: torch.Tensor, b: torch.Tensor, weight: float, counts: Counts) -> None:
        self._a, self._b, self._weight, self._counts = a, b, weight, counts

    def turned(self) -> Factored:
        """The same with the members in the other order."""
        return Factored(self._a.transpose(2, 3), self._b.transpose(2, 3), self._weight, self._counts)

    def given(self, columns: torch.Tensor) -> torch.Tensor:
        """Scores of the second member, (problems, two, two'), with the first at ``columns``, (problems, one)."""
        held, rows, one, two, depth = self._a.shape
        pairs = self._b.shape[1]
        chosen = columns.view(held, rows, pairs, one).to(self._b.device)
        places = torch.arange(pairs, device=self._b.device).unsqueeze(1)
        scores = self._a.new_empty((held, rows, pairs, two, two))
        for h in range(held):
            for row in range(rows):
                taken = self._b[h][places, chosen[h, row]]  # (pairs, one, two', depth)
                factor = self._a[h, row].transpose(0, 1).reshape(two, one * depth)
                taken = taken.transpose(2, 3).reshape(pairs, one * depth, two)
                torch.matmul(factor, taken, out=scores[h, row])
        self._counts.computed += 1
        self._counts.multiplied += scores.numel() * one * depth
        return scores.mul_(self._weight).view(-1, two, two).cpu()

    def most(self) -> torch.Tensor:
        """Bounds on what a place of the first member can gain by a unit of it, (problems, one, one')."""
        held, rows, one, two, depth = self._a.shape
        pairs = self._b.shape[1]
        a, b = (t.sort(dim=3).values.reshape(held, -1, two * depth) for t in (self._a, self._b))
        products = torch.bmm(a, b.transpose(1, 2)).mul_(self._weight)
        self._counts.computed += 1
        self._counts.multiplied += products.numel() * two * depth
        return products.view(held, rows, one, pairs, one).transpose(2, 3).reshape(-1, one, one).cpu()
