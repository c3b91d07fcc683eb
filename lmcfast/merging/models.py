"""The checkpoints and specs that a run on files begins with, read and checked against each other before any work.

Every message begins with the file that is to blame, and names the other file and the tensor where there is one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import CheckpointError, InvalidParamsError, SpecError
from ..io import PermutationFile, read_checkpoint, read_permutations
from ..io.checkpoint import Checkpoint
from ..io.permutations import FORMAT as PERMUTATION_FORMAT
from ..params import check_finite, check_params
from ..spec import PermutationSpec, spec_from_params
from ..spec.binding import PREFIX_ADVICE, added_prefix
from ..spec.checks import may_lack_entry

StrPath = str | os.PathLike[str]
SpecSource = str | os.PathLike[str] | PermutationSpec

_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class SpecFile:
    """The spec of a file: ``tensors`` where it is a checkpoint, else None; ``notes`` on how it was read."""

    spec: PermutationSpec
    tensors: dict[str, Tensor] | None = None
    notes: tuple[str, ...] = ()


def spec_of_file(path: StrPath) -> SpecFile:
    """The spec of a spec file (``.json``), a permutation file or, found from its tensors, a checkpoint.

    Raises ``CheckpointError`` naming the file, ``SpecError`` where no spec can be derived.
    """
    if Path(path).suffix.lower() in (".json", ".toml"):
        return SpecFile(PermutationSpec.load(path))
    content = read_checkpoint(path)
    if content.metadata.get("format") == PERMUTATION_FORMAT:
        return SpecFile(PermutationSpec.from_json(read_permutations(path).spec_text))
    _check_not_empty(content)
    with naming(path):
        spec = spec_from_params(content.tensors).bind(content.tensors)
    wrapped = [prefix for prefix in _WRAPPERS if all(name.startswith(prefix) for name in content.tensors)]
    notes = tuple(f"{path}: all names begin with {prefix!r}; {PREFIX_ADVICE}" for prefix in wrapped)
    return SpecFile(spec, content.tensors, (*reading_notes(content), *notes))


def read_spec(spec: SpecSource, params: Mapping[str, Tensor]) -> PermutationSpec:
    """A spec from "auto" (derived from the names and shapes of ``params``), a spec file's path, or itself."""
    if isinstance(spec, PermutationSpec):
        return spec
    return spec_from_params(params) if spec == "auto" else PermutationSpec.load(spec)


def read_model(path: StrPath) -> Checkpoint:
    """A checkpoint that holds tensors, all of them finite."""
    model = read_checkpoint(path)
    _check_not_empty(model)
    if model.metadata.get("format") == PERMUTATION_FORMAT:
        raise CheckpointError(f"{path}: is a permutation file, not the checkpoint of a network", str(path))
    check_finite(model.tensors, argument=str(path))
    return model


def fit_pair(
    spec: SpecSource | PermutationFile, model_a: Checkpoint, model_b: Checkpoint, alike: bool = False
) -> PermutationSpec:
    """The spec bound to the sizes of A, with both models checked against each other and against it.

    ``alike``: for a merge, which needs the same tensors of the same types in both.
    """
    _check_names(model_a, model_b, alike)
    if alike:
        _check_types(model_a, model_b)
    if isinstance(spec, PermutationFile):
        return fit_permutations(spec, model_a, model_b)
    if spec == "auto":
        with naming(model_a.path):
            found = spec_from_params(model_a.tensors)
        return _check_models(found, "", model_a, model_b)
    where = "" if isinstance(spec, PermutationSpec) else _misfit(spec)
    return _check_models(read_spec(spec, model_a.tensors), where, model_a, model_b)


def fit_permutations(file: PermutationFile, *models: Checkpoint) -> PermutationSpec:
    """The spec of a permutation file, with the models checked against it."""
    with naming(file.path):
        spec = PermutationSpec.from_json(file.spec_text)
    return _check_models(spec, _misfit(file.path), *models)


def _misfit(path: StrPath) -> str:
    return f": does not fit the spec in {os.fspath(path)}"


def _check_models(spec: PermutationSpec, where: str, *models: Checkpoint) -> PermutationSpec:
    for model in models:
        spec = check_params(spec, model.tensors, argument=f"{model.path}{where}")
    return spec


def _check_not_empty(model: Checkpoint) -> None:
    if not model.tensors:
        within = f" in its entry {model.nested!r}" if model.nested is not None else ""
        raise CheckpointError(f"{model.path}: holds no tensors{within}", str(model.path))


