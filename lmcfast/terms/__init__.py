"""Sums of products of plain arrays: score matrices, float64 inner products, magnitudes; no specs, no layouts.

This is the one place that multiplies for the matchers, so the rule for accuracy lives here: float32 storage gets
float32-accurate products, whatever reduced precision the caller allows torch elsewhere; bfloat16 and float16 storage
is multiplied exactly and summed up in float32; float64 storage stays float64.

A term adds ``weight * a @ b.T`` to an (n, n) score matrix. On the CPU products are matrix products of torch's, but for
those of up to 64 units, which a kernel of our own takes in one call (``products.py``).
Tensors on a device go to the kernels of ``csrc/include/lmcfast/cuda_similarity.h`` (``device.py``) or, where they are
large, to torch (``plan.py``).
"""

from .device import GroupedProducts
from .inner import Inner, View, inner_products, magnitudes
from .plan import Chunk, plan_chunks
from .precision import full_precision
from .products import accumulate, accumulate_all, accumulate_ref, accumulate_within, add_products
from .term import PRECISIONS, Precision, ScoreSum, Term, working_dtype

__all__ = [
    "PRECISIONS",
    "Chunk",
    "GroupedProducts",
    "Inner",
    "Precision",
    "ScoreSum",
    "Term",
    "View",
    "accumulate",
    "accumulate_all",
    "accumulate_ref",
    "accumulate_within",
    "add_products",
    "full_precision",
    "inner_products",
    "magnitudes",
    "plan_chunks",
    "working_dtype",
]
