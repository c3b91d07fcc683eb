"""``lmcfast analyze``: is a merge of two checkpoints worth it, as one report."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common, measuring
from .progress import descent_progress, stage_progress

if TYPE_CHECKING:
    from ..analysis import Diagnosis
    from ..merging.pairs import AlignedPair

_OF_MATCHING = ("spec", "input_shape", "start", "max_sweeps", "restarts", "only", "fix", "device")
_OF_DATA = ("loss", "lambdas", "reset_batchnorm", "batch_size", "max_batches", "taylor")


def analyze(
    context: typer.Context,
    a: common.ModelA,
    b: common.ModelB,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="REPORT", help="Page to write (.html).")] = None,
    permutations: Annotated[
        list[Path] | None,
        typer.Option(
            "--permutations", metavar="P", help="Permutation file (repeated: means over several); without, match first."
        ),
    ] = None,
    model: measuring.Model = None,
    data: measuring.Data = None,
    loss: measuring.Loss = "cross_entropy",
    lambdas: measuring.Lambdas = 25,
    reset_batchnorm: measuring.ResetBatchnorm = False,
    batch_size: measuring.BatchSize = 500,
    max_batches: measuring.MaxBatches = None,
    taylor: Annotated[
        bool, typer.Option("--taylor/--no-taylor", help="Estimate the barrier by Hessian-vector products.")
    ] = True,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layer", metavar="NAME", help="Look only at this tensor (wildcards; may be repeated)."),
    ] = None,
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
    """Say whether a merge of A and B is worth it, and why.

    The weights alone give distances, singular values and how far the singular vectors agree, against what matching
    reaches by chance. With --model and --data also the barrier, its Taylor estimate, what the layers see, and a verdict
    that rests on the loss. REPORT is one page that needs no network.

    Example:
      lmcfast analyze a.safetensors b.safetensors -o report.html
      lmcfast analyze a.safetensors b.safetensors --model nets:mlp --data mnist.npz -o r.html
    """
    if out is not None:
        common.check_ending(out, (".html", ".htm"))
    file = _checked(context, permutations, model, data)
    with common.reporting(debug):
        specs = common.spec_inputs(spec, input_shape) if not permutations else ()
        common.check_early((a, b, *(permutations or ())), out, no_overwrite, (*specs, *file))
        if out is not None:
            from ..analysis.page.render import check_available

            check_available()
        setup = None
        if model is not None and data is not None:
            setup = measuring.prepare_measuring(model, data, loss, reset_batchnorm, batch_size, max_batches, device)
        options = common.match_options(start, max_sweeps, restarts, seed, fix, only, device)
        from ..merging.pairs import read_pair

        source = common.spec_source(spec, input_shape)
        with descent_progress(restarts) as callback:
            pair = read_pair(
                a, b, permutations or (), spec=source, options=options, check_source=not ignore_sources,
                callback=callback,
            )  # fmt: skip
        if setup is not None:
            measuring.check_network(setup.module, {a: pair.params_a, b: pair.params_b})
        diagnosis = _diagnose(pair, setup, lambdas, taylor, layers, seed)
        common.print_notes(pair.notes)
        if out is not None:
            from ..analysis import report_page
            from ..analysis.page import save_page

            save_page(report_page(diagnosis, a.name, b.name, pair.notes), out, overwrite=not no_overwrite)
        if as_json:
            common.print_json({"a": a, "b": b, **diagnosis.to_dict(), "out": out, "notes": pair.notes})
        else:
            _print(diagnosis, out)


def _checked(
    context: typer.Context, permutations: list[Path] | None, model: str | None, data: str | None
) -> tuple[Path, ...]:
    """Options that do not go together are refused; the file of ``--data``, if it is one."""
    if model is not None and data is None:
        raise typer.BadParameter("is needed with --model", param_hint="--data")
    if data is not None and model is None:
        raise typer.BadParameter("is needed with --data", param_hint="--model")
    useless = [(name, "without --model and --data") for name in _OF_DATA if model is None]
    useless += [(name, "with --permutations") for name in _OF_MATCHING if permutations]
    useless += [("ignore_sources", "without --permutations")] * (not permutations)
    for name, beside in useless:
        if name == "device" and model is not None:
            continue
        common.refuse_given(context, name, beside)
    return () if data is None else measuring.check_data(data)


def _diagnose(
    pair: AlignedPair,
    setup: measuring.Measuring | None,
    lambdas: int,
    taylor: bool,
    layers: list[str] | None,
    seed: int,
) -> Diagnosis:
    from ..analysis import diagnose
    from ..analysis.layers import weight_names
    from ..errors import OptionError

    try:
        weight_names(pair.spec, layers)
    except ValueError as error:
        raise OptionError(str(error).removeprefix("layers: "), "layer") from error
    sweeps = () if pair.match is None else pair.match.sweep_trace()
    given: dict[str, Any] = {}
    if setup is not None:
        given = {
            "module": setup.module, "batches": setup.batches, "loss": setup.loss, "lambdas": lambdas,
            "metrics": setup.metrics, "prepare": setup.prepare, "taylor": taylor,
        }  # fmt: skip
    guard = nullcontext() if setup is None else measuring.users_code("--model, --data or --loss")
    with guard, stage_progress() as progress:
        return diagnose(
            pair.spec, pair.params_a, pair.params_b, pair.permutations, layers=layers, seed=seed, sweeps=sweeps,
            progress=progress, **given,
        )  # fmt: skip


def _print(diagnosis: Diagnosis, out: Path | None) -> None:
    from ..analysis import mean_deviation

    verdict, weights, behaviour = diagnosis.verdict, diagnosis.weights, diagnosis.behaviour
    reduction = weights.reductions[0]
    gammas = list(weights.without)
    figures: dict[str, object] = {
        "verdict": f"{verdict.answer} ({'by the loss' if verdict.measured else 'by the weights alone'})",
        "reason": verdict.reason,
        "distance": common.distance_figure(reduction.before, reduction.after, reduction.rate),
    }
    for gamma in gammas:
        aligned = mean_deviation(one.pooled for one in weights.aligned[gamma]).mean
        without, chance = weights.without[gamma].pooled, weights.chance.alignment[gamma].pooled
        figures[f"R({gamma:g})"] = f"{without:.4f} without, {aligned:.4f} with, {chance:.4f} by chance"
    if behaviour is not None:
        aligned = mean_deviation(line.midpoint for line in behaviour.aligned).mean
        figures["barrier"] = f"{behaviour.without.midpoint:+.4g} without, {aligned:+.4g} with (midpoint)"
        if behaviour.taylor:
            figures["Taylor"] = f"{mean_deviation(one.midpoint for one in behaviour.taylor).mean:+.4g} (midpoint)"
    common.print_figures({**figures, **({} if out is None else {"written": out})})
