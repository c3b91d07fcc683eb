"""The journal of a run: what is done, on disk, so that the same command goes on where it was cut off.

The run works in a folder of its own beside the output. The journal there is a file of JSON lines, each flushed before
the run goes on; the first says what run it is, a line that is cut short by a crash does not count. What a line speaks
of (a permutation file, a shard) is in place before the line is written.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..io.atomic import reason
from ..io.shard_writer import flush_folder

NAME = "journal.jsonl"
VERSION = 1


class Journal:
    """``lines``: what earlier runs of the same command have done. One process at a time holds a folder."""

    def __init__(self, folder: Path, run: Mapping[str, Any], resume: bool = True) -> None:
        self.folder = folder
        self.lines: list[dict[str, Any]] = []
        try:
            folder.mkdir(exist_ok=True)
            self._file = open(folder / NAME, "a+b")  # noqa: SIM115  (held until close)
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot write: {reason(error)}", str(folder)) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise CheckpointError(f"{folder}: another run is at work in it", str(folder)) from None
        head = {"lmcfast": VERSION, "run": json.loads(json.dumps(run))}
        found = self._read()
        if resume and found and found[0] == head:
            self.lines = found[1:]
            for path in folder.rglob(".lmcfast-*"):  # what a killed run was writing
                path.unlink()
            return
        self._clear()
        self.add(head)
        self.lines = []

    def _read(self) -> list[dict[str, Any]]:
        """The lines up to the first that is not whole, after which the file is cut."""
        self._file.seek(0)
        lines, good = [], 0
        for line in self._file:
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or not isinstance(entry, dict):
                break
            lines.append(entry)
            good += len(line)
        self._file.truncate(good)
        return lines

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != NAME:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._file.truncate(0)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write a line that lasts."""
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CheckpointError(f"{self.folder}: cannot write: {reason(error)}", str(self.folder)) from error
        self.lines.append(dict(entry))

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """The last line of a kind about a name."""
        return next((line for line in reversed(self.lines) if line.get("kind") == kind and line["name"] == name), None)

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """Take the folder away, with all that is in it."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        flush_folder(self.folder.parent)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.close()
