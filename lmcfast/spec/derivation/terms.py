"""Terms that label the dimensions of tensors.

A label says which permutations a dimension may undergo while the network runs:

==========  ===========================================================================================
``Atom``    one permutation of so many indices, with a representative in a union-find (:mod:`.labels`)
``Product`` row-major factors, the last one fastest (views split and merge these); no factor: length 1
``Concat``  arms side by side (cat, split, slices); ``selector`` names the choice of the arm
``Case``    the arm in force where the selector, a concatenation elsewhere in the tensor, is in that arm
==========  ===========================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Atom:
    """One permutation; ``index`` is its place in the tables of :class:`.labels.Labels`."""

    index: int


@dataclass(frozen=True, slots=True)
class Product:
    """Row-major product of factors."""

    parts: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Concat:
    """The arms side by side."""

    selector: int
    arms: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """``arms[j]`` where the concatenation ``selector`` is in its arm ``j``; all arms have one length."""

    selector: int
    arms: tuple[Label, ...]


Label: TypeAlias = Atom | Product | Concat | Case

ONE = Product(())
"""A dimension of length 1."""


def children(label: Label) -> tuple[Label, ...]:
    """The terms directly inside a label."""
    if isinstance(label, Atom):
        return ()
    return label.parts if isinstance(label, Product) else label.arms


@dataclass(frozen=True, slots=True)
class Step:
    """What a cut kept of one concatenation, for the cases in other dimensions (:meth:`.labels.Labels.reselect`).

    ``kept``: the arms of ``selector`` that stay, each with the steps of the cut inside it. ``selector_after``: the
    concatenation that they form, None where one arm stays.
    """

    selector: int
    kept: tuple[tuple[int, tuple[Step, ...]], ...]
    selector_after: int | None


Chain: TypeAlias = tuple[Step, ...]
