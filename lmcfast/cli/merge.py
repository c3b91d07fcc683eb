"""``lmcfast merge``: line two checkpoints up and average them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common
from .progress import descent_progress

if TYPE_CHECKING:
    from ..merging.files import MergedFile


_MATCHING = ("spec", "input_shape", "start", "max_sweeps", "restarts", "seed", "fix", "only", "device")


def merge(
    context: typer.Context,
    a: common.ModelA,
    b: common.ModelB,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="M", help="Checkpoint to write.")],
    permutations: Annotated[
        Path | None,
        typer.Option("--permutations", metavar="P", help="Permutation file to use; without it, match first."),
    ] = None,
    weights: Annotated[
        str, typer.Option("--weights", metavar="WA,WB", help="Shares of A and B; they add up to 1.")
    ] = "0.5,0.5",
    spec: common.Spec = "auto",
    input_shape: common.InputShape = None,
    start: common.Start = "best",
    max_sweeps: common.MaxSweeps = 100,
    restarts: common.Restarts = 1,
    seed: common.Seed = 0,
    fix: common.Fix = None,
    only: common.Only = None,
    device: common.Device = None,
    ignore_sources: common.IgnoreSources = False,
    no_overwrite: common.NoOverwrite = False,
    as_json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Line B up with A and write their average.

    Without --permutations the two are matched first, as `lmcfast match` does. M has the keys of A. An existing
    output is replaced, in one step and only when all is done.

    Example:
      lmcfast merge a.safetensors b.safetensors -o merged.safetensors
      lmcfast merge a.pt b.pt --permutations p.safetensors --weights 0.7,0.3 -o merged.pt
    """
    weight = _weight_of_b(weights)
    _refuse_useless(context, permutations)
    common.check_ending(out, common.checkpoint_endings())
    with common.reporting(debug):
        specs = common.spec_inputs(spec, input_shape) if permutations is None else ()
        further = () if permutations is None else (permutations,)
        common.check_early((a, b, *further), out, no_overwrite, specs)
        options = common.match_options(start, max_sweeps, restarts, seed, fix, only, device)
        from ..merging.files import merge_files

        source = common.spec_source(spec, input_shape)
        with descent_progress(restarts) as callback:
            done = merge_files(
                a,
                b,
                out,
                permutations=permutations,
                spec=source,
                weight=weight,
                options=options,
                check_source=not ignore_sources,
                overwrite=not no_overwrite,
                callback=callback,
            )
        common.print_notes(done.notes)
        if as_json:
            common.print_json(_json(done))
        else:
            common.print_figures(_figures(done))


def _json(done: MergedFile) -> dict[str, object]:
    return {
        **common.match_json(done.summary),
        "weights": done.weights,
        "tensors": done.tensors,
        "averaged_statistics": done.averaged_statistics,
        "kept_from_a": done.kept_from_a,
        "out": done.out,
        "unchecked_spec": done.unchecked_spec,
        "notes": done.notes,
    }


def _figures(done: MergedFile) -> dict[str, object]:
    figures = {**common.match_figures(done.summary), "weights": "{:g}, {:g}".format(*done.weights)}
    if done.kept_from_a:
        figures["kept from A"] = common.some(done.kept_from_a)
    if done.averaged_statistics:
        figures["to reset"] = f"{len(done.averaged_statistics)} averaged running statistics (BatchNorm)"
    return {**figures, "written": f"{done.out} ({done.tensors} tensors)"}


def _weight_of_b(weights: str) -> float:
    parts = weights.split(",")
    try:
        share_a, share_b = (float(part) for part in parts)
    except ValueError:
        raise typer.BadParameter(f"must be two numbers, not {weights!r}", param_hint="--weights") from None
    if not (0 <= share_a <= 1 and 0 <= share_b <= 1 and math.isclose(share_a + share_b, 1.0, abs_tol=1e-6)):
        raise typer.BadParameter(f"must lie in 0 .. 1 and add up to 1, not {weights!r}", param_hint="--weights")
    return share_b


def _refuse_useless(context: typer.Context, permutations: Path | None) -> None:
    """Options without an effect are refused: whoever gives them expects one."""
    useless = ("ignore_sources",) if permutations is None else _MATCHING
    beside = "without" if permutations is None else "with"
    for name in useless:
        common.refuse_given(context, name, f"{beside} --permutations")
