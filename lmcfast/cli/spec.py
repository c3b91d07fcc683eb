"""``lmcfast spec``: show which tensors move together, write it down, prove it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidInputsError, InvalidParamsError
from . import common
from .code import derived, example_inputs, is_code, make_module, parse_shape

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..spec import PermutationSpec


_ITSELF = "itself"
"""What ``--check`` says where it is given without a value."""


def with_bare_check(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--check`` given a value where it has none: an option whose value may be left out."""
    given: list[str] = []
    for k, argument in enumerate(arguments):
        given.append(argument)
        if argument == "--check" and (k + 1 == len(arguments) or arguments[k + 1].startswith("-")):
            given.append(_ITSELF)
    return given


def spec(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|FOLDER|MODULE:FACTORY",
            help="Checkpoint, spec file (.json, .toml), permutation file; folder with a config.json; or code.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="SPEC", help="Spec file to write (.json, .toml).")
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="[MODULE:FACTORY]",
            help="Prove the spec on the network that this returns (not needed for a folder or code).",
        ),
    ] = None,
    input_shape: Annotated[
        list[str] | None,
        typer.Option("--input-shape", metavar="1,3,32,32", help="Shape of an input of it (may be repeated)."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="List every place, fixed axis and buffer.")] = False,
    no_overwrite: common.NoOverwrite = False,
    as_json: common.Json = False,
    debug: common.Debug = False,
) -> None:
    """Show which tensors move together, and prove it.

    A checkpoint's spec is found from its tensors' names and shapes; a folder's from its configuration; the network
    that MODULE:FACTORY returns is traced. A .json or .toml file, or a permutation file, holds a spec.

    --check applies random permutations to the real network and compares its outputs in float64; a checkpoint
    is loaded into the network first, and of a folder's network two layers with random weights are tried. An existing
    SPEC is replaced, in one step.

    Example:
      lmcfast spec a.safetensors -o spec.json
      lmcfast spec a.safetensors --check my_networks:make_mlp --input-shape 8,64
      lmcfast spec my_networks:make_mlp --input-shape 8,64 --check -o spec.toml
    """
    if out is not None:
        common.check_ending(out, (".json", ".toml"))
    shapes = [parse_shape(text) for text in input_shape or []]
    path = Path(file)
    from_code = is_code(file)
    is_config = path.is_dir() or path.name == "config.json"
    _check_use(check, shapes, from_code, is_config)
    with common.reporting(debug):
        common.check_early(() if from_code or is_config else (path,), out, no_overwrite)
        proof: str | None = None
        notes: tuple[str, ...] = ()
        if from_code:
            traced = make_module(file, "MODULE:FACTORY")
            found = derived(traced, shapes)
            proof = _prove(found, traced, None, shapes, path) if check is not None else None
        elif is_config:
            found, proof = _of_configuration(path, check is not None)
        else:
            module = make_module(check) if check is not None else None
            from ..merging import spec_of_file

            content = spec_of_file(path)
            found, notes = content.spec, content.notes
            proof = _prove(found, module, content.tensors, shapes, path) if module is not None else None
        if out is not None:
            found.save(out)
        common.print_notes(notes)
        if as_json:
            document = {"file": file, "spec": json.loads(found.to_json())}
            verified = None if proof is None else True
            common.print_json({**document, "verified": verified, "out": out, "notes": notes})
        else:
            print(found.report().text(full, common.columns() or 100))
            if proof is not None:
                print(proof)
            if out is not None:
                print(f"written  {out}")


def _check_use(check: str | None, shapes: list[tuple[int, ...]], from_code: bool, is_config: bool) -> None:
    """Options that do not go together."""
    if from_code and not shapes:
        raise typer.BadParameter("the network's inputs are needed", param_hint="--input-shape")
    if (from_code or is_config) and check not in (None, _ITSELF):
        raise typer.BadParameter("takes no value here: the network is known", param_hint="--check")
    if not (from_code or is_config) and check == _ITSELF:
        raise typer.BadParameter("needs MODULE:FACTORY, the network of the file", param_hint="--check")
    if not (from_code or is_config) and check is not None and not shapes:
        raise typer.BadParameter("needs --input-shape", param_hint="--check")
    if not from_code and shapes and (check is None or is_config):
        raise typer.BadParameter("has no effect without --check", param_hint="--input-shape")


def _of_configuration(path: Path, check: bool) -> tuple[PermutationSpec, str | None]:
    """The spec of a Hugging Face folder or configuration, and its proof."""
    from ..spec.configuration import prove, spec_for

    found = spec_for(path)
    return found, f"on an instance of two layers with random weights: {prove(path)}" if check else None


def _prove(
    found: PermutationSpec,
    module: nn.Module,
    params: Mapping[str, Tensor] | None,
    shapes: list[tuple[int, ...]],
    file: Path,
) -> str:
    """Verify the spec on the module; returns what was shown, raises ``SpecError`` naming the wrong tensor."""
    from ..spec import verify_spec

    if params is not None:
        try:
            module.load_state_dict(params)
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise InvalidParamsError(f"{file}: does not fit the module of --check: {detail[:300]}") from error
    try:
        return str(verify_spec(found, module, example_inputs(shapes)))
    except InvalidInputsError as error:
        raise InvalidInputsError(f"--input-shape: {error}") from error