def _check_names(model_a: Checkpoint, model_b: Checkpoint, alike: bool) -> None:
    """Both hold tensors of the same names, but for counters, which a match alone does not need in both."""
    names_a, names_b = (
        {name for name, tensor in model.tensors.items() if alike or not may_lack_entry(tensor)}
        for model in (model_a, model_b)
    )
    if names_a == names_b:
        return
    for has, lacks in ((model_b, model_a), (model_a, model_b)):
        prefix = added_prefix(has.tensors, lacks.tensors)
        if prefix:
            raise InvalidParamsError(
                f"{has.path}: all names of its tensors begin with {prefix!r}, which those of {lacks.path} lack; "
                f"{PREFIX_ADVICE}",
                next(iter(has.tensors)),
            )
    only_a = [name for name in model_a.tensors if name in names_a - names_b]
    only_b = [name for name in model_b.tensors if name in names_b - names_a]
    differences = [
        f"{_counted(names)} only in {model.path} ({'first ' * (len(names) > 1)}{names[0]!r})"
        for names, model in ((only_a, model_a), (only_b, model_b))
        if names
    ]
    raise InvalidParamsError(
        f"{model_b.path}: not the tensors of {model_a.path}: {', '.join(differences)}, "
        f"{len(names_a & names_b)} in both",
        (only_a or only_b)[0],
    )


def _counted(names: Collection[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) != 1)}"


def _check_types(model_a: Checkpoint, model_b: Checkpoint) -> None:
    """The types agree, and the shapes of the tensors that no spec looks at."""
    for name, tensor in model_a.tensors.items():
        shape_a, shape_b = tuple(tensor.shape), tuple(model_b.tensors[name].shape)
        if may_lack_entry(tensor) and shape_a != shape_b:
            raise InvalidParamsError(
                f"{model_b.path}: tensor {name!r} has shape {shape_b}, and {shape_a} in {model_a.path}", name
            )
    differing = [name for name, tensor in model_a.tensors.items() if tensor.dtype != model_b.tensors[name].dtype]
    if differing:
        name = differing[0]
        type_a, type_b = (str(model.tensors[name].dtype).removeprefix("torch.") for model in (model_a, model_b))
        more = f" ({len(differing)} tensors differ so)" if len(differing) > 1 else ""
        raise InvalidParamsError(
            f"{model_b.path}: tensor {name!r} is {type_b} and {type_a} in {model_a.path}{more}; "
            "convert one of the files first",
            name,
        )


@contextmanager
def naming(path: StrPath) -> Iterator[None]:
    """Begin the message of an error about tensors or a spec with the file that they come from."""
    try:
        yield
    except InvalidParamsError as error:
        raise InvalidParamsError(f"{path}: {error}", error.tensor) from error
    except SpecError as error:
        raise SpecError(f"{path}: {error}", error.tensor, error.group) from error


def reading_notes(*models: Checkpoint) -> tuple[str, ...]:
    """Sentences on how the files were read, where that is not plain."""
    notes = []
    for model in models:
        if model.nested is not None:
            beside = f"; left out: {', '.join(model.ignored)}" if model.ignored else ""
            notes.append(f"{model.path}: tensors taken from its entry {model.nested!r}{beside}")
    return tuple(notes)


def unchecked_spec(source: SpecSource | PermutationFile, spec: PermutationSpec, model: Checkpoint) -> str | None:
    """The file that a spec came from if nothing shows that it is right for the network, else None.

    Shapes alone do not show it: only ``verify_spec`` does, on the module. The built-in tables are proved on the
    networks that they know, so what they give counts as shown; so does a permutation file with the same spec.
    """
    if isinstance(source, PermutationFile):
        return None if _is_built_in(spec, model) else str(source.path)
    return None if isinstance(source, PermutationSpec) or source == "auto" else os.fspath(source)


def _is_built_in(spec: PermutationSpec, model: Checkpoint) -> bool:
    try:
        return spec_from_params(model.tensors).fingerprint == spec.fingerprint
    except SpecError:
        return False


def unchecked_note(file: str) -> str:
    """What to tell of a spec file that nothing has proved."""
    return (
        f"{file}: its spec fits the shapes but was not checked on a network; "
        f"lmcfast spec {file} --check MODULE:FACTORY --input-shape SHAPE does that"
    )
