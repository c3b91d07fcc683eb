"""Checkpoints: what is written is read back bit for bit; a file that is not one is refused in one line."""

from __future__ import annotations

import hashlib
import pickle
import random
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from lmcfast.errors import CheckpointError
from lmcfast.io import file_sha256, load_checkpoint, read_checkpoint, save_checkpoint

DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int8,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
]


def tensors_of_every_kind() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {str(dtype): torch.randn(5, 3, generator=generator).mul(9).to(dtype) for dtype in DTYPES}
    base = torch.randn(6, 8, generator=generator)
    made["scalar"] = torch.tensor(3)
    made["empty"] = torch.zeros(0, 4)
    made["transposed"] = base.t()
    made["strided"] = base[::2, 1::3]
    made["nan and inf"] = torch.tensor([float("nan"), float("inf"), -0.0])
    made["ü / \\ \n odd \t name"] = torch.ones(2)
    return made


def assert_same_bits(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype
        assert got[name].shape == tensor.shape
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=0, equal_nan=True)


def error_of(call, *arguments) -> str:
    """The one-line message of the CheckpointError that a call raises; its path attribute is the first argument."""
    with pytest.raises(CheckpointError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.path == str(arguments[0])
    assert message.startswith(str(arguments[0]))
    return message


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin", ".ckpt"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    save_checkpoint(path, tensors_of_every_kind())
    assert_same_bits(load_checkpoint(path), tensors_of_every_kind())
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_file_mode_follows_the_umask_not_the_library(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    save_checkpoint(tmp_path / "m.safetensors", {"a": torch.ones(1)})
    assert (tmp_path / "m.safetensors").stat().st_mode == plain.stat().st_mode


def test_metadata_is_kept_and_format_is_added(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, {"a": torch.ones(1)}, {"note": "ü\n"})
    assert read_checkpoint(path).metadata == {"format": "pt", "note": "ü\n"}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_equal_content_gives_equal_bytes(tmp_path: Path, suffix: str) -> None:
    metadata = {f'key {number} ü \t \x01 \x7f \u2028 \\ / " \n': "💡" * number for number in range(9)}
    first, second = tmp_path / f"1{suffix}", tmp_path / f"2{suffix}"
    save_checkpoint(first, tensors_of_every_kind(), metadata)
    for _ in range(3):
        save_checkpoint(second, tensors_of_every_kind(), metadata)
        assert first.read_bytes() == second.read_bytes()
    if suffix == ".safetensors":
        assert read_checkpoint(first).metadata == {"format": "pt", **metadata}
    assert_same_bits(load_checkpoint(first), tensors_of_every_kind())


def test_tied_tensors_are_stored_once_per_name(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    tied = {"embed": base.view(3, 4), "head": base.view(3, 4), "part": base[4:8]}
    save_checkpoint(tmp_path / "m.safetensors", tied)
    assert_same_bits(load_checkpoint(tmp_path / "m.safetensors"), tied)
    save_checkpoint(tmp_path / "m.pt", tied)
    loaded = load_checkpoint(tmp_path / "m.pt")
    assert_same_bits(loaded, tied)
    assert loaded["embed"].data_ptr() == loaded["head"].data_ptr()


def test_parameters_come_back_as_plain_tensors(tmp_path: Path) -> None:
    torch.save({"w": torch.nn.Parameter(torch.ones(2))}, tmp_path / "m.pt")
    loaded = load_checkpoint(tmp_path / "m.pt")["w"]
    assert type(loaded) is torch.Tensor
    assert not loaded.requires_grad


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_nested_state_dict_is_taken_and_said(tmp_path: Path, key: str) -> None:
    torch.save({"epoch": 3, key: {"w": torch.ones(2)}, "optimizer": {"lr": 0.1}}, tmp_path / "m.pt")
    content = read_checkpoint(tmp_path / "m.pt")
    assert_same_bits(content.tensors, {"w": torch.ones(2)})
    assert content.nested == key
    assert content.ignored == ("epoch", "optimizer")


def test_flat_state_dict_says_nothing(tmp_path: Path) -> None:
    torch.save({"model": torch.ones(2)}, tmp_path / "m.pt")
    content = read_checkpoint(tmp_path / "m.pt")
    assert (content.nested, content.ignored) == (None, ())
    assert set(content.tensors) == {"model"}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_missing_folder_and_special_paths(tmp_path: Path, suffix: str) -> None:
    assert "no such file" in error_of(read_checkpoint, tmp_path / f"none{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    assert "folder" in error_of(read_checkpoint, tmp_path / f"folder{suffix}")
    (tmp_path / "file").touch()
    assert "not a directory" in error_of(read_checkpoint, tmp_path / "file" / f"x{suffix}")
    (tmp_path / f"null{suffix}").symlink_to("/dev/null")
    assert "regular file" in error_of(read_checkpoint, tmp_path / f"null{suffix}")


def test_unreadable_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, {"a": torch.ones(1)})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert "permission denied" in error_of(read_checkpoint, path)
    assert "permission denied" in error_of(file_sha256, path)


@pytest.mark.parametrize("name", ["m.onnx", "m", "m.safetensors.index.json"])
def test_unknown_ending(tmp_path: Path, name: str) -> None:
    assert "known: .safetensors" in error_of(read_checkpoint, tmp_path / name)
    assert "known: .safetensors" in error_of(save_checkpoint, tmp_path / name, {})


def test_every_truncation_of_a_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, {"a": torch.ones(7), "b": torch.ones(2)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert "truncated" in error_of(read_checkpoint, path)


@pytest.mark.filterwarnings("error")
def test_damaged_torch_files_are_refused_or_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    choice = random.Random(0)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"a": torch.ones(7)}, path, _use_new_zipfile_serialization=False)
        old_format = path.read_bytes()
        torch.save({"a": torch.ones(7)}, path)
    for whole in (old_format, path.read_bytes()):
        for _ in range(150):
            damaged = bytearray(whole[: choice.randrange(len(whole))] if choice.random() < 0.5 else whole)
            for _ in range(min(3, len(damaged))):
                damaged[choice.randrange(len(damaged))] = choice.randrange(256)
            path.write_bytes(damaged)
            refusal = None
            try:
                read_checkpoint(path)
            except CheckpointError as error:
                refusal = str(error)
            if refusal is not None:
                assert refusal.startswith(str(path))
                assert "\n" not in refusal
                refused += 1
    assert refused > 150


FOREIGN = {
    b"": ("truncated or damaged", "truncated or damaged"),
    b"no checkpoint at all, but some text\n" * 9: ("not a safetensors file", "not a torch checkpoint"),
    b"\x00" * 64: ("not a safetensors file", "not a torch checkpoint"),
    b"PK\x03\x04": ("truncated or damaged", "truncated or damaged"),
    b"PK\x03\x04" * 9: ("not a safetensors file", "truncated or damaged"),
}


@pytest.mark.parametrize("content", FOREIGN)
def test_foreign_content(tmp_path: Path, content: bytes) -> None:
    for suffix, words in zip((".safetensors", ".pt"), FOREIGN[content], strict=True):
        path = tmp_path / f"m{suffix}"
        path.write_bytes(content)
        assert error_of(read_checkpoint, path).startswith(f"{path}: {words}")


@pytest.mark.parametrize("old_format", [False, True])
def test_half_a_torch_file_is_truncated_and_another_archive_is_no_checkpoint(tmp_path: Path, old_format: bool) -> None:
    path = tmp_path / "m.pt"
    torch.save({"a": torch.ones(300)}, path, _use_new_zipfile_serialization=not old_format)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert error_of(read_checkpoint, path) == f"{path}: truncated or damaged"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.xml", "text")
    assert error_of(read_checkpoint, path) == f"{path}: not a torch checkpoint, or a damaged one"


class Danger:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code ran",))


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(pickle.dumps({"w": Danger()}, protocol=2))
    error_of(read_checkpoint, path)
    torch.save({"w": Danger()}, path)
    assert "Python objects" in error_of(read_checkpoint, path)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(1)], "holds a list"),
        ({"w": torch.ones(1), "epoch": 3}, "'epoch' is a int"),
        ({1: torch.ones(1)}, "key 1"),
        ({"w": torch.ones(3).to_sparse()}, "'w' is sparse"),
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "m.pt")
    assert words in error_of(read_checkpoint, tmp_path / "m.pt")


def test_what_cannot_be_saved_names_the_tensor_and_writes_nothing(tmp_path: Path) -> None:
    good = {"good": torch.ones(2)}
    for bad in (torch.ones(2, device="meta"), torch.ones(3).to_sparse(), [1.0]):
        for suffix in (".safetensors", ".pt"):
            assert "'bad'" in error_of(save_checkpoint, tmp_path / f"m{suffix}", {**good, "bad": bad})
    assert "\\ud800" in error_of(save_checkpoint, tmp_path / "m.safetensors", {"\ud800": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_sha256(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "any").write_bytes(data)
    assert file_sha256(tmp_path / "any") == hashlib.sha256(data).hexdigest()
    assert "no such file" in error_of(file_sha256, tmp_path / "none")
