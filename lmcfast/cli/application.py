"""The application: its commands, and how a run ends.

Exit codes: 1 failed, 2 bad arguments, 130 Ctrl-C, 143 SIGTERM, 141 the reader of stdout has stopped.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, cast

import typer

from .. import __version__
from ..errors import LmcfastError
from .align import align
from .analyze import analyze
from .apply import apply
from .barrier import barrier
from .common import print_error, what_is_kept
from .demo import demo
from .info import info
from .match import match
from .merge import merge
from .spec import spec, with_bare_check
from .study import study

# typer exports one of its usage errors only; the base of it is all of them.
_BadArguments = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])

_INTERRUPTED, _UNREAD, _TERMINATED = 130, 141, 143  # as a shell reports SIGINT, SIGPIPE and SIGTERM

app = typer.Typer(
    name="lmcfast",
    help="Line two trained networks up to their permutation symmetries, and merge them.",
    epilog="\b\nExample:\n  lmcfast merge a.safetensors b.safetensors -o merged.safetensors",
    rich_markup_mode=None,  # plain help: quick to print, and its examples can be copied whole
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lmcfast {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def _register() -> None:
    """A command's docstring ends with its examples, which the help shows last and unwrapped."""
    for command in (demo, match, apply, align, merge, barrier, analyze, study, spec, info):
        summary, _, rest = (command.__doc__ or "").partition("Example:\n")
        lines = [f"  {line.strip()}" for line in rest.strip().splitlines()]
        app.command(help=summary.strip(), epilog="\n".join(["\b", "Example:", *lines]))(command)


_register()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. ``arguments``: default ``sys.argv`` without the program's name."""
    streams = sys.stdout, sys.stderr
    given = with_bare_check(sys.argv[1:] if arguments is None else arguments)
    try:
        with _termination_as_interrupt() as terminated:
            try:
                code = app(given or ["--help"], prog_name="lmcfast", standalone_mode=False)
            except (typer.Abort, KeyboardInterrupt):
                code = _INTERRUPTED
        if code == _INTERRUPTED:  # typer, too, makes this of a KeyboardInterrupt; no command returns it
            print_error(f"{'terminated' if terminated else 'interrupted'}; {what_is_kept()}")
            return _TERMINATED if terminated else _INTERRUPTED
        sys.stdout.flush()
    except _BadArguments as error:
        print_error(re.sub(r"^Invalid value for '?([^':]+)'?: ", r"\1: ", error.format_message()))
        return error.exit_code
    except (BrokenPipeError, SystemExit) as error:
        sys.stdout, sys.stderr = streams  # typer makes a SystemExit of the broken pipe and wraps the streams
        if not isinstance(error.__context__ if isinstance(error, SystemExit) else error, BrokenPipeError):
            raise
        # The reader has seen enough; keep the final flush from failing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREAD
    except (LmcfastError, OSError):  # only with --debug; else `reporting` has dealt with it
        traceback.print_exc()
        return 1
    return code if isinstance(code, int) else 0


@contextmanager
def _termination_as_interrupt() -> Iterator[list[int]]:
    """Let SIGTERM end the run as Ctrl-C does, so that temporary files are removed; the list then holds its number."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
