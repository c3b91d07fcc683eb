"""``lmcfast match``: find the permutations that line B up with A."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common
from .progress import descent_progress


def match(
    a: common.ModelA,
    b: common.ModelB,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="P", help="Permutation file to write (.safetensors).")],
    spec: common.Spec = "auto",
    start: common.Start = "best",
    max_sweeps: common.MaxSweeps = 100,
    restarts: common.Restarts = 1,
    seed: common.Seed = 0,
    fix: common.Fix = None,
    only: common.Only = None,
    device: common.Device = None,
    no_overwrite: common.NoOverwrite = False,
    as_json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Find the permutations that line B up with A.

    They are written to P with all that is needed to apply them. An existing P is replaced, in one step and only
    when all is done.

    Example:
      lmcfast match a.safetensors b.safetensors -o p.safetensors
      lmcfast apply p.safetensors b.safetensors -o b-aligned.safetensors
    """
    common.check_ending(out, (".safetensors",))
    with common.reporting(debug):
        common.check_early((a, b, *common.spec_inputs(spec)), out, no_overwrite)
        options = common.match_options(start, max_sweeps, restarts, seed, fix, only, device)
        from ..merging.files import match_files

        with descent_progress(restarts) as callback:
            done = match_files(a, b, out, spec=spec, options=options, overwrite=not no_overwrite, callback=callback)
        common.print_notes(done.notes)
        if as_json:
            common.print_json(
                {
                    **common.match_json(done.summary),
                    "out": out,
                    "unchecked_spec": done.unchecked_spec,
                    "notes": done.notes,
                }
            )
        else:
            common.print_figures({**common.match_figures(done.summary), "written": out})
