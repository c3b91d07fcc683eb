"""Output files that appear whole or not at all.

A file is written under a temporary name in the folder of its target, flushed to the disk and renamed over the
target: a reader sees the old file or the new one, and an error or Ctrl-C leaves the folder as it was. (A
process that is killed outright can leave ``.lmcfast-*``, which is safe to delete.)
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import CheckpointError

StrPath = str | os.PathLike[str]


def reason(error: OSError) -> str:
    """The system's own words for ``error``, in lower case and without the path: "permission denied"."""
    words = error.strerror or str(error) or type(error).__name__
    return words[:1].lower() + words[1:]


def same_file(a: StrPath, b: StrPath) -> bool:
    """Whether two paths lead to one existing file, through links too."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def check_writable(path: StrPath, overwrite: bool = True) -> Path:
    """Prove that a file can be written at ``path``, before any long work; nothing is left behind.

    Returns the real target (links resolved). Raises ``CheckpointError`` naming the path: its folder is
    missing or no folder, cannot be written to, the path is a folder or a device, or it exists and is
    read-only or ``overwrite`` is false.
    """
    target = _target(path)
    if not overwrite and target.exists():
        raise CheckpointError(f"{path}: exists, and overwriting is off", str(path))
    _probe(target.parent, path)
    return target


def check_writable_folder(path: StrPath) -> Path:
    """Prove that files can be written into the folder ``path``, which may still have to be made with its parents."""
    folder = Path(path)
    try:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not nearest.is_dir():
            which = "is a file" if nearest == folder else f"{nearest} is a file"
            raise CheckpointError(f"{path}: {which}; give a folder", str(path))
    except OSError as error:
        raise CheckpointError(f"{path}: {reason(error)}", str(path)) from error
    _probe(nearest, path)
    return folder


@contextmanager
def atomic_path(path: StrPath, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path to write to, renamed to ``path`` when the block ends and removed when it raises.

    The temporary file exists, empty, when the block starts, and has the same ending as ``path``; the block
    may rewrite or replace it. A target that exists keeps its access mode. Raises ``CheckpointError`` as
    :func:`check_writable` does, and for the final flush and rename. An ``OSError`` of the block itself (disk
    full) becomes a ``CheckpointError`` too; other exceptions, KeyboardInterrupt among them, pass through.
    """
    target = check_writable(path, overwrite)
    temporary = target.parent / f".lmcfast-{secrets.token_hex(8)}{target.suffix}"
    done = False
    try:
        mode = _create(temporary)
        if target.exists():
            mode = stat.S_IMODE(target.stat().st_mode)
        yield temporary
        os.chmod(temporary, mode)  # a writer that replaced the file may have given it a mode of its own
        _flush(temporary)
        os.replace(temporary, target)
        done = True
        with suppress(OSError):  # the file is in place; some network file systems cannot flush a folder
            _flush(target.parent)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot write: {reason(error)}", str(path)) from error
    finally:
        if not done:
            with suppress(OSError):
                temporary.unlink()


def _target(path: StrPath) -> Path:
    """The file that a write to ``path`` must replace: the end of a chain of links, never the link itself."""
    target = Path(os.path.realpath(path))
    try:
        if not target.parent.is_dir():
            found = f"{target.parent} is a file, not a folder"
            absent = f"folder {target.parent} does not exist"
            what = found if target.parent.exists() else absent
            raise CheckpointError(f"{path}: cannot write: {what}", str(path))
        if target.is_dir():
            raise CheckpointError(f"{path}: is a folder; give a file", str(path))
        if target.exists() and not target.is_file():
            raise CheckpointError(f"{path}: cannot write: it is not a regular file", str(path))
        if target.exists() and _is_read_only(target):
            raise CheckpointError(f"{path}: cannot write: the file is there and read-only", str(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot write: {reason(error)}", str(path)) from error
    return target


def _is_read_only(file: Path) -> bool:
    """Whether the file is marked so: a rename would replace it all the same, and root may write anything."""
    return file.stat().st_mode & 0o222 == 0 or not os.access(file, os.W_OK)


def _probe(folder: Path, path: StrPath) -> None:
    """Make an unnamed file in ``folder``: access bits do not tell (root, read-only file systems, quotas)."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".lmcfast-"):
            pass
    except OSError as error:
        message = f"{path}: cannot write into folder {folder}: {reason(error)}"
        raise CheckpointError(message, str(path)) from error


def _create(path: Path) -> int:
    """Create an empty file that was not there and return the access mode that the user's umask gave it."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _flush(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
