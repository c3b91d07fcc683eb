"""``lmcfast apply``: reorder the units of a checkpoint by a permutation file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common


def apply(
    permutations: Annotated[Path, typer.Argument(metavar="P", help="Permutation file of `lmcfast match`.")],
    b: common.ModelB,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="B2", help="Checkpoint to write.")],
    ignore_sources: common.IgnoreSources = False,
    no_overwrite: common.NoOverwrite = False,
    as_json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Reorder the units of B by a permutation file.

    The result computes the same as B; its units stand in the order of A. The spec is read from P. An existing
    output is replaced, in one step and only when all is done.

    Example:
      lmcfast apply p.safetensors b.safetensors -o b-aligned.safetensors
    """
    common.check_ending(out, common.checkpoint_endings())
    with common.reporting(debug):
        common.check_early((permutations, b), out, no_overwrite)
        from ..merging.files import apply_file

        done = apply_file(permutations, b, out, check_source=not ignore_sources, overwrite=not no_overwrite)
        common.print_notes(done.notes)
        if as_json:
            groups = common.group_json(done.groups)
            document = {"tensors": done.tensors, "groups": groups, "out": out}
            common.print_json({**document, "unchecked_spec": done.unchecked_spec, "notes": done.notes})
        else:
            moved = common.moved_figure(done.groups)
            common.print_figures({"moved": moved, "tensors": done.tensors, "written": out})
