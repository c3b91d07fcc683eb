"""Sizes of groups and open fixed axes from the shapes of tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..errors import InvalidParamsError, SpecError
from .layout import Fixed, Layout, atoms, format_layout, layout_size, solve_size, variants

Axes = dict[str, tuple[Layout, ...]]


def resolve(
    axes: Mapping[str, tuple[Layout, ...]],
    sizes: Mapping[str, int | None],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, int], Axes]:
    """All group sizes, and the axes with lengths in place of ``Fixed(None)``. ``sizes``: what is known before."""
    _check_ranks(axes, shapes)
    solver = _Solver(axes, sizes, shapes)
    solver.run()
    bound: Axes = {}
    for name, layouts in axes.items():
        bound[name] = tuple(
            Fixed(length) if layout == Fixed(None) else layout
            for layout, length in zip(layouts, shapes[name], strict=True)
        )
    return solver.sizes, bound


def _check_ranks(axes: Mapping[str, tuple[Layout, ...]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Every tensor of the spec is there and has as many axes as the spec says."""
    missing = [name for name in axes if name not in shapes]
    if missing:
        raise InvalidParamsError(f"tensor {missing[0]!r} is missing{and_more(missing)}", missing[0])
    for name, layouts in axes.items():
        if len(shapes[name]) != len(layouts):
            raise InvalidParamsError(
                f"tensor {name!r} has shape {shapes[name]}, but the spec gives it {len(layouts)} axes", name
            )


def and_more(names: Collection[str]) -> str:
    """``" (and 2 more)"`` for three names, nothing for one."""
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def added_prefix(has: Collection[str], lacks: Collection[str]) -> str:
    """The prefix that all names in ``has`` have and those in ``lacks`` do not, where that is the difference; else "".

    The names of the smaller collection must all be found in the other, which may have more (counters have no entry in
    a spec).
    """
    bare, full = (next(iter(names), "") for names in (lacks, has))
    more = len(has) >= len(lacks)
    pairs = ((name, bare) for name in has) if more else ((full, name) for name in lacks)
    for name, end in pairs:
        prefix = name.removesuffix(end) if end else ""
        if name == prefix or not prefix.endswith(".") or not all(other.startswith(prefix) for other in has):
            continue
        found = (prefix + other in has for other in lacks) if more else (other[len(prefix) :] in lacks for other in has)
        if all(found):
            return prefix
    return ""


def check_named(axes: Collection[str], names: Collection[str]) -> None:
    """``InvalidParamsError`` where all the tensors are there, but under names with a prefix more or less."""
    for has, lacks, verb in ((names, axes, "begin"), (axes, names, "do not begin")):
        prefix = added_prefix(has, lacks)
        if prefix:
            wanted = next(iter(axes))
            raise InvalidParamsError(
                f"tensor {wanted!r} is missing: the names of the tensors {verb} with {prefix!r}, those in the spec "
                f"{'do not' if verb == 'begin' else 'do'}; {PREFIX_ADVICE}",
                wanted,
            )


PREFIX_ADVICE = "rename them (DataParallel adds 'module.', torch.compile '_orig_mod.')"


class _Solver:
    """Reads sizes off the axes, each from an axis with one unknown, until nothing changes."""

    def __init__(
        self,
        axes: Mapping[str, tuple[Layout, ...]],
        sizes: Mapping[str, int | None],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.sizes = {name: size for name, size in sizes.items() if size is not None}
        self.names = tuple(sizes)
        self.origin: dict[str, str] = {}  # group -> the axis that its size was read from
        self.pending = [
            (name, axis, variant, shapes[name][axis])
            for name, layouts in axes.items()
            for axis, layout in enumerate(layouts)
            if layout != Fixed(None)
            for variant in variants(layout)
        ]

    def run(self) -> None:
        while self.pending:
            before = len(self.pending)
            self.pending = [entry for entry in self.pending if not self.settle(*entry)]
            if len(self.pending) == before:
                break
        unknown = [name for name in self.names if name not in self.sizes]
        if unknown:
            raise SpecError(
                f"the shapes do not tell the size of group {unknown[0]!r}{and_more(unknown)}; give it in `sizes`",
                group=unknown[0],
            )

    def settle(self, name: str, axis: int, layout: Layout, length: int) -> bool:
        """Check or use one axis; False where it has several unknowns yet."""
        unknown = {group for group in atoms(layout) if group not in self.sizes}
        if len(unknown) > 1:
            return False
        if unknown:
            group = unknown.pop()
            size = solve_size(layout, group, self.sizes, length)
            if size is None:
                raise self.misfit(name, axis, layout, f"has length {length}, which no size of {group!r} gives")
            self.sizes[group] = size
            self.origin[group] = f"axis {axis} of {name!r}"
            return True
        expected = layout_size(layout, self.sizes)
        if expected != length:
            raise self.misfit(name, axis, layout, f"has length {length}, not {expected}")
        return True

    def misfit(self, name: str, axis: int, layout: Layout, reason: str) -> SpecError | InvalidParamsError:
        known = dict.fromkeys(group for group in atoms(layout) if group in self.sizes)
        sizes = ", ".join(
            f"{group!r} has size {self.sizes[group]}"
            + (f" from {self.origin[group]}" if group in self.origin else " in the spec")
            for group in known
        )
        text = format_layout(layout)
        message = f"tensor {name!r}: axis {axis} {reason}, with layout {text!r}" + (f" ({sizes})" if sizes else "")
        # Sizes that the spec states are taken as right; sizes read from the tensors may be a fault of either.
        if any(group in self.origin for group in known):
            return SpecError(message, tensor=name)
        return InvalidParamsError(message, name)
