"""``lmcfast study``: repeat the paper's experiments on a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from . import common
from .progress import stage_progress

if TYPE_CHECKING:
    from ..study.data import Dataset
    from ..study.settings import StudySettings

_NETWORKS = ("mlp", "vgg11", "resnet20")
_METHODS = ("wm", "am", "ste", "ste-random")
_VGG_SIDE = 32


def study(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where all of it is kept.")] = Path(
        "lmcfast-study"
    ),
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE|FOLDER",
            help="An .npz file, or the folder of IDX files or CIFAR-10's batches; default scikit-learn's digits.",
        ),
    ] = None,
    network: Annotated[str, typer.Option("--network", metavar="|".join(_NETWORKS), help="What is trained.")] = "mlp",
    width: Annotated[
        float | None,
        typer.Option("--width", metavar="N", help="Units of the MLP's layers (512), or times the channels."),
    ] = None,
    methods: Annotated[
        str, typer.Option("--methods", metavar="wm,am,ste", help="Weights, activations, straight-through.")
    ] = "wm,am,ste",
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="S,S,...", help="Of the trainings; default 1,2,3,4,5 (1,2,3).")
    ] = None,
    searches: Annotated[int | None, typer.Option("--searches", metavar="N", min=1, help="Pairs of networks.")] = None,
    triples: Annotated[int | None, typer.Option("--triples", metavar="N", min=0, help="Threes of networks.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", metavar="N", min=1, help="Of each training.")] = None,
    ste_epochs: Annotated[
        float | None, typer.Option("--ste-epochs", metavar="N", help="Passes of the straight-through estimator.")
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", metavar="N", min=1, help="Measure on at most so many images.")
    ] = None,
    pad: Annotated[
        int | None, typer.Option("--pad", metavar="N", min=1, help="Zeros around the images up to N x N; vgg11: 32.")
    ] = None,
    as_json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Repeat the paper's experiments and check its claims.

    Trains networks from several seeds, matches them by their weights, their activations and the straight-through
    estimator, measures barriers, distances and singular vectors, and says claim by claim what was reproduced. FOLDER
    gets checkpoints, permutations, study.json, study.md and study.html. Stopped anywhere, the same command goes on.

    Example:
      lmcfast study
      lmcfast study --data fashion_mnist.npz --network resnet20 -o resnet
    """
    chosen = [part.strip() for part in methods.split(",")]
    _known("--network", [network], _NETWORKS)
    _known("--methods", chosen, _METHODS)
    numbers = None if seeds is None else _numbers(seeds)
    with common.reporting(debug):
        from ..io import check_writable_folder

        check_writable_folder(out)
        from ..study.readers import load_dataset

        content = _padded(load_dataset(data), network, pad)
        given = {"searches": searches, "triples": triples, "ste_epochs": ste_epochs, "images": images}
        settings = _settings(network, content, width, numbers, epochs, chosen, given)
        from ..study.report import check_reports, write_report
        from ..study.run import run_study

        check_reports()
        kept = f"what is done is kept in {out}, and the same command goes on"
        with common.keeping(kept), stage_progress() as progress:
            result = run_study(out, content, settings, progress)
            files = write_report(out, result)
        if as_json:
            common.print_json({"out": out, "claims": _claims(result), "files": files})
        else:
            _print(result, files)


def _known(option: str, values: list[str], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise typer.BadParameter(f"must be of {', '.join(known)}, not {value!r}", param_hint=option)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"must be whole numbers as 1,2,3, not {text!r}", param_hint="--seeds") from None


def _padded(data: Dataset, network: str, side: int | None) -> Dataset:
    from ..study.readers import padded

    height, width = data.train_inputs.shape[-2:]
    if side is None and network == "vgg11" and max(height, width) <= _VGG_SIDE:
        side = _VGG_SIDE
    try:
        return data if side is None else padded(data, side)
    except ValueError as error:
        raise _bad(error) from None


def _settings(
    network: str,
    data: Dataset,
    width: float | None,
    seeds: tuple[int, ...] | None,
    epochs: int | None,
    methods: list[str],
    given: dict[str, Any],
) -> StudySettings:
    from ..study.settings import default_settings

    changes = {name: value for name, value in given.items() if value is not None}
    try:
        settings = default_settings(cast("Any", network), data, width, seeds, epochs)
        if "images" in changes:
            changes["costly_images"] = min(changes["images"], settings.costly_images)
        settings = replace(settings, methods=tuple(methods), **changes)
        settings.factory(data)()  # a width that leaves a layer without units
    except ValueError as error:
        raise _bad(error) from None
    return settings


def _bad(error: ValueError) -> typer.BadParameter:
    """An error that begins with the name of a setting, as one of the option."""
    name, colon, text = str(error).partition(": ")
    return typer.BadParameter(
        text if colon else str(error), param_hint=f"--{name.replace('_', '-')}" if colon else None
    )


def _claims(result: dict[str, Any]) -> list[dict[str, object]]:
    from ..study.claims import study_claims

    return [
        {"claim": one.number, "text": one.text, "measured": one.figures, "verdict": one.verdict}
        for one in study_claims(result)
    ]


def _print(result: dict[str, Any], files: dict[str, Path]) -> None:
    from ..study.claims import study_claims
    from ..study.report import verdict

    for claim in study_claims(result):
        measured = f": {claim.figures}" if claim.figures else ""
        print(f"{claim.number:<4} {claim.verdict:<14} {claim.text}{measured}")
    print()
    common.print_figures({"verdict": verdict(result), "written": ", ".join(map(str, files.values()))})
