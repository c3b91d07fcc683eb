"""What the commands share: options, one-line errors, figures and JSON on stdout, progress on stderr."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import CheckpointError, LmcfastError, OptionError
from .code import derived, is_code, make_module, parse_shape

if TYPE_CHECKING:
    from ..merging.files import MatchOptions, MatchSummary
    from ..spec import PermutationSpec

_STARTS = ("best", "identity", "forward", "random")

Groups = Mapping[str, tuple[int, int]]
"""Units of each group, and how many of them changed their place."""


def _known_start(start: str) -> str:
    if start not in _STARTS:
        raise typer.BadParameter(f"must be {', '.join(_STARTS)}, not {start!r}")
    return start


def _known_seed(seed: int) -> int:
    if not 0 <= seed < 2**63:
        raise typer.BadParameter(f"must be a whole number from 0 to 2^63 - 1, not {seed}")
    return seed


def _known_device(device: str | None) -> str | None:
    if device is not None and not re.fullmatch(r"cpu|cuda(:[0-9]+)?", device):
        raise typer.BadParameter(f"must be cpu, cuda or cuda:N, not {device!r}")
    return device


ModelA = Annotated[Path, typer.Argument(metavar="A", help="Checkpoint (file or folder) that stays as it is.")]
ModelB = Annotated[Path, typer.Argument(metavar="B", help="Checkpoint (file or folder) whose units move.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
NoOverwrite = Annotated[bool, typer.Option("--no-overwrite", help="Fail if the output exists already.")]
IgnoreSources = Annotated[
    bool,
    typer.Option("--ignore-sources", help="Accept other checkpoints than those that P was made for."),
]
Spec = Annotated[
    str,
    typer.Option(
        "--spec",
        metavar="auto|FILE|FOLDER|MODULE:FACTORY",
        help="What `lmcfast spec` takes; auto: by a folder's configuration, else from the tensors' names.",
    ),
]
InputShape = Annotated[
    list[str] | None,
    typer.Option("--input-shape", metavar="8,64", help="Shape of an input of --spec MODULE:FACTORY (may be repeated)."),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        callback=_known_seed,
        help="Seed of the restarts and of --start random; nothing else is random.",
    ),
]
Restarts = Annotated[int, typer.Option("--restarts", metavar="N", min=1, help="Descents to run; the best is kept.")]
Start = Annotated[
    str,
    typer.Option("--start", metavar="|".join(_STARTS), callback=_known_start, help="Where the descent starts."),
]
MaxSweeps = Annotated[int, typer.Option("--max-sweeps", metavar="N", min=1, help="Stop after so many sweeps.")]
Fix = Annotated[
    list[str] | None,
    typer.Option("--fix", metavar="GROUP", help="Keep this group as it is (wildcards; may be repeated)."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="GROUP", help="Move only this group (wildcards; may be repeated)."),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="cpu|cuda|cuda:N", callback=_known_device, help="Where to compute."),
]


def print_error(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    print(f"error: {' '.join(message.splitlines())}", file=sys.stderr)


_NOTHING_KEPT = "no output was written"
_kept = _NOTHING_KEPT


@contextmanager
def keeping(text: str) -> Iterator[None]:
    """A block that keeps what it has done when Ctrl-C or SIGTERM ends it; ``text`` then says so."""
    global _kept
    try:
        yield
    except KeyboardInterrupt:
        _kept = text  # the exception itself does not come through typer
        raise


def what_is_kept() -> str:
    """What the interrupted run has left, for its last line; asked for once."""
    global _kept
    text, _kept = _kept, _NOTHING_KEPT
    return text


def print_notes(notes: Iterable[str]) -> None:
    """Print remarks on how the inputs were read, one a line, to stderr."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def check_early(inputs: Sequence[Path], out: Path | None, no_overwrite: bool, specs: Sequence[Path] = ()) -> None:
    """Find wrong paths before torch is imported; the library checks again, for itself.

    ``specs``: inputs that may be folders without weights.
    """
    from ..io import check_writable, same_file, weight_files

    for path in (*inputs, *specs):
        if not path.exists():
            raise CheckpointError(f"{path}: cannot read: no such file or directory", str(path))
    files = [*specs, *(file for path in inputs for file in weight_files(path))]
    if out is not None:
        check_writable(out, overwrite=not no_overwrite)
        if any(same_file(out, path) for path in files):
            raise CheckpointError(f"{out}: the output would overwrite an input", str(out))


def check_ending(out: Path, endings: Sequence[str]) -> None:
    """Refuse an output path whose ending says that it is not what the command writes, as a bad argument."""
    if out.suffix.lower() not in endings:
        raise typer.BadParameter(f"must end in {' or '.join(endings)}, not {str(out)!r}", param_hint="--out")


def checkpoint_endings() -> tuple[str, ...]:
    """Endings of the checkpoints that can be written."""
    from ..io import SUFFIXES

    return SUFFIXES


