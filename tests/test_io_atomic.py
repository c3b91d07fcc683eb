"""Outputs appear whole or not at all, whatever interrupts their writing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lmcfast.errors import CheckpointError
from lmcfast.io import atomic_path, check_writable, check_writable_folder, load_checkpoint, save_checkpoint


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_target_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    target.chmod(0o640)
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["out.txt"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, RuntimeError, OSError])
def test_an_interrupted_write_leaves_the_folder_as_it_was(tmp_path: Path, interruption: type[BaseException]) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    expected = CheckpointError if interruption is OSError else interruption

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise interruption

    with pytest.raises(expected):
        write_half()
    assert names(tmp_path) == ["out.txt"]
    assert target.read_text() == "old"


@pytest.mark.parametrize("function", ["os.replace", "os.fsync"])
def test_a_failing_flush_or_rename_is_reported_and_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(function, fail)
    with pytest.raises(CheckpointError, match="no space left on device"):
        save_checkpoint(tmp_path / "m.safetensors", {"a": torch.ones(1)})
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_disk_that_fills_up(tmp_path: Path, suffix: str) -> None:
    """A limit on the size of files stands for the full disk: the library's write fails half-way."""
    code = """
import resource, sys, torch
from lmcfast.io import save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
save_checkpoint(sys.argv[1], {"a": torch.ones(100_000)})
"""
    target = tmp_path / f"m{suffix}"
    done = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"lmcfast.errors.CheckpointError: {target}: cannot write: ")
    assert names(tmp_path) == []


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "m.pt").symlink_to(tmp_path / "real" / "m.pt")
    save_checkpoint(tmp_path / "m.pt", {"a": torch.ones(1)})
    assert (tmp_path / "m.pt").is_symlink()
    assert names(tmp_path / "real") == ["m.pt"]
    torch.testing.assert_close(load_checkpoint(tmp_path / "m.pt")["a"], torch.ones(1))


def test_check_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    assert check_writable(tmp_path / "x.pt") == tmp_path / "x.pt"
    assert names(tmp_path) == []
    (tmp_path / "x.pt").write_text("old")
    assert check_writable(tmp_path / "x.pt") == tmp_path / "x.pt"
    with pytest.raises(CheckpointError, match=r"x\.pt: exists, and overwriting is off"):
        check_writable(tmp_path / "x.pt", overwrite=False)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "null.pt").symlink_to("/dev/null")
    cases = {
        tmp_path / "none" / "x.pt": f"folder {tmp_path}/none does not exist",
        tmp_path / "file" / "x.pt": f"cannot write: {tmp_path}/file is a file, not a folder",
        tmp_path / "folder.pt": "is a folder; give a file",
        tmp_path / "null.pt": "it is not a regular file",
        Path("/proc/x.pt"): "cannot write into folder /proc: ",
    }
    for path, words in cases.items():
        with pytest.raises(CheckpointError) as caught:
            check_writable(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(CheckpointError), atomic_path(path):
            pass
    assert names(tmp_path) == ["file", "folder.pt", "null.pt"]
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize("mode", [0o444, 0o400, 0o555])
def test_a_read_only_file_is_not_replaced(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "m.pt"
    target.write_text("old")
    target.chmod(mode)
    for write in (check_writable, lambda path: save_checkpoint(path, {"a": torch.ones(1)})):
        with pytest.raises(CheckpointError, match=r"m\.pt: cannot write: the file is there and read-only$"):
            write(target)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["m.pt"]


def test_check_writable_folder_accepts_one_still_to_be_made(tmp_path: Path) -> None:
    assert check_writable_folder(tmp_path / "new" / "deep") == tmp_path / "new" / "deep"
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "deep", Path("/proc/new")):
        with pytest.raises(CheckpointError) as caught:
            check_writable_folder(path)
        assert str(caught.value).startswith(f"{path}: ")
