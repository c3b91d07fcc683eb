"""``lmcfast demo``: train two networks, match them, merge them, show that it worked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common
from .progress import stage_progress

if TYPE_CHECKING:
    from ..study import DemoResult


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where to write.")] = Path("lmcfast-demo"),
    seeds: Annotated[str, typer.Option("--seeds", metavar="SA,SB", help="Seeds of the two trainings.")] = "0,1",
    width: Annotated[int, typer.Option("--width", metavar="N", min=1, help="Units of a hidden layer.")] = 512,
    layers: Annotated[int, typer.Option("--layers", metavar="N", min=1, help="Hidden layers.")] = 3,
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", min=1, help="Passes over the digits in each training.")
    ] = None,
    as_json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Train two networks, match and merge them, show it worked.

    Both learn scikit-learn's digits, from different seeds; under a minute on two cores. FOLDER gets their checkpoints,
    the aligned one, the merged one, the permutations, a picture of the barrier and the figures; files of an earlier
    demo there are replaced, each in one step.

    Example:
      lmcfast demo
    """
    pair = _pair(seeds)
    with common.reporting(debug):
        from ..io import check_writable_folder

        check_writable_folder(out)
        from ..study import run_demo
        from ..study.demo import DEMO_RECIPE

        recipe = DEMO_RECIPE if epochs is None else replace(DEMO_RECIPE, epochs=epochs)
        with stage_progress() as progress:
            result = run_demo(out, seeds=pair, width=width, layers=layers, recipe=recipe, progress=progress)
        if as_json:
            common.print_json({**result.to_dict(), "out": out})
        else:
            _print(result, out)


def _pair(seeds: str) -> tuple[int, int]:
    try:
        first, second = (int(part) for part in seeds.split(","))
    except ValueError:
        raise typer.BadParameter(f"must be two whole numbers, not {seeds!r}", param_hint="--seeds") from None
    if not all(0 <= seed < 2**63 for seed in (first, second)):
        raise typer.BadParameter(f"must be whole numbers from 0 to 2^63 - 1, not {seeds!r}", param_hint="--seeds")
    return first, second


def _print(result: DemoResult, out: Path) -> None:
    from ..spec.report import percent

    width = max(len(row.label) for row in result.rows)
    print(f"{'test images':<{width}}  {'loss':>8}  {'accuracy':>8}")
    for row in result.rows:
        print(f"{row.label:<{width}}  {row.loss:>8.4f}  {percent(row.accuracy):>8}")
    print()
    reduction, match = result.reduction, result.match
    common.print_figures(
        {
            "barrier": f"{result.unmatched.value:.4f} without matching, {result.matched.value:.4f} with",
            "distance": common.distance_figure(reduction.before, reduction.after, reduction.rate),
            "matching": f"{match.sweeps} sweeps, objective {match.objective:.6g}, gap {match.gap:.1g}",
            "proof": result.proof,
            "seconds": ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result.seconds.items()),
            "written": f"{out}: {', '.join(path.name for path in result.files.values())}",
        }
    )