def spec_inputs(spec: str, input_shape: Sequence[str] | None) -> tuple[Path, ...]:
    """The file that ``--spec`` names, if any; checks that ``--input-shape`` stands beside code and nowhere else."""
    from_code = is_code(spec)
    if from_code and not input_shape:
        raise typer.BadParameter("the network's inputs are needed", param_hint="--input-shape")
    if input_shape and not from_code:
        raise typer.BadParameter("has no effect without --spec MODULE:FACTORY", param_hint="--input-shape")
    return () if spec == "auto" or from_code else (Path(spec),)


def spec_source(spec: str, input_shape: Sequence[str] | None) -> str | PermutationSpec:
    """``--spec`` as the library takes it: code is traced here."""
    if not is_code(spec):
        return spec
    shapes = [parse_shape(text) for text in input_shape or []]
    return derived(make_module(spec, "--spec"), shapes)


def refuse_given(context: typer.Context, name: str, beside: str) -> None:
    """Refuse an option that was given where it has no effect: whoever gives it expects one."""
    source = context.get_parameter_source(name)
    if source is not None and source.name == "COMMANDLINE":
        option = f"--{name.replace('_', '-')}"
        raise typer.BadParameter(f"has no effect {beside}", param_hint=option)


@contextmanager
def reporting(debug: bool) -> Iterator[None]:
    """Turn errors that a user can cause into one line and exit code 1, and warnings into one line each.

    With ``debug`` the errors pass through, for their traceback.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)  # to the user of a command a warning is news, never an error
        warnings.showwarning = _show_warning
        try:
            yield
        except BrokenPipeError:
            raise
        except OptionError as error:
            if debug:
                raise
            raise typer.BadParameter(str(error), param_hint=f"--{error.option}") from error
        except LmcfastError as error:
            if debug:
                raise
            print_error(str(error))
            raise typer.Exit(1) from error
        except OSError as error:
            if debug:
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            print_error(f"{where}{(error.strerror or str(error)).lower()}")
            raise typer.Exit(1) from error


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {' '.join(str(message).splitlines())}", file=sys.stderr)


def print_json(value: Mapping[str, Any]) -> None:
    """Print strict JSON: paths become text, numbers that are not finite become null."""
    print(json_text(value))


def json_text(value: Mapping[str, Any]) -> str:
    """Strict JSON, as :func:`print_json` prints it."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """The value as strict JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def columns() -> int | None:
    """Width of the terminal (or what COLUMNS says); None where the output goes elsewhere."""
    return shutil.get_terminal_size((0, 0)).columns or None


def print_figures(figures: Mapping[str, object]) -> None:
    """Print names and values in two columns; on a terminal a long value goes on in the next line, words whole."""
    indent = max(map(len, figures), default=0) + 2
    screen = columns()
    for name, value in figures.items():
        text = f"{name:<{indent}}{value}"
        if screen is None:
            print(text)
        else:
            left = max(screen, indent + 20)
            wrapped = textwrap.wrap(
                text, left, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
            )
            print("\n".join(wrapped))


def match_figures(summary: MatchSummary) -> dict[str, object]:
    """A match's figures for people."""
    figures: dict[str, object] = {
        "objective": f"{summary.objective:.6g} (gap {summary.gap:.1g})",
        "distance": distance_figure(summary.distance_before, summary.distance_after, summary.reduction),
        "moved": moved_figure(summary.groups),
    }
    if summary.sweeps is not None:
        figures["sweeps"] = f"{summary.sweeps} ({'converged' if summary.converged else 'stopped early'})"
    if summary.seconds is not None:
        figures["seconds"] = f"{summary.seconds:.2f}"
    return figures


def match_json(summary: MatchSummary) -> dict[str, object]:
    """A match's figures for machines."""
    return {
        "objective": summary.objective,
        "gap": summary.gap,
        "distance_before": summary.distance_before,
        "distance_after": summary.distance_after,
        "reduction_percent": 100 * summary.reduction,
        "sweeps": summary.sweeps,
        "converged": summary.converged,
        "seconds": summary.seconds,
        "groups": group_json(summary.groups),
    }


def distance_figure(before: float, after: float, reduction: float) -> str:
    from ..spec.report import percent

    return f"{before:.6g} before, {after:.6g} after: {percent(reduction)} less"


def moved_figure(groups: Groups) -> str:
    units = sum(size for size, _ in groups.values())
    moved = sum(changed for _, changed in groups.values())
    return f"{moved} of {units} units in {len(groups)} groups"


def group_json(groups: Groups) -> dict[str, object]:
    return {name: {"units": units, "moved": moved} for name, (units, moved) in groups.items()}


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def match_options(
    start: str,
    max_sweeps: int,
    restarts: int,
    seed: int,
    fix: list[str] | None,
    only: list[str] | None,
    device: str | None,
) -> MatchOptions:
    """The matching options of the command line as the library takes them."""
    from ..merging.files import MatchOptions

    only_groups = tuple(only) if only else None
    return MatchOptions(cast("Any", start), max_sweeps, restarts, seed, tuple(fix or ()), only_groups, device)
