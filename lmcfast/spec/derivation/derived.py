"""The derivation of a trace, with its loops over modules rolled up where that finds more freedom."""

from __future__ import annotations

from ..spec import PermutationSpec
from .assemble import assemble
from .derivation import Derivation
from .loops import find_loops
from .tracing import Trace


def derived(trace: Trace) -> tuple[Derivation, PermutationSpec]:
    """The labels of a trace and the spec that they say.

    A loop stays rolled up only if the order of its turns can move; both readings of the graph are right, and the one
    with more settings is taken.
    """
    plain = Derivation(trace)
    spec = assemble(plain)
    loops = find_loops(trace)
    while loops:
        rolled = Derivation(trace, loops)
        found = assemble(rolled)
        moving = [loop for loop in loops if not rolled.labels.is_fixed(rolled.rolled.turns[loop])]
        if len(moving) == len(loops):
            return (rolled, found) if found.bits > spec.bits else (plain, spec)
        loops = moving
    return plain, spec
