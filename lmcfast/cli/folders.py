"""Merging and aligning folders: options, progress by bytes, JSON lines, log files."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer

from . import common

if TYPE_CHECKING:
    from ..analysis import CheckpointDiagnosis
    from ..merging import FolderOptions, MergedFolder
    from ..merging.choice import Progress
    from ..merging.planning import Plan

KEPT = "the same command goes on where it was cut off"
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_EVERY = 0.5  # seconds between two messages about one phase
_EVERY_LINE = 10.0

Residual = Annotated[
    str,
    typer.Option(
        "--residual",
        metavar="keep|permute",
        help="Folders: hold the residual stream (layers are then independent, each is visited once and the files are "
        "read once to match), or move it too, in several sweeps over the files. The library's weight_matching moves "
        "it, since a model in memory costs nothing to sweep; two trainings from different seeds need it.",
    ),
]
Groups = Annotated[
    str, typer.Option("--groups", metavar="ffn,heads,kv,experts", help="Folders: parts whose units move.")
]
Dtype = Annotated[
    str | None, typer.Option("--dtype", metavar="bfloat16", help="Folders: dtype of the output; default as stored.")
]
MaxMemory = Annotated[
    str | None, typer.Option("--max-memory", metavar="8G", help="Folders: refuse to begin what needs more memory.")
]
NoResume = Annotated[bool, typer.Option("--no-resume", help="Folders: begin anew, whatever an earlier run has done.")]
NoProve = Annotated[
    bool, typer.Option("--no-prove", help="Folders: do not verify the spec on a tiny network of the same class.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Folders: print what a run would take, and write nothing.")]
Diagnose = Annotated[
    bool, typer.Option("--diagnose", help="With --dry-run: match four layers, and say whether lining up is worth it.")
]
Log = Annotated[Path | None, typer.Option("--log", metavar="FILE", help="Folders: append a log of the run to FILE.")]


def numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"must be numbers with commas between, not {text!r}", param_hint=option) from None


def layer_weights(given: Sequence[str] | None) -> list[tuple[str, tuple[float, ...]]]:
    """``PATTERN=WA,WB`` each."""
    found = []
    for text in given or ():
        pattern, equals, weights = text.partition("=")
        if not equals or not pattern:
            raise typer.BadParameter(f"must be PATTERN=WA,WB, not {text!r}", param_hint="--layer-weights")
        found.append((pattern, numbers(weights, "--layer-weights")))
    return found


def memory_size(text: str | None) -> int | None:
    """Bytes of ``8G``, ``900M`` (powers of 1024)."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"must be a size such as 8G or 900M, not {text!r}", param_hint="--max-memory")
    return int(float(match[1]) * 2 ** _UNITS[match[2].upper()])


def folder_options(
    spec: str,
    residual: str,
    groups: str,
    fix: list[str] | None,
    only: list[str] | None,
    max_sweeps: int,
    dtype: str | None,
    max_memory: str | None,
    no_prove: bool,
    no_resume: bool,
) -> FolderOptions:
    from ..merging import FolderOptions

    return FolderOptions(
        spec=spec,
        residual=cast("Any", residual),
        groups=tuple(part for part in groups.split(",") if part),
        fix=tuple(fix or ()),
        only=tuple(only) if only else None,
        max_sweeps=max_sweeps,
        dtype=dtype,
        max_memory=memory_size(max_memory),
        prove=not no_prove,
        resume=not no_resume,
    )


# ---- progress


@contextmanager
def folder_progress(as_json: bool, log: Path | None) -> Iterator[Progress]:
    """Tells of a run: JSON lines on stdout, a bar or lines on stderr; and in the log what is begun, with times."""
    with _opened(log) as file, _shown(as_json) as show:
        last: tuple[str, str] | None = None

        def told(phase: str, what: str, done: int, total: int) -> None:
            nonlocal last
            if file is not None and (phase, what) != last:
                last = (phase, what)
                log_line(file, f"{phase} {what}: {done} of {total} bytes")
            show(phase, what, done, total)

        if file is not None:
            log_line(file, "begin " + " ".join(sys.argv[1:]))
        try:
            yield told
        except BaseException as error:
            if file is not None:
                log_line(file, f"end: {type(error).__name__}: {error}")
            raise
        if file is not None:
            log_line(file, "end: done")


@contextmanager
def _opened(log: Path | None) -> Iterator[TextIO | None]:
    if log is None:
        yield None
        return
    with open(log, "a", encoding="utf-8") as file:
        yield file


