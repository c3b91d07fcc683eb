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

from ..errors import CheckpointError, InvalidParamsError, LmcfastError, SpecError
from ..io import SUFFIXES, PermutationFile, read_permutations, read_weights
from ..io.checkpoint import Checkpoint
from ..io.permutations import FORMAT as PERMUTATION_FORMAT
from ..params import check_finite, check_params
from ..spec import NameMap, PermutationSpec, match_names, spec_for, spec_from_params
from ..spec.binding import PREFIX_ADVICE, added_prefix
from ..spec.checks import may_lack_entry
from ..spec.configuration import CONFIG
from ..spec.stacks import members, stacked, unstacked

StrPath = str | os.PathLike[str]
SpecSource = str | os.PathLike[str] | PermutationSpec

_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class SpecFile:
    """The spec of a file: ``tensors`` where it is a checkpoint, else None; ``notes`` on how it was read."""

    spec: PermutationSpec
    tensors: dict[str, Tensor] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fit:
    """A spec bound to the sizes of a checkpoint, and how the checkpoint's keys lead to the names in it.

    ``names`` is None where the keys are the names already.
    """

    spec: PermutationSpec
    names: NameMap | None = None

    def params(self, model: Checkpoint) -> dict[str, Tensor]:
        """The checkpoint's tensors as the spec names them, those of a stack one by one."""
        return model.tensors if self.names is None else _params(self.spec, self.names, model)

    def tensors(self, params: dict[str, Tensor], model: Checkpoint) -> dict[str, Tensor]:
        """``params`` under the keys of the checkpoint, in its order, with what it holds beside them."""
        if self.names is None:
            return params
        return self.names.to_checkpoint(stacked(self.spec, params), model.tensors)

    @property
    def carried(self) -> tuple[str, ...]:
        """Keys of tensors that no name in the spec needs, and that are copied."""
        return () if self.names is None else self.names.carried


def _params(spec: PermutationSpec, names: NameMap, model: Checkpoint) -> dict[str, Tensor]:
    return unstacked(spec, names.to_module(model.tensors))


def spec_of_file(path: StrPath) -> SpecFile:
    """The spec of a spec file (``.json``), a permutation file or, found from its tensors, a checkpoint.

    Raises ``CheckpointError`` naming the file, ``SpecError`` where no spec can be derived.
    """
    if Path(path).suffix.lower() in (".json", ".toml"):
        return SpecFile(PermutationSpec.load(path))
    content = read_weights(path)
    if content.metadata.get("format") == PERMUTATION_FORMAT:
        return SpecFile(PermutationSpec.from_json(read_permutations(path).spec_text))
    _check_not_empty(content)
    with naming(path):
        spec = spec_from_params(content.tensors).bind(content.tensors)
    wrapped = [prefix for prefix in _WRAPPERS if all(name.startswith(prefix) for name in content.tensors)]
    notes = tuple(f"{path}: all names begin with {prefix!r}; {PREFIX_ADVICE}" for prefix in wrapped)
    return SpecFile(spec, content.tensors, (*reading_notes(content), *notes))


def read_spec(spec: SpecSource, params: Mapping[str, Tensor]) -> PermutationSpec:
    """A spec from "auto" (derived from the names and shapes of ``params``), a file or folder, or itself.

    A folder or ``config.json`` gives the spec of its configuration; a spec file or permutation file holds one; that of
    a checkpoint is derived from its tensors.
    """
    if isinstance(spec, PermutationSpec):
        return spec
    if spec == "auto":
        return spec_from_params(params)
    path = Path(spec)
    if is_configured(path):
        with naming(path):
            return spec_for(path)
    return spec_of_file(path).spec if path.is_dir() or path.suffix in SUFFIXES else PermutationSpec.load(path)


def is_configured(path: StrPath) -> bool:
    """Whether a path is a configuration, or a folder with one."""
    return Path(path).name == CONFIG or (Path(path) / CONFIG).exists()


def automatic_spec(*models: Checkpoint) -> PermutationSpec:
    """The spec by the configuration of the first model that has one, else from the first one's names and shapes."""
    for model in models:
        if is_configured(model.path):
            return read_spec(model.path, model.tensors)
    with naming(models[0].path):
        return spec_from_params(models[0].tensors)


