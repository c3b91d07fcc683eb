"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..matching import Step


_SHOWN = 8  # bars at a time


@contextmanager
def _bar(counted: bool) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console(file=sys.stderr)
    console.width = max(20, console.width - 4)  # room for the terminal's ^C: a line that it breaks would stay behind
    columns = [TextColumn("{task.description}", table_column=Column(no_wrap=True)), BarColumn()]
    if counted:
        columns.append(TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        yield bar


@contextmanager
def descent_progress(restarts: int = 1) -> Iterator[Callable[[Step], None]]:
    """A callback for ``weight_matching``: restart (where there are several), sweep, group and objective of each step.

    How many sweeps a descent will need is not known, so the bar only shows that it goes on.
    """
    place = _Place()
    if sys.stderr.isatty():
        with _bar(counted=False) as bar:
            task = bar.add_task("reading", total=None)

            def move(step: Step) -> None:
                place.follow(step)
                bar.update(task, description=_describe(step, place.restart, restarts))

            yield move
    else:

        def tell(step: Step) -> None:
            before = place.restart, place.sweep
            place.follow(step)
            if (place.restart, place.sweep) != before:
                print(f"match: {_describe(step, place.restart, restarts)}", file=sys.stderr)

        yield tell


class _Place:
    """Which descent a step belongs to, which the step itself does not say.

    A descent's sweeps go up and visit a group once each, and the forward start comes before its first sweep.
    """

    def __init__(self) -> None:
        self.restart = 1
        self.sweep: int | None = None
        self.visited: set[str] = set()

    def follow(self, step: Step) -> None:
        if self.sweep is not None and (
            step.sweep < self.sweep or (step.sweep == self.sweep and step.group in self.visited)
        ):
            self.restart += 1
            self.visited.clear()
        if step.sweep != self.sweep:
            self.sweep = step.sweep
            self.visited.clear()
        self.visited.add(step.group)


def _describe(step: Step, restart: int, restarts: int) -> str:
    which = f"restart {restart} of {restarts}, " if restarts > 1 else ""
    where = "start" if step.kind == "start" else f"sweep {step.sweep}"
    return f"{which}{where}, group {step.group}, objective {step.objective:.6g}"


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (stage, steps done, steps of it in all): a bar for each stage, or a line when it begins and ends."""
    if sys.stderr.isatty():
        with _bar(counted=True) as bar:
            tasks: dict[str, TaskID] = {}

            def move(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    if len(tasks) == _SHOWN:  # stages follow each other: the oldest is over
                        bar.remove_task(tasks.pop(next(iter(tasks))))
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
