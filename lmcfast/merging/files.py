"""Match, align and merge two checkpoint files: the library functions under the commands, which print nothing.

Each checks its output path before it reads anything, never writes over one of its inputs and writes its
result whole or not at all.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from .. import __version__
from ..errors import CheckpointError, OptionError, UnavailableError
from ..io import (
    PermutationFile,
    check_output,
    check_sources,
    check_writable,
    read_permutations,
    same_file,
    save_checkpoint,
    weight_files,
    weights_sha256,
)
from ..matching import MatchResult, Step, weight_matching
from ..matching.start import Start
from ..params import apply_permutations, distance, interpolate
from ..spec import PermutationSpec
from .batchnorm import UnresetBatchNormWarning
from .models import (
    Fit,
    SpecSource,
    StrPath,
    fit_pair,
    fit_permutations,
    read_model,
    reading_notes,
    unchecked_note,
    unchecked_spec,
)


@dataclass(frozen=True)
class MatchOptions:
    """How weight matching searches: arguments of ``weight_matching``, which explains them."""

    start: Start = "best"
    max_sweeps: int = 100
    restarts: int = 1
    seed: int = 0
    fix: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    device: str | None = None


@dataclass(frozen=True)
class MatchSummary:
    """What a match achieved.

    ``objective`` and ``gap`` as in ``MatchResult``. ``distance_before`` and ``distance_after``: L2 distance
    of A and B, and of A and the aligned B, over all scored tensors. ``groups``: {group: (units, units that
    moved)}. ``sweeps``, ``converged`` and ``seconds`` are None where the permutations were read from a file.
    """

    objective: float
    gap: float
    distance_before: float
    distance_after: float
    groups: dict[str, tuple[int, int]]
    sweeps: int | None = None
    converged: bool | None = None
    seconds: float | None = None

    @property
    def reduction(self) -> float:
        """By what fraction the distance shrank: 0.25 where a quarter of it is gone."""
        return 1.0 - self.distance_after / self.distance_before if self.distance_before > 0 else 0.0


@dataclass(frozen=True)
class MatchedFiles:
    """Result of :func:`match_files`; ``notes`` are sentences about how the files were read.

    ``unchecked_spec``: the file that the spec was read from; that it is right for the network was not shown.
    """

    result: MatchResult
    summary: MatchSummary
    out: Path | None
    notes: tuple[str, ...] = ()
    unchecked_spec: str | None = None


@dataclass(frozen=True)
class AppliedFile:
    """Result of :func:`apply_file`: ``groups`` is {group: (units, units that moved)}.

    ``unchecked_spec``: the permutation file, where its spec is not one that lmcfast's own tables give.
    """

    out: Path
    groups: dict[str, tuple[int, int]]
    tensors: int
    notes: tuple[str, ...] = ()
    unchecked_spec: str | None = None


@dataclass(frozen=True)
class MergedFile:
    """Result of :func:`merge_files`.

    ``weights`` of A and B. ``averaged_statistics``: running statistics (BatchNorm) that were averaged and are
    wrong until they are computed anew. ``kept_from_a``: integer and bool tensors that differ and were taken
    from A. ``unchecked_spec``: as of the results above.
    """

    out: Path
    summary: MatchSummary
    weights: tuple[float, float]
    tensors: int
    averaged_statistics: tuple[str, ...]
    kept_from_a: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unchecked_spec: str | None = None


def match_files(
    a: StrPath,
    b: StrPath,
    out: StrPath | None = None,
    *,
    spec: SpecSource = "auto",
    options: MatchOptions | None = None,
    overwrite: bool = True,
    callback: Callable[[Step], object] | None = None,
) -> MatchedFiles:
    """Match the units of checkpoint ``b`` to those of ``a``; write the permutation file ``out`` if given.

    A checkpoint is a file, or a folder with ``model.safetensors`` or ``pytorch_model.bin``, whole or in parts with an
    index. ``spec``: "auto" (by the ``config.json`` of a folder, else from the tensors' names and shapes), what
    :func:`read_spec` reads, or a spec; keys of the checkpoints are led to its names by ``match_names``. ``callback``
    receives each step of the descent. Raises ``CheckpointError`` (a file), ``SpecError`` (the spec does not
    fit), ``InvalidParamsError`` (tensors that do not fit, NaN), each naming file and tensor, and ``OptionError``
    (``fix`` or ``only`` names no group, or together they leave none that may move).
    """
    if out is not None:
        check_writable(out, overwrite)
        _check_distinct(out, a, b)
    model_a, model_b = read_model(a), read_model(b)
    fit = fit_pair(spec, model_a, model_b)
    result, summary = _match(fit.spec, fit.params(model_a), fit.params(model_b), options, callback)
    if out is not None:
        sources = {"a": weights_sha256(a), "b": weights_sha256(b)}
        result.save(out, sources=sources)
    unchecked = unchecked_spec(spec, fit, model_a)
    notes = (*reading_notes(model_a, model_b), *_spec_notes(unchecked))
    return MatchedFiles(result, summary, Path(out) if out is not None else None, notes, unchecked)


def apply_file(
    permutations: StrPath,
    b: StrPath,
    out: StrPath,
    *,
    check_source: bool = True,
    overwrite: bool = True,
) -> AppliedFile:
    """Write checkpoint ``b`` with its units reordered by a permutation file, which holds the spec too.

    ``check_source``: refuse a ``b`` that is not byte for byte the file that the permutations were computed
    for. The keys and the safetensors metadata of ``b`` are kept. Errors as in :func:`match_files`.
    """
    check_output(out, overwrite)
    _check_distinct(out, permutations, b)
    file = read_permutations(permutations)
    if check_source:
        check_sources(file, {"b": b})
    model = read_model(b)
    fit = fit_permutations(file, model)
    aligned = fit.tensors(apply_permutations(fit.spec, file.permutations, fit.params(model)), model)
    save_checkpoint(out, aligned, model.metadata, overwrite)
    unchecked = unchecked_spec(file, fit, model)
    notes = (*reading_notes(model), *_spec_notes(unchecked))
    return AppliedFile(Path(out), _moved(file.permutations), len(aligned), notes, unchecked)


def merge_files(
    a: StrPath,
    b: StrPath,
    out: StrPath,
    *,
    permutations: StrPath | None = None,
    spec: SpecSource = "auto",
    weight: float = 0.5,
    options: MatchOptions | None = None,
    check_source: bool = True,
    overwrite: bool = True,
    callback: Callable[[Step], object] | None = None,
) -> MergedFile:
    """Write (1 - weight) A + weight (aligned B), after matching or with the permutations of a file.

    With ``permutations`` the spec is read from that file, ``spec`` and ``options`` are not used, and
    ``check_source`` makes sure that it was made for these two files. The keys and safetensors metadata of ``a``
    are kept and an entry ``lmcfast.merge`` added. Warns with ``UnresetBatchNormWarning`` where running statistics
    were averaged. Errors as in :func:`match_files`.
    """
    check_output(out, overwrite)
    _check_distinct(out, a, b, *([permutations] if permutations is not None else []))
    file = read_permutations(permutations) if permutations is not None else None
    if file is not None and check_source:
        check_sources(file, {"a": a, "b": b})
    model_a, model_b = read_model(a), read_model(b)
    source = spec if file is None else file
    fit = fit_pair(source, model_a, model_b, alike=True)
    params_a, params_b = fit.params(model_a), fit.params(model_b)
    if file is not None:
        aligned = apply_permutations(fit.spec, file.permutations, params_b)
        summary = _summary(fit.spec, file, params_a, params_b, aligned)
    else:
        result, summary = _match(fit.spec, params_a, params_b, options, callback)
        aligned = result.apply(params_b)
    merged = fit.tensors(interpolate(params_a, aligned, weight), model_a)
    save_checkpoint(out, merged, {**model_a.metadata, "lmcfast.merge": _provenance(a, b, weight)}, overwrite)
    statistics = _averaged(fit.spec, params_a, weight)
    if statistics:
        warnings.warn(_advice(statistics), UnresetBatchNormWarning, stacklevel=2)
    unchecked = unchecked_spec(source, fit, model_a)
    aligned_b = fit.tensors(aligned, model_b)
    return MergedFile(
        Path(out),
        summary,
        (1.0 - weight, weight),
        len(merged),
        statistics,
        tuple(name for name in merged if _is_kept(fit, name, model_a.tensors[name], aligned_b[name])),
        (*reading_notes(model_a, model_b), *_spec_notes(unchecked)),
        unchecked,
    )


def _match(
    spec: PermutationSpec,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    options: MatchOptions | None,
    callback: Callable[[Step], object] | None,
) -> tuple[MatchResult, MatchSummary]:
    chosen = options or MatchOptions()
    _check_device(chosen.device)
    _check_choice(spec, chosen)
    begin = time.perf_counter()
    result = weight_matching(
        spec,
        params_a,
        params_b,
        start=chosen.start,
        max_sweeps=chosen.max_sweeps,
        restarts=chosen.restarts,
        seed=chosen.seed,
        device=chosen.device,
        fix=chosen.fix,
        only=chosen.only,
        callback=callback,
    )
    seconds = time.perf_counter() - begin
    summary = MatchSummary(
        result.objective,
        result.gap,
        distance(spec, params_a, params_b),
        distance(spec, params_a, result.apply(params_b)),
        _moved(result.permutations),
        result.sweeps,
        result.converged,
        seconds,
    )
    return result, summary


def _check_device(device: str | None) -> None:
    """Refuse, before torch does it at length, a device that is none of cpu, cuda, cuda:N or that is not here."""
    if device is None or device == "cpu":
        return
    kind, colon, number = device.partition(":")
    if kind != "cuda" or (bool(colon) and not (number.isascii() and number.isdigit())):
        raise OptionError(f"must be cpu, cuda or cuda:N, not {device!r}", "device")
    if torch.version.cuda is None and torch.version.hip is None:
        raise UnavailableError(f"device {device!r} is not available: this build of torch has no CUDA")
    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        raise UnavailableError(f"device {device!r} is not available: torch sees {count} CUDA devices here")


def _check_choice(spec: PermutationSpec, chosen: MatchOptions) -> None:
    """Every pattern of ``fix`` and ``only`` matches a group, and they leave one that may move, if there was one."""
    for option, patterns in (("fix", chosen.fix), ("only", chosen.only or ())):
        for pattern in patterns:
            if not any(fnmatchcase(group, pattern) for group in spec.groups):
                some = ", ".join([*list(spec.groups)[:8], *["..."] * (len(spec.groups) > 8)])
                raise OptionError(f"{pattern!r} matches no group; there are {some}", option)
    left = [
        group
        for group in spec.movable_groups
        if (chosen.only is None or any(fnmatchcase(group, pattern) for pattern in chosen.only))
        and not any(fnmatchcase(group, pattern) for pattern in chosen.fix)
    ]
    if spec.movable_groups and not left:
        raise OptionError("leaves no group that may move", "fix" if chosen.fix else "only")


def _spec_notes(unchecked: str | None) -> tuple[str, ...]:
    return () if unchecked is None else (unchecked_note(unchecked),)


def _summary(
    spec: PermutationSpec,
    file: PermutationFile,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    aligned: Mapping[str, Tensor],
) -> MatchSummary:
    """The figures of permutations that were read from a file, for these two models."""
    before, after = distance(spec, params_a, params_b), distance(spec, params_a, aligned)
    return MatchSummary(file.objective, file.gap, before, after, _moved(file.permutations))


def _check_distinct(out: StrPath, *inputs: StrPath) -> None:
    for path in inputs:
        if any(same_file(out, file) for file in (path, *weight_files(path))):
            raise CheckpointError(f"{out}: the output would overwrite an input", str(out))


def _moved(permutations: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Units of each group, over all its inner permutations, and how many changed their place."""
    counts = {}
    for group, permutation in permutations.items():
        still = permutation.eq(torch.arange(permutation.shape[-1]))
        counts[group] = (permutation.numel(), permutation.numel() - int(still.sum()))
    return counts


def _is_kept(fit: Fit, name: str, tensor_a: Tensor, tensor_b: Tensor) -> bool:
    """Whether the merge holds A's tensor because it cannot be averaged and differs; batch counters are no news."""
    averaged = (tensor_a.is_floating_point() or tensor_a.is_complex()) and name not in fit.carried
    return not averaged and not name.endswith("num_batches_tracked") and not tensor_a.equal(tensor_b)


def _provenance(a: StrPath, b: StrPath, weight: float) -> str:
    models = [Path(a).name, Path(b).name]
    return json.dumps({"lmcfast": __version__, "models": models, "weights": [1.0 - weight, weight]})


def _averaged(spec: PermutationSpec, params: Mapping[str, Tensor], weight: float) -> tuple[str, ...]:
    if weight in (0.0, 1.0):
        return ()
    return tuple(name for name in params if name in spec.buffers and params[name].is_floating_point())


def _advice(statistics: tuple[str, ...]) -> str:
    return (
        f"{len(statistics)} running statistics were averaged ({statistics[0]}, ...) and do not fit the merged "
        "weights: compute them anew with lmcfast.reset_batchnorm(module, batches) before use"
    )
