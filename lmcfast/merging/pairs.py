"""Two checkpoint files and the permutations between them, for whoever looks at both: nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import CheckpointError
from ..io import check_sources, read_permutations
from ..matching import MatchResult, Step
from ..spec import PermutationSpec
from .files import MatchOptions, match_files
from .models import SpecSource, StrPath, fit_pair, read_model, reading_notes, unchecked_note
from .models import unchecked_spec as unchecked_file


@dataclass(frozen=True)
class AlignedPair:
    """A and B under the names in the spec, and one setting of it for each permutation file, or the one of a match.

    ``match``: None where the permutations were read from files. ``notes`` are sentences about how the files were read.
    """

    spec: PermutationSpec
    params_a: dict[str, torch.Tensor]
    params_b: dict[str, torch.Tensor]
    permutations: tuple[Mapping[str, torch.Tensor], ...]
    match: MatchResult | None
    notes: tuple[str, ...]


def read_plain_pair(a: StrPath, b: StrPath) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], tuple[str, ...]]:
    """The tensors of two checkpoints as they stand, and notes. Errors as of :func:`match_files`."""
    model_a, model_b = read_model(a), read_model(b)
    return model_a.tensors, model_b.tensors, reading_notes(model_a, model_b)


def read_pair(
    a: StrPath,
    b: StrPath,
    permutations: Sequence[StrPath] = (),
    *,
    spec: SpecSource = "auto",
    options: MatchOptions | None = None,
    check_source: bool = True,
    callback: Callable[[Step], object] | None = None,
) -> AlignedPair:
    """Read two checkpoints with their permutations; without any, match them.

    ``permutations``: files of one spec, which is read from them; ``spec`` and ``options`` are then not used, and
    ``check_source`` makes sure that they were made for these two files. Errors as of :func:`match_files`; a
    ``CheckpointError`` also for permutation files of different specs.
    """
    if not permutations:
        done = match_files(a, b, spec=spec, options=options, callback=callback)
        model_a, model_b = read_model(a), read_model(b)
        fit = fit_pair(spec, model_a, model_b)
        settings: tuple[Mapping[str, torch.Tensor], ...] = (done.result.permutations,)
        return AlignedPair(fit.spec, fit.params(model_a), fit.params(model_b), settings, done.result, done.notes)
    files = [read_permutations(path) for path in permutations]
    model_a, model_b = read_model(a), read_model(b)
    fits = []
    for file in files:
        if check_source:
            check_sources(file, {"a": a, "b": b})
        fits.append(fit_pair(file, model_a, model_b))
    for path, fit in zip(permutations, fits, strict=True):
        if fit.spec.fingerprint != fits[0].spec.fingerprint:
            raise CheckpointError(f"{path}: made with another spec than {permutations[0]}", str(path))
    fit = fits[0]
    unchecked = unchecked_file(files[0], fit, model_a)
    notes = (*reading_notes(model_a, model_b), *(() if unchecked is None else (unchecked_note(unchecked),)))
    settings = tuple(file.permutations for file in files)
    return AlignedPair(fit.spec, fit.params(model_a), fit.params(model_b), settings, None, notes)