def log_line(file: TextIO, text: str) -> None:
    file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {' '.join(text.splitlines())}\n")
    file.flush()


@contextmanager
def _shown(as_json: bool) -> Iterator[Progress]:
    if as_json:
        yield _Sparse(_EVERY, _json_line)
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield _Sparse(_EVERY_LINE, _Lines())


class _Sparse:
    """Passes on the first and last message of a phase, and of the others one in a while."""

    def __init__(self, every: float, show: Progress) -> None:
        self._every, self._show = every, show
        self._last: dict[str, float] = {}

    def __call__(self, phase: str, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._last.get(phase, -self._every) < self._every:
            return
        self._last[phase] = now
        self._show(phase, what, done, total)


def _json_line(phase: str, what: str, done: int, total: int) -> None:
    line = {"event": "progress", "phase": phase, "what": what, "done": done, "total": total}
    print(json.dumps(line), flush=True)


class _Lines:
    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}

    def __call__(self, phase: str, what: str, done: int, total: int) -> None:
        begun, before = self._begun.setdefault(phase, (time.monotonic(), done))
        spent, gone = time.monotonic() - begun, done - before
        left = f", {spent * (total - done) / gone:.0f} s left" if gone and done < total else ""
        print(f"{phase}: {done / 1e9:.2f} of {total / 1e9:.2f} GB, {what}{left}", file=sys.stderr)


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(file=sys.stderr)
    console.width = max(20, console.width - 4)  # room for the terminal's ^C
    text = TextColumn("{task.description}", table_column=Column(no_wrap=True))
    with Progress(text, BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(phase: str, what: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total)
            bar.update(tasks[phase], description=f"{phase} {what}", completed=done, total=total)

        yield show


# ---- results


def print_plan(plan: Plan, diagnosis: CheckpointDiagnosis | None, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"event": "plan", **asdict(plan)}
        if diagnosis is not None:
            document["diagnosis"] = asdict(diagnosis)
        print(json.dumps(common.plain(document)))
        return
    figures: dict[str, object] = {
        "families": f"{len(plan.families)} of {sum(len(f.groups) for f in plan.families)} groups",
        "held": common.some(plan.held) if plan.held else "none",
        "memory": f"{plan.memory / 2**30:.2f} GiB beside the program ({plan.largest})",
        "read": f"{plan.read / 1e9:.2f} GB",
        "written": f"{plan.written / 1e9:.2f} GB",
        "products": f"{plan.operations / 1e12:.3f} Tflop",
        "seconds": f"{plan.seconds:.0f}, assignments left out",
    }
    for layer in diagnosis.layers if diagnosis is not None else ():
        before, after = layer.distance
        chance = "" if layer.chance is None else f", {layer.chance:.3f} by chance"
        r = "" if layer.r_stored is None else f", R(0.3) {layer.r_stored:.3f}, {layer.r_matched:.3f} matched"
        figures[layer.name] = (
            f"cosine {layer.stored:.3f}, {layer.matched:.3f} matched{chance}; "
            f"relative distance {before:.3f}, {after:.3f} matched{r}"
        )
    if diagnosis is not None:
        figures["verdict"] = diagnosis.verdict
    common.print_figures(figures)


def print_merged(done: MergedFolder, as_json: bool) -> None:
    common.print_notes(done.notes)
    if as_json:
        document = {"event": "result", **asdict(done), "identity_won": done.identity_won}
        print(json.dumps(common.plain(document), ensure_ascii=False))
        return
    figures: dict[str, object] = {}
    if not done.finished:
        moved, units = (sum(getattr(f, name) for f in done.families) for name in ("moved", "units"))
        figures["moved"] = f"{moved} of {units} units in {len(done.families)} families"
        if done.identity_won:
            figures["moved"] = f"none of {units} units: they line up as they stand (same lineage)"
        figures["objective"] = ", ".join(f"{before:.6g} before, {after:.6g} after" for before, after in done.objective)
        figures["spec"] = "proved on a tiny network of the class" if done.proved else "not proved on a network"
        figures["seconds"] = ", ".join(f"{name} {value:.1f}" for name, value in done.seconds.items())
        if done.resumed:
            figures["resumed"] = f"{done.resumed} steps of an earlier run"
    common.print_figures({**figures, "written": f"{done.out} ({done.bytes_written / 1e9:.2f} GB)"})