def read_model(path: StrPath) -> Checkpoint:
    """A checkpoint that holds tensors, all of them finite."""
    model = read_weights(path)
    _check_not_empty(model)
    if model.metadata.get("format") == PERMUTATION_FORMAT:
        raise CheckpointError(f"{path}: is a permutation file, not the checkpoint of a network", str(path))
    check_finite(model.tensors, argument=str(path))
    return model


def fit_pair(spec: SpecSource | PermutationFile, model_a: Checkpoint, model_b: Checkpoint, alike: bool = False) -> Fit:
    """The spec bound to the sizes of A, with both models checked against each other and against it.

    ``alike``: for a merge, which needs the same tensors of the same types in both.
    """
    _check_names(model_a, model_b, alike)
    if alike:
        _check_types(model_a, model_b)
    if isinstance(spec, PermutationFile):
        return fit_permutations(spec, model_a, model_b)
    if isinstance(spec, PermutationSpec):
        return _fit(spec, "", model_a, model_b)
    if spec == "auto":
        return _fit(automatic_spec(model_a, model_b), "", model_a, model_b)
    return _fit(read_spec(spec, model_a.tensors), _misfit(spec), model_a, model_b)


def fit_permutations(file: PermutationFile, *models: Checkpoint) -> Fit:
    """The spec of a permutation file, with the models checked against it."""
    with naming(file.path):
        spec = PermutationSpec.from_json(file.spec_text)
    return _fit(spec, _misfit(file.path), *models)


def _misfit(path: StrPath) -> str:
    return f": does not fit the spec in {os.fspath(path)}"


def _fit(spec: PermutationSpec, where: str, *models: Checkpoint) -> Fit:
    """All models hold the same tensors but for counters, so what leads the first one's keys leads them all."""
    names = None
    if not _speaks(spec, models[0]):
        spare = {name for model in models for name, tensor in model.tensors.items() if may_lack_entry(tensor)}
        with naming(f"{models[0].path}{where}"):
            names = match_names(spec, models[0].tensors, spare)
    for model in models:
        params = model.tensors if names is None else _params(spec, names, model)
        spec = check_params(spec, stacked(spec, params), argument=f"{model.path}{where}")
    return Fit(spec, names)


def _speaks(spec: PermutationSpec, model: Checkpoint) -> bool:
    """Whether the checkpoint's keys are the names in the spec, those of a stack one by one or whole."""
    keys = set(model.tensors)
    parts = {name: set(members(name, number)) for name, number in spec.stacks.items()}
    known = {*spec.axes, *(part for names in parts.values() for part in names)}
    return all(name in keys or (name in parts and parts[name] <= keys) for name in spec.axes) and all(
        key in known or may_lack_entry(tensor) for key, tensor in model.tensors.items()
    )


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


def unchecked_spec(source: SpecSource | PermutationFile, fit: Fit, model: Checkpoint) -> str | None:
    """The file that a spec came from if nothing shows that it is right for the network, else None.

    Shapes alone do not show it: only ``verify_spec`` does, on the module. The built-in tables are proved on the
    networks that they know, so what they give counts as shown, and what a configuration gives; so does a permutation
    file with the same spec.
    """
    if isinstance(source, PermutationSpec) or source == "auto":
        return None
    path = source.path if isinstance(source, PermutationFile) else Path(source)
    shown = is_configured(path) or (path.suffix in SUFFIXES and _is_built_in(fit, model))
    return None if shown else str(path)


def _is_built_in(fit: Fit, model: Checkpoint) -> bool:
    try:
        built_in = automatic_spec(model).bind(stacked(fit.spec, fit.params(model)))
    except LmcfastError:
        return False
    return built_in.fingerprint == fit.spec.fingerprint or built_in.same(fit.spec)


def unchecked_note(file: str) -> str:
    """What to tell of a spec file that nothing has proved."""
    return (
        f"{file}: its spec fits the shapes but was not checked on a network; "
        f"lmcfast spec {file} --check MODULE:FACTORY --input-shape SHAPE does that"
    )
