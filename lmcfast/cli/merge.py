"""``lmcfast merge``: line checkpoints up and join them, whole files in memory or folders of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from . import common, folders
from .progress import descent_progress

if TYPE_CHECKING:
    from ..merging import FolderOptions
    from ..merging.files import MatchOptions, MergedFile
    from ..spec import PermutationSpec


_MATCHING = ("spec", "input_shape", "start", "max_sweeps", "restarts", "seed", "fix", "only", "device")
_OF_FILES = ("permutations", "input_shape", "start", "restarts", "device", "ignore_sources", "no_overwrite")
_OF_FOLDERS = (
    "layer_weights", "method", "base", "scale", "density", "residual", "groups", "dtype", "max_memory", "no_prove",
    "no_resume", "dry_run", "diagnose", "log",
)  # fmt: skip

Methods = Annotated[
    str,
    typer.Option("--method", metavar="linear|slerp|task_arithmetic|ties|dare", help="Folders: how tensors are joined."),
]


def merge(
    context: typer.Context,
    models: Annotated[
        list[Path], typer.Argument(metavar="A B [C ...]", help="Checkpoints: two files, or folders. A stays as it is.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="M", help="File or, of folders, folder to write.")],
    permutations: Annotated[
        Path | None,
        typer.Option("--permutations", metavar="P", help="Permutation file to use; without it, match first."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="WA,WB", help="Shares of the models; they add up to 1. Default: equal."),
    ] = None,
    layer_weights: Annotated[
        list[str] | None,
        typer.Option("--layer-weights", metavar="PATTERN=WA,WB", help="Folders: other shares for tensors like these."),
    ] = None,
    method: Methods = "linear",
    base: Annotated[
        Path | None, typer.Option("--base", metavar="FOLDER", help="Folders: the model whose fine-tunes are joined.")
    ] = None,
    scale: Annotated[float, typer.Option("--scale", help="Folders: factor of what is added to --base.")] = 1.0,
    density: Annotated[
        float, typer.Option("--density", help="Folders: share of the differences that ties and dare keep.")
    ] = 0.2,
    residual: folders.Residual = "keep",
    groups: folders.Groups = "ffn,heads,kv,experts",
    dtype: folders.Dtype = None,
    max_memory: folders.MaxMemory = None,
    dry_run: folders.DryRun = False,
    diagnose: folders.Diagnose = False,
    no_prove: folders.NoProve = False,
    no_resume: folders.NoResume = False,
    log: folders.Log = None,
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
    """Line the other models up with A and write their merge.

    Two files are matched in memory, as `lmcfast match` does (or --permutations are used), and averaged; an existing
    output is replaced, in one step and only when all is done. Folders (safetensors, as Hugging Face stores them) are
    read piece by piece, so their size does not matter; M is then a folder with the shards, configuration and tokenizer
    of A. Such a run goes on where it was cut off when the same command is given again.

    Example:
      lmcfast merge a.safetensors b.safetensors -o merged.safetensors
      lmcfast merge a.pt b.pt --permutations p.safetensors --weights 0.7,0.3 -o merged.pt
      lmcfast merge llama-a/ llama-b/ --dry-run --diagnose -o merged/
      lmcfast merge llama-a/ llama-b/ -o merged/
    """
    if models[0].is_dir() and out.suffix.lower() not in common.checkpoint_endings():
        _refuse_useless(context, _OF_FILES, "with folders")
        shares = None if weights is None else folders.numbers(weights, "--weights")
        pairs = folders.layer_weights(layer_weights)
        with common.reporting(debug):
            options = folders.folder_options(
                spec, residual, groups, fix, only, max_sweeps, dtype, max_memory, no_prove, no_resume
            )
            if dry_run:
                _plan(models, base, options, diagnose, as_json)
            else:
                _merge_folders(models, out, shares, pairs, method, base, scale, density, seed, options, log, as_json)
        return
    _refuse_useless(context, _OF_FOLDERS, "on files")
    if len(models) != 2:
        raise typer.BadParameter(f"of files two are merged, not {len(models)}", param_hint="A B")
    useless = ("ignore_sources",) if permutations is None else _MATCHING
    _refuse_useless(context, useless, f"{'without' if permutations is None else 'with'} --permutations")
    weight = _weight_of_b(weights or "0.5,0.5")
    common.check_ending(out, common.checkpoint_endings())
    with common.reporting(debug):
        specs = common.spec_inputs(spec, input_shape) if permutations is None else ()
        further = () if permutations is None else (permutations,)
        common.check_early((*models, *further), out, no_overwrite, specs)
        matching = common.match_options(start, max_sweeps, restarts, seed, fix, only, device)
        source = common.spec_source(spec, input_shape)
        _merge_files(models, out, permutations, source, weight, matching, not ignore_sources, not no_overwrite, as_json)


def _merge_files(
    models: list[Path],
    out: Path,
    permutations: Path | None,
    spec: str | PermutationSpec,
    weight: float,
    options: MatchOptions,
    check_source: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    from ..merging.files import merge_files

    with descent_progress(options.restarts) as callback:
        done = merge_files(
            models[0],
            models[1],
            out,
            permutations=permutations,
            spec=spec,
            weight=weight,
            options=options,
            check_source=check_source,
            overwrite=overwrite,
            callback=callback,
        )
    common.print_notes(done.notes)
    if as_json:
        common.print_json(_json(done))
    else:
        common.print_figures(_figures(done))


def _plan(models: list[Path], base: Path | None, options: FolderOptions, diagnosed: bool, as_json: bool) -> None:
    from ..merging import plan_checkpoints

    plan = plan_checkpoints(models, base, options)
    diagnosis = None
    if diagnosed:
        from ..analysis import diagnose_checkpoints

        diagnosis = diagnose_checkpoints(models[0], models[1], options)
    folders.print_plan(plan, diagnosis, as_json)


def _merge_folders(
    models: list[Path],
    out: Path,
    weights: tuple[float, ...] | None,
    layer_weights: list[tuple[str, tuple[float, ...]]],
    method: str,
    base: Path | None,
    scale: float,
    density: float,
    seed: int,
    options: FolderOptions,
    log: Path | None,
    as_json: bool,
) -> None:
    from ..merging import merge_checkpoints

    with common.keeping(folders.KEPT), folders.folder_progress(as_json, log) as callback:
        done = merge_checkpoints(
            models,
            out,
            weights=weights,
            layer_weights=layer_weights,
            method=cast("Any", method),
            base=base,
            scale=scale,
            density=density,
            seed=seed,
            options=options,
            callback=callback,
        )
    folders.print_merged(done, as_json)


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


def _refuse_useless(context: typer.Context, useless: Sequence[str], where: str) -> None:
    """Options without an effect are refused: whoever gives them expects one."""
    for name in useless:
        common.refuse_given(context, name, where)
