"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..matching import Step


@contextmanager
def _bar(counted: bool) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = [TextColumn("{task.description}"), BarColumn()]
    if counted:
        columns.append(TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(file=sys.stderr), transient=True) as bar:
        yield bar


@contextmanager
def descent_progress() -> Iterator[Callable[[Step], None]]:
    """A callback for ``weight_matching``: sweep, group and objective of each step.

    How many sweeps a descent will need is not known, so the bar only shows that it goes on.
    """
    if sys.stderr.isatty():
        with _bar(counted=False) as bar:
            task = bar.add_task("reading", total=None)
            yield lambda step: bar.update(task, description=_describe(step))
    else:
        last_sweep: list[int | None] = [None]

        def show(step: Step) -> None:
            if step.sweep != last_sweep[0]:
                last_sweep[0] = step.sweep
                print(f"match: {_describe(step)}", file=sys.stderr)

        yield show


def _describe(step: Step) -> str:
    where = "start" if step.kind == "start" else f"sweep {step.sweep}"
    return f"{where}, group {step.group}, objective {step.objective:.6g}"


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (stage, steps done, steps of it in all): a bar for each stage, or a line when it begins and ends."""
    if sys.stderr.isatty():
        with _bar(counted=True) as bar:
            tasks: dict[str, TaskID] = {}

            def move(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(stage, total=total)
                bar.update(tasks[stage], completed=done, total=total)

            yield move
    else:
        begun: set[str] = set()

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in begun:
                begun.add(stage)
                print(f"{stage} ...", file=sys.stderr)
            if done == total:
                print(f"{stage} done", file=sys.stderr)

        yield tell
