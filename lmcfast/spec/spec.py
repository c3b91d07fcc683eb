"""PermutationSpec: which tensor axes move together, as data.

A *group* is a set of tensor axes that share one permutation. The spec names, for every tensor, the layout of each
axis (``layout.py``). A setting of the spec is a dict ``{group: int64 tensor}`` with ``new[i] = old[p[i]]``; for a group
nested in others (``within``) the tensor has shape ``(*sizes of within, size)`` and is indexed by the *new* outer index.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING

import torch

from ..errors import CheckpointError, InvalidParamsError, SpecError
from ..io.atomic import atomic_path, reason
from .binding import check_named, resolve
from .comparison import bits, difference
from .consistency import check_groups, check_tied, check_uses, normal_axes, parse_axes, some
from .layout import Fixed, Layout, atoms
from .nesting import outer_axes
from .text import Document, canonical_text, read_text, read_toml, write_folded_text, write_text, write_toml

if TYPE_CHECKING:
    from .report import SpecReport

STATISTICS = ("running_mean", "running_var")
"""Last part of the names that are taken for BatchNorm's running statistics."""


@dataclass(frozen=True)
class Group:
    """One permutation of ``size`` units; one for each index of the groups in ``within``, if any.

    ``size`` None: not known yet (:meth:`PermutationSpec.bind` reads it from the tensors). ``fixed``: never moved, named
    only because other groups are nested in it.
    """

    name: str
    size: int | None = None
    within: tuple[str, ...] = ()
    fixed: bool = False


