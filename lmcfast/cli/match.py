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
    input_shape: common.InputShape = None,
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

    A and B are files, or Hugging Face folders with weights and a config.json; their keys are led to the names in the
    spec (tied tensors, prefixes, experts one by one). The permutations are written to P with all that is needed to
    apply them. An existing P is replaced, in one step and only when all is done.

    Example:
      lmcfast match a.safetensors b.safetensors -o p.safetensors
      lmcfast match llama-a/ llama-b/ -o p.safetensors
      lmcfast apply p.safetensors b.safetensors -o b-aligned.safetensors
    """
    common.check_ending(out, (".safetensors",))
    with common.reporting(debug):
        common.check_early((a, b), out, no_overwrite, common.spec_inputs(spec, input_shape))
        options = common.match_options(start, max_sweeps, restarts, seed, fix, only, device)
        from ..merging.files import match_files

        source = common.spec_source(spec, input_shape)
        with descent_progress(restarts) as callback:
            done = match_files(a, b, out, spec=source, options=options, overwrite=not no_overwrite, callback=callback)
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
