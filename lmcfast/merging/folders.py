"""Merge or align checkpoints of any size: the library functions under ``lmcfast merge`` and ``align`` for folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import OptionError
from ..io import read_permutations
from ..io.atomic import StrPath
from ..spec import PermutationSpec
from .choice import FolderOptions, MergedFolder, Progress, plan_families
from .methods import Method, Recipe, check_recipe
from .planning import Plan, check_memory, make_plan
from .run import Run, output_size
from .slots import Setting
from .sources import open_sources


def merge_checkpoints(
    sources: Sequence[StrPath],
    out: StrPath,
    weights: Sequence[float] | None = None,
    spec: str | PermutationSpec | None = None,
    permutations: Sequence[StrPath | Setting] | None = None,
    max_memory: int | None = None,
    resume: bool = True,
    *,
    layer_weights: Sequence[tuple[str, Sequence[float]]] = (),
    method: Method = "linear",
    base: StrPath | None = None,
    scale: float = 1.0,
    density: float = 0.2,
    seed: int = 0,
    options: FolderOptions | None = None,
    callback: Progress | None = None,
) -> MergedFolder:
    """Line models up with the first one and write their merge to the folder ``out``, shard by shard.

    ``sources``: folders of safetensors as Hugging Face stores them, or single files; the first one's shards, dtypes,
    metadata, configuration and tokenizer are the output's. ``weights``: one for each model, equal by default;
    ``layer_weights``: (pattern of keys, weights) where they differ. ``method``: "linear", "slerp", or with a ``base``
    "task_arithmetic", "ties", "dare" (``methods.py``); ``scale``, ``density``, ``seed`` are theirs.
    ``permutations``: of each model after the first (the base last), a permutation file or a setting, in place of a
    match. ``spec``, ``max_memory`` (bytes) and ``resume`` stand for the fields of ``options`` of these names.

    Memory stays bounded, whatever the size; a run that was cut off goes on when it is called again with the same
    arguments, and gives the same bytes. Inputs are only read. Raises ``CheckpointError``, ``InvalidParamsError`` and
    ``SpecError`` naming file and tensor, ``OptionError`` naming the option.
    """
    chosen = options or FolderOptions()
    chosen = replace(
        chosen,
        spec=chosen.spec if spec is None else spec,
        max_memory=chosen.max_memory if max_memory is None else max_memory,
        resume=chosen.resume and resume,
    )
    if len(sources) < 2 and not (base is not None and sources):
        raise OptionError(f"two models or more are needed, not {len(sources)}", "sources")
    equal = 1.0 if method in ("task_arithmetic", "dare") else 1.0 / len(sources)
    recipe = Recipe(
        method,
        tuple(weights) if weights is not None else (equal,) * len(sources),
        tuple((pattern, tuple(some)) for pattern, some in layer_weights),
        scale,
        density,
        seed,
    )
    check_recipe(recipe, len(sources), base is not None)
    paths = [*sources, base] if base is not None else list(sources)
    given = None if permutations is None else _settings(permutations, len(paths) - 1)
    return Run(paths, out, chosen, recipe, callback, given).go()


def _settings(permutations: Sequence[StrPath | Setting], wanted: int) -> list[Setting]:
    if len(permutations) != wanted:
        raise OptionError(
            f"one for each of {wanted} models after the first is needed, not {len(permutations)}", "permutations"
        )
    return [one if isinstance(one, Mapping) else read_permutations(one).permutations for one in permutations]


def align_checkpoint(
    a: StrPath,
    b: StrPath,
    out: StrPath,
    *,
    options: FolderOptions | None = None,
    callback: Progress | None = None,
) -> MergedFolder:
    """Write ``b`` with its units lined up with those of ``a``: the same function, ready for any merge.

    Shards, dtypes, configuration and tokenizer are those of ``b``. Arguments and errors as of
    :func:`merge_checkpoints`.
    """
    return Run([a, b], out, options or FolderOptions(), None, callback).go()


def plan_checkpoints(
    sources: Sequence[StrPath], base: StrPath | None = None, options: FolderOptions | None = None
) -> Plan:
    """What a merge of these checkpoints would take: nothing but headers, and a few MiB to time, is read.

    Errors as of :func:`merge_checkpoints`.
    """
    chosen = options or FolderOptions()
    paths = [*sources, base] if base is not None else list(sources)
    opened = open_sources(paths, any_dtype=chosen.dtype is not None)
    try:
        spec, models, parts = plan_families(opened, chosen)
        check_memory(spec, models, parts, chosen.max_memory)
        sweeps = 1 if chosen.residual == "keep" else 3
        return make_plan(spec, models, parts, output_size(opened[0], chosen.dtype), sweeps)
    finally:
        for source in opened:
            source.close()
