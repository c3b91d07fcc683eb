"""Networks that the user's own code makes: MODULE:FACTORY, and the shapes of their inputs."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InvalidInputsError, LmcfastError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..spec import PermutationSpec


def is_code(text: str) -> bool:
    """Whether this is MODULE:FACTORY and no path of a file."""
    return not Path(text).exists() and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text) is not None


def derived(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> PermutationSpec:
    """The spec of a module, traced with random inputs of these shapes."""
    from ..spec import derive_spec

    try:
        return derive_spec(module, example_inputs(shapes))
    except InvalidInputsError as error:
        raise InvalidInputsError(f"--input-shape: {error}") from error


def parse_shape(text: str) -> tuple[int, ...]:
    """The value of one ``--input-shape``."""
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = (-1,)
    if any(length < 1 for length in shape):
        raise typer.BadParameter(f"must be lengths as 1,3,32,32, not {text!r}", param_hint="--input-shape")
    return shape


def make_module(target: str, option: str = "--check") -> nn.Module:
    """Call the FACTORY of MODULE, which must return a network."""
    from torch import nn

    factory = object_of(target, option)
    try:
        made = factory()
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise CodeError(f"{option}: {target!r} failed: {describe(error)}") from error
    if not isinstance(made, nn.Module):
        raise typer.BadParameter(f"{target!r} gave a {type(made).__name__}, not a module", param_hint=option)
    return made


def object_of(target: str, option: str) -> Any:
    """Import MODULE, with the current folder on the path as `python -m` has it; the callable NAME of it."""
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise typer.BadParameter(f"must be MODULE:FACTORY, not {target!r}", param_hint=option)
    found = getattr(_import(module_name, option), name, None)
    if not callable(found):
        raise typer.BadParameter(f"{target!r}: module {module_name!r} has no callable {name!r}", param_hint=option)
    return found


class CodeError(LmcfastError):
    """The user's code that an option names failed; its own error is the cause."""


def _import(name: str, option: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name is not None
            and f"{name}.".startswith(f"{error.name}.")
        ):
            raise typer.BadParameter(f"there is no module {name!r} here", param_hint=option) from error
        raise CodeError(f"{option}: module {name!r} cannot be imported: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """Type and first line of an error."""
    text = str(error).strip()
    line = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    return line if len(line) <= 300 else line[:297] + "..."


def example_inputs(shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Random inputs of these shapes, the same in every run."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)
