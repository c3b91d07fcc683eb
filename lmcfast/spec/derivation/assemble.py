"""From settled labels to a :class:`PermutationSpec`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import SpecError
from .. import layout as layouts
from ..spec import Group, PermutationSpec
from ..stacks import members
from .labels import Labels
from .naming import Use, group_names
from .settle import settle
from .terms import Atom, Concat, Label, Product

if TYPE_CHECKING:
    from torch import fx

    from .derivation import Derivation

UNUSED = "not used"
"""The reason for parameters that no operator reads."""


def assemble(derivation: Derivation) -> PermutationSpec:
    """The spec of all parameters and permanent buffers of a module that have axes.

    Integer buffers and those outside of the state dict have no entry. Groups appear in the order of their first use.

    Labels say more than layouts can: where a tensor's layouts would be refused, its axes are fixed, with that reason,
    until what is left can be stated.
    """
    unstated: dict[str, str] = {}
    while True:
        try:
            return _stated(derivation, unstated)
        except SpecError as error:
            name = error.tensor
            if name is None or name in unstated or name not in derivation.parameters:
                raise
            unstated[name] = f"no layout states how it moves ({error})"
            for label in derivation.parameters[name]:
                derivation.fix(label, unstated[name])
            settle(derivation)


def _stated(derivation: Derivation, unstated: Mapping[str, str]) -> PermutationSpec:
    """The spec; tensors in ``unstated``, whose labels are fixed, with the reason there and none of their structure."""
    labels, tensors = derivation.labels, _entries(derivation)
    for name, why in unstated.items():
        tensors[name] = [derivation.fixed(labels.size(label), why) for label in tensors[name]]
    uses = _uses(labels, tensors)
    free = [index for index in uses if labels.reason(index) is None]
    anchors = {outer for index in free for outer in labels.dependencies(index)} - set(free)
    named = [index for index in uses if index in anchors or labels.reason(index) is None]
    within = {index: labels.dependencies(index) & set(named) for index in free}
    nests = {index for index, outer in within.items() if outer} | {i for outer in within.values() for i in outer}
    names = group_names({index: uses[index] for index in named}, nests)
    order = {index: k for k, index in enumerate(named)}
    groups = {}
    for index in named:
        outer = sorted(within.get(index, ()), key=order.__getitem__)
        groups[names[index]] = Group(
            names[index], labels.size(Atom(index)), tuple(names[i] for i in outer), fixed=index in anchors
        )
    return PermutationSpec(
        groups,
        {name: tensor_layouts(labels, axes, names) for name, axes in tensors.items()},
        tied=_tied(derivation, tensors),
        buffers=frozenset(name for name in tensors if derivation.is_buffer(name)),
        why_fixed=_why_fixed(labels, tensors),
        stacks=derivation.stacks,
    )


def _entries(derivation: Derivation) -> dict[str, list[Label]]:
    """Labels by canonical name, parameters first; a stack stands where its first member would."""
    found: dict[str, list[Label]] = {}
    trace = derivation.trace
    stack_of = {part: stack for stack, number in derivation.stacks.items() for part in members(stack, number)}
    for name, tensor in trace.tensors.items():
        if name in stack_of:
            found[stack_of[name]] = derivation.parameters[stack_of[name]]
            continue
        if name in trace.buffers and (name not in trace.permanent or not tensor.is_floating_point() or not tensor.ndim):
            continue
        axes = derivation.parameters.get(name)
        found[name] = [derivation.fixed(size, UNUSED) for size in tensor.shape] if axes is None else axes
    return {name: [derivation.labels.normal(label) for label in axes] for name, axes in found.items()}


def _tied(derivation: Derivation, tensors: Mapping[str, Any]) -> dict[str, str]:
    trace = derivation.trace
    aliases = {alias: name for alias, name in trace.canonical.items() if alias != name and name in tensors}
    return {alias: name for alias, name in aliases.items() if alias in trace.permanent}


def _uses(labels: Labels, tensors: Mapping[str, Sequence[Label]]) -> dict[int, list[Use]]:
    """Atoms in the order of their first use."""
    found: dict[int, list[Use]] = {}
    for name, axes in tensors.items():
        for axis, label in enumerate(axes):
            for index in dict.fromkeys(labels.atoms(label)):
                found.setdefault(index, []).append((name, axis, len(axes)))
    return found


def _why_fixed(labels: Labels, tensors: Mapping[str, Sequence[Label]]) -> dict[tuple[str, int], tuple[str, ...]]:
    found = {}
    for name, axes in tensors.items():
        for axis, label in enumerate(axes):
            reasons = {labels.reason(index) for index in labels.atoms(label)}
            if reasons - {None}:
                found[name, axis] = tuple(sorted(reason for reason in reasons if reason is not None))
    return found


def tensor_layouts(labels: Labels, axes: Sequence[Label], names: Mapping[int, str]) -> tuple[layouts.Layout, ...]:
    """The layouts of a tensor; atoms without a name are fixed runs. Concatenations are named in order of use."""
    selectors: dict[int, str] = {}
    letters = _selector_names()

    def selector(root: int) -> str:
        if root not in selectors:
            selectors[root] = next(letters)
        return selectors[root]

    def convert(label: Label) -> layouts.Layout:
        if isinstance(label, Atom):
            name = names.get(label.index)
            return layouts.Fixed(labels.size(label)) if name is None else layouts.Atom(name)
        if isinstance(label, Product):
            return layouts.product(map(convert, label.parts))
        if isinstance(label, Concat):
            return layouts.concat(map(convert, label.arms), selector(label.selector))
        return layouts.case(selector(label.selector), map(convert, label.arms))

    return layouts.without_idle_names([convert(labels.normal(label)) for label in axes])


def _selector_names() -> Iterator[str]:
    round_ = 0
    while True:
        yield from (f"{letter}{round_ or ''}" for letter in "stuvwxyz")
        round_ += 1


# ---- for the proofs: fixed classes moved alone, and every node checked against its labels


def fixed_classes(derivation: Derivation) -> Iterator[tuple[str, PermutationSpec]]:
    """Each atom that was fixed, with the reason and a spec in which it is the one group that moves.

    Left out are unused parameters and what stands in a buffer that isn't learned: a table must stay as it is.
    """
    labels, tensors = derivation.labels, _entries(derivation)
    uses = _uses(labels, tensors)
    held = {
        index
        for name, axes in derivation.parameters.items()
        if derivation.is_buffer(name)
        for label in axes
        for index in labels.atoms(label)
        if labels.reason(index) is not None
    }
    for index in uses:
        reason = labels.reason(index)
        if reason is None or reason == UNUSED or index in held:
            continue
        spec = PermutationSpec(
            {"alone": Group("alone", labels.size(Atom(index)))},
            {name: tensor_layouts(labels, axes, {index: "alone"}) for name, axes in tensors.items()},
            tied=_tied(derivation, tensors),
            buffers=frozenset(name for name in tensors if derivation.is_buffer(name)),
            stacks=derivation.stacks,
        )
        yield reason, spec


def node_layouts(derivation: Derivation) -> tuple[dict[fx.Node, tuple[layouts.Layout, ...]], dict[str, Group]]:
    """The layouts of every tensor in the graph, and the groups, named after their atoms (``a12``)."""
    labels = derivation.labels
    axes = {node: entry for node, entry in derivation.tensors.items() if _is_tensor(entry)}
    atoms = dict.fromkeys(index for entry in axes.values() for label in entry for index in labels.atoms(label))
    pending = list(atoms)
    while pending:
        outer = [i for i in labels.dependencies(pending.pop()) if i not in atoms]
        atoms.update(dict.fromkeys(outer))
        pending += outer
    names = {index: f"a{index}" for index in atoms}
    groups = {
        names[index]: Group(
            names[index],
            labels.size(Atom(index)),
            tuple(names[i] for i in sorted(labels.dependencies(index))),
            fixed=labels.reason(index) is not None,
        )
        for index in atoms
    }
    return {node: tensor_layouts(labels, entry, names) for node, entry in axes.items()}, groups


def _is_tensor(entry: Any) -> bool:
    return isinstance(entry, list) and not any(item is None or isinstance(item, list) for item in entry)
