"""``lmcfast spec``: show which tensors move together, write it down, prove it."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidInputsError, InvalidParamsError, LmcfastError
from . import common

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..spec import PermutationSpec


def spec(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Checkpoint, spec file (.json) or permutation file."),
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="SPEC", help="Spec file to write (.json).")] = None,
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="MODULE:FACTORY",
            help="Prove the spec on the network that this returns.",
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

    FILE is a checkpoint, whose spec is found from its tensors' names and shapes, or holds a spec.

    --check applies random permutations to the real network and compares its outputs in float64; a checkpoint
    is loaded into the network first. An existing SPEC is replaced, in one step.

    Example:
      lmcfast spec a.safetensors -o spec.json
      lmcfast spec a.safetensors --check my_networks:make_mlp --input-shape 8,64
    """
    if out is not None:
        common.check_ending(out, (".json",))
    shapes = [_shape(text) for text in input_shape or []]
    if check is not None and not shapes:
        raise typer.BadParameter("needs --input-shape", param_hint="--check")
    if check is None and shapes:
        raise typer.BadParameter("has no effect without --check", param_hint="--input-shape")
    with common.reporting(debug):
        common.check_early((file,), out, no_overwrite)
        module = _make_module(check) if check is not None else None
        from ..merging import spec_of_file

        content = spec_of_file(file)
        found = content.spec
        proof = _prove(found, module, content.tensors, shapes, file) if module is not None else None
        if out is not None:
            found.save(out)
        common.print_notes(content.notes)
        if as_json:
            document = {"file": file, "spec": json.loads(found.to_json())}
            verified = None if proof is None else True
            common.print_json({**document, "verified": verified, "out": out, "notes": content.notes})
        else:
            print(found.report().text(full, common.columns() or 100))
            if proof is not None:
                print(proof)
            if out is not None:
                print(f"written  {out}")


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = (-1,)
    if any(length < 1 for length in shape):
        raise typer.BadParameter(f"must be lengths as 1,3,32,32, not {text!r}", param_hint="--input-shape")
    return shape


def _make_module(target: str) -> nn.Module:
    """Import MODULE, with the current folder on the path as `python -m` has it, and call its FACTORY."""
    from torch import nn

    module_name, colon, factory_name = target.partition(":")
    if not (module_name and colon and factory_name):
        raise typer.BadParameter(f"must be MODULE:FACTORY, not {target!r}", param_hint="--check")
    imported = _import(module_name)
    factory = getattr(imported, factory_name, None)
    if not callable(factory):
        raise typer.BadParameter(
            f"{target!r}: module {module_name!r} has no callable {factory_name!r}", param_hint="--check"
        )
    try:
        made = factory()
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise CheckError(f"--check: {target!r} failed: {_describe(error)}") from error
    if not isinstance(made, nn.Module):
        raise typer.BadParameter(f"{target!r} gave a {type(made).__name__}, not a module", param_hint="--check")
    return made


class CheckError(LmcfastError):
    """The code that ``--check`` names failed; its own error is the cause."""


def _import(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name is not None
            and f"{name}.".startswith(f"{error.name}.")
        ):
            raise typer.BadParameter(f"there is no module {name!r} here", param_hint="--check") from error
        raise CheckError(f"--check: module {name!r} cannot be imported: {_describe(error)}") from error


def _describe(error: BaseException) -> str:
    """Type and first line of an error."""
    text = str(error).strip()
    line = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    return line if len(line) <= 300 else line[:297] + "..."


def _prove(
    found: PermutationSpec,
    module: nn.Module,
    params: Mapping[str, Tensor] | None,
    shapes: list[tuple[int, ...]],
    file: Path,
) -> str:
    """Verify the spec on the module; returns what was shown, raises ``SpecError`` naming the wrong tensor."""
    import torch

    from ..spec import verify_spec

    if params is not None:
        try:
            module.load_state_dict(params)
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise InvalidParamsError(f"{file}: does not fit the module of --check: {detail[:300]}") from error
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    try:
        return str(verify_spec(found, module, inputs))
    except InvalidInputsError as error:
        raise InvalidInputsError(f"--input-shape: {error}") from error