@dataclass(frozen=True)
class PermutationSpec:
    """Groups, and the layout of every axis of every tensor that has an entry.

    ``groups``: by name. ``axes``: tensor -> one layout for each axis. ``tied``: alias -> the canonical name of the same
    tensor. ``buffers``: tensors that move with their units but are never scored nor counted (BatchNorm statistics).
    ``why_fixed``: (tensor, axis) -> reasons, for the report; no part of equality. ``stacks``: tensors that state dicts
    hold one by one (``stacks.py``): ``experts.*.w1.weight`` -> how many; the entry has an axis more, the first.

    Checked when made: ``SpecError`` names the tensor or group. :meth:`from_axes` is the usual way to make one.
    """

    groups: dict[str, Group]
    axes: dict[str, tuple[Layout, ...]]
    tied: dict[str, str] = field(default_factory=dict)
    buffers: frozenset[str] = frozenset()
    why_fixed: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict, compare=False)
    stacks: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        axes: dict[str, tuple[Layout, ...]] = {}
        for name, layouts in self.axes.items():
            axes[name] = normal_axes(name, layouts)
        for alias, canonical in self.tied.items():
            check_tied(alias, canonical, self.tied, axes)
            axes.setdefault(alias, axes[canonical])
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "buffers", frozenset(self.buffers))
        check_groups(self.groups)
        check_uses(self)

    @classmethod
    def from_axes(
        cls,
        axes: Mapping[str, Sequence[str | Layout | None]],
        sizes: Mapping[str, int] | None = None,
        groups: Mapping[str, Group] | Iterable[Group] | None = None,
        tied: Mapping[str, str] | None = None,
        buffers: Iterable[str] | None = None,
        why_fixed: Mapping[tuple[str, int], tuple[str, ...]] | None = None,
        stacks: Mapping[str, int] | None = None,
    ) -> PermutationSpec:
        """A spec from layout strings: ``{"0.weight": ("h0", None), "0.bias": ("h0",), "2.weight": (None, "h0 _49")}``.

        ``sizes``: sizes of groups where the tensors do not tell. ``groups``: the groups that are nested or fixed; all
        others are made from the names in the layouts. ``tied``: alias -> canonical name; an alias without an entry
        takes the canonical one's. ``buffers``: default are the names that end in running_mean or running_var.
        Raises ``SpecError`` with the tensor, the axis and the text.
        """
        parsed = {name: parse_axes(name, layouts) for name, layouts in axes.items()}
        given = groups.values() if isinstance(groups, Mapping) else groups or ()
        known = {group.name: group for group in given}
        for layouts in parsed.values():
            for layout in layouts:
                for name in atoms(layout):
                    known.setdefault(name, Group(name))
        for name, size in (sizes or {}).items():
            if name not in known:
                raise SpecError(f"sizes: group {name!r} is not in any layout", group=name)
            known[name] = replace(known[name], size=size)
        if buffers is None:
            names = {*parsed, *(tied or {})}
            buffers = (name for name in names if name.rpartition(".")[2] in STATISTICS)
        return cls(known, parsed, dict(tied or {}), frozenset(buffers), dict(why_fixed or {}), dict(stacks or {}))

    def bind(self, params: Mapping[str, torch.Tensor]) -> PermutationSpec:
        """The spec with all sizes, read from the shapes of ``params`` (more tensors than the spec's are allowed).

        ``InvalidParamsError``: a tensor is missing or does not fit sizes that the spec states. ``SpecError``: the
        tensors contradict each other under this spec, or leave a group's size open. Both name tensor, axis and sizes.
        """
        sizes = {name: group.size for name, group in self.groups.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in params.items() if name in self.axes}
        for alias, canonical in self.tied.items():
            if canonical in shapes and shapes.setdefault(alias, shapes[canonical]) != shapes[canonical]:
                raise InvalidParamsError(
                    f"tensor {alias!r} has shape {shapes[alias]}, but {canonical!r}, to which the spec ties it, "
                    f"has {shapes[canonical]}",
                    alias,
                )
        if len(shapes) < len(self.axes):
            check_named(self.axes, params.keys())
        found, axes = resolve(self.axes, sizes, shapes)
        if axes == self.axes and found == sizes:
            return self
        groups = {name: replace(group, size=found[name]) for name, group in self.groups.items()}
        return replace(self, groups=groups, axes=axes)

    @cached_property
    def is_bound(self) -> bool:
        """Whether all sizes are known."""
        sized = all(group.size is not None for group in self.groups.values())
        return sized and all(Fixed(None) not in layouts for layouts in self.axes.values())

    @cached_property
    def movable_groups(self) -> tuple[str, ...]:
        """The groups that may move, in the order of their first use."""
        return tuple(name for name in self.uses if not self.groups[name].fixed)

    @cached_property
    def uses(self) -> dict[str, tuple[str, ...]]:
        """Group -> the tensors on whose axes it is, in the order of first use."""
        uses: dict[str, dict[str, None]] = {}
        for tensor, layouts in self.axes.items():
            for layout in layouts:
                for name in atoms(layout):
                    uses.setdefault(name, {})[tensor] = None
        return {name: tuple(tensors) for name, tensors in uses.items()}

    @cached_property
    def outer_axes(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Tensor -> for each axis, the other axes on whose indices its nested groups depend (empty for most)."""
        within = {name: group.within for name, group in self.groups.items()}
        found = {}
        for tensor, layouts in self.axes.items():
            try:
                found[tensor] = outer_axes(layouts, within)
            except SpecError as error:
                raise SpecError(f"tensor {tensor!r}: {error}", tensor=tensor, group=error.group) from None
        return found

    def groups_of(self, tensor: str) -> tuple[str, ...]:
        """The groups on the tensor's axes, in the order of the axes. ``SpecError`` for a tensor without an entry."""
        if tensor not in self.axes:
            raise SpecError(f"the spec has no tensor {tensor!r}", tensor=tensor)
        return tuple(dict.fromkeys(name for layout in self.axes[tensor] for name in atoms(layout)))

    def tensors_of(self, group: str) -> tuple[str, ...]:
        """The tensors that the group moves, buffers and tied aliases included. ``SpecError`` for an unknown group."""
        if group not in self.groups:
            raise SpecError(f"the spec has no group {group!r}; it has {some(self.groups)}", group=group)
        return self.uses[group]

    def shape_of(self, group: str) -> tuple[int, ...]:
        """Shape of the group's index tensor in a setting: ``(*sizes of within, size)``. The spec must be bound."""
        return tuple(self.sizes[name] for name in (*self.groups[group].within, group))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Size of every group. ``SpecError`` where one is not known yet: :meth:`bind` first."""
        found = {name: group.size for name, group in self.groups.items() if group.size is not None}
        for name in self.groups:
            if name not in found:
                raise SpecError(f"the size of group {name!r} is not known; call spec.bind(params)", group=name)
        return found

    def identity(self) -> dict[str, torch.Tensor]:
        """The setting that moves nothing."""
        settings = {}
        for name in self.groups:
            shape = self.shape_of(name)
            settings[name] = torch.arange(shape[-1]).expand(shape).clone()
        return settings

    def random_permutations(self, seed: int) -> dict[str, torch.Tensor]:
        """A random setting, uniform for every group; fixed groups stay. The same seed gives the same setting."""
        generator = torch.Generator().manual_seed(seed)
        settings = self.identity()
        for name in self.movable_groups:
            *outer, size = shape = self.shape_of(name)
            rows = [torch.randperm(size, generator=generator) for _ in range(math.prod(outer))]
            settings[name] = torch.stack(rows).reshape(shape) if rows else settings[name]
        return settings

    @property
    def bits(self) -> float:
        """log2 of the number of settings, a measure of how much freedom the spec finds. The spec must be bound."""
        return bits(self)

    def same(self, other: PermutationSpec) -> bool:
        """Whether the two specs are equal but for the names of groups and selectors, and the reasons.

        :func:`lmcfast.spec.difference` says where they differ.
        """
        return difference(self, other) is None

    def to_json(self, folded: bool = False) -> str:
        """The spec as readable JSON, one line for each group and tensor; ``folded``: one for each pattern of them."""
        return write_folded_text(self) if folded else write_text(self)

    @classmethod
    def from_json(cls, text: str) -> PermutationSpec:
        """Read what :meth:`to_json` wrote. ``SpecError`` in one line: no JSON, another format, version or field."""
        return cls.from_document(read_text(text))

    def to_toml(self) -> str:
        """The spec as TOML, folded over layers: one line for each pattern of tensors and groups."""
        return write_toml(self)

    @classmethod
    def from_toml(cls, text: str) -> PermutationSpec:
        """Read what :meth:`to_toml` wrote, or someone by hand (docs/specs.md). ``SpecError`` in one line."""
        return cls.from_document(read_toml(text))

    @classmethod
    def from_document(cls, document: Document) -> PermutationSpec:
        """The spec of a file's content as ``text.py`` reads it. ``SpecError`` as for :meth:`from_axes`."""
        groups = {name: Group(name, **entry) for name, entry in document.groups.items()}
        axes = {name: parse_axes(name, layouts) for name, layouts in document.axes.items()}
        return cls(groups, axes, document.tied, document.buffers, document.why_fixed, document.stacks)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the spec, whole or not at all: TOML to ``.toml``, else JSON. ``CheckpointError`` names the path."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_toml() if _is_toml(path) else self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PermutationSpec:
        """Read a spec file, TOML from ``.toml``, else JSON. ``CheckpointError`` in one line that names the path."""
        try:
            with open(path, encoding="utf-8") as file:
                return cls.from_toml(file.read()) if _is_toml(path) else cls.from_json(file.read())
        except OSError as error:
            raise CheckpointError(f"{path}: cannot read: {reason(error)}", str(path)) from error
        except UnicodeDecodeError:
            raise CheckpointError(f"{path}: is not a spec file: not UTF-8 text", str(path)) from None
        except SpecError as error:
            raise CheckpointError(f"{path}: {error}", str(path)) from error

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the spec's canonical JSON: equal for equal specs, whatever the order of their entries."""
        return hashlib.sha256(canonical_text(self).encode()).hexdigest()

    def report(self) -> SpecReport:
        """What moves and what does not; ``str()`` of it is a short table, ``.text(full=True)`` one that lists all."""
        from .report import make_report

        return make_report(self)


def _is_toml(path: str | PathLike[str]) -> bool:
    return str(path).lower().endswith(".toml")
