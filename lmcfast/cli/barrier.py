"""``lmcfast barrier``: the loss on the line between two checkpoints of the user's own network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common, measuring

if TYPE_CHECKING:
    from ..analysis import Barrier

_PICTURES = (".png", ".svg", ".pdf")


def barrier(
    a: common.ModelA,
    b: common.ModelB,
    model: Annotated[
        str, typer.Option("--model", metavar="MODULE:FACTORY", help="Callable of your code that returns the network.")
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="MODULE:LOADER|FILE.npz",
            help="Callable that returns (inputs, targets) batches; or arrays x_train, y_train, x_test, y_test.",
        ),
    ],
    permutations: Annotated[
        Path | None,
        typer.Option("--permutations", metavar="P", help="Permutation file to apply to B; without it, B is as it is."),
    ] = None,
    loss: measuring.Loss = "cross_entropy",
    lambdas: measuring.Lambdas = 25,
    reset_batchnorm: measuring.ResetBatchnorm = False,
    batch_size: measuring.BatchSize = 500,
    max_batches: measuring.MaxBatches = None,
    device: common.Device = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Picture (.png, .svg, .pdf) or figures (.json) to write."),
    ] = None,
    ignore_sources: common.IgnoreSources = False,
    no_overwrite: common.NoOverwrite = False,
    as_json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Measure the loss on the line from A to B.

    Your own network is called with the inputs of each batch. Three figures are in use under the name barrier:
    midpoint (the loss at 1/2 minus the mean of the ends; negative where the merge is better), value (the largest excess
    over the line between the ends' losses) and git_re_basin (the largest loss minus the mean of the ends).

    Example:
      lmcfast barrier a.safetensors b.safetensors --model nets:mlp --data mnist.npz
      lmcfast barrier a.pt b.pt --permutations p.safetensors --model nets:mlp --data nets:test -o line.png
    """
    if out is not None:
        common.check_ending(out, (*_PICTURES, ".json"))
    if ignore_sources and permutations is None:
        raise typer.BadParameter("has no effect without --permutations", param_hint="--ignore-sources")
    file = measuring.check_data(data)
    with common.reporting(debug):
        further = () if permutations is None else (permutations,)
        common.check_early((a, b, *further), out, no_overwrite, file)
        setup = measuring.prepare_measuring(model, data, loss, reset_batchnorm, batch_size, max_batches, device)
        params_a, params_b, notes = _ends(a, b, permutations, not ignore_sources)
        measuring.check_network(setup.module, {a: params_a, b: params_b})
        from ..analysis import barrier as measure
        from ..analysis.plots import new_figure

        if out is not None and out.suffix != ".json":
            new_figure()  # tells now that matplotlib is missing
        with measuring.users_code("--model, --data or --loss"):
            line = measure(
                setup.module, params_a, params_b, setup.batches, setup.loss, lambdas, setup.metrics, setup.prepare
            )
        common.print_notes(notes)
        document = {"a": str(a), "b": str(b), "permutations": permutations, **line.to_dict()}
        if out is not None:
            _write(line, document, out, not no_overwrite)
        if as_json:
            common.print_json({**document, "out": out, "notes": notes})
        else:
            _print(line, out)


def _ends(a: Path, b: Path, permutations: Path | None, check_source: bool) -> tuple[Any, Any, tuple[str, ...]]:
    from ..merging.pairs import read_pair, read_plain_pair
    from ..params import apply_permutations

    if permutations is None:
        return read_plain_pair(a, b)
    pair = read_pair(a, b, [permutations], check_source=check_source)
    return pair.params_a, apply_permutations(pair.spec, pair.permutations[0], pair.params_b), pair.notes


def _write(line: Barrier, document: dict[str, Any], out: Path, overwrite: bool) -> None:
    from ..analysis import plot_barrier
    from ..io import atomic_path

    if out.suffix.lower() == ".json":
        with atomic_path(out, overwrite) as temporary:
            temporary.write_text(common.json_text(document) + "\n", encoding="utf-8")
        return
    label = "without permutation" if document["permutations"] is None else "with permutation"
    plot_barrier({label: line}, out, ["loss", *line.metrics])


def _print(line: Barrier, out: Path | None) -> None:
    names = ["loss", *line.metrics]
    print("  ".join(f"{name:>10}" for name in ("lambda", *names, "curve")))
    for index, weight in enumerate(line.lambdas):
        figures = (*(line.series(name)[index] for name in names), line.curve[index])
        print("  ".join([f"{weight:>10.4g}", *(f"{figure:>10.4g}" for figure in figures)]))
    print()
    figures_of = {
        "midpoint": f"{line.midpoint:+.4g}",
        "value": f"{line.value:.4g}",
        "git_re_basin": f"{line.git_re_basin:.4g}",
    }
    common.print_figures({**figures_of, **({} if out is None else {"written": out})})
