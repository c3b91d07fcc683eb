"""Wrong input: exit code 1, one line that names the place, and no trace on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.commands import Commands, mlp, write_planted_pair

import lmcfast


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


def change(path: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Replace one tensor of a checkpoint, or remove it."""
    params = {**lmcfast.load_checkpoint(path), name: tensor}
    lmcfast.save_checkpoint(path, {key: value for key, value in params.items() if value is not None})


def fails_everywhere(command: Commands, folder: Path, a: Path, b: Path, *options: object) -> str:
    """The message of a match, which a merge must give too."""
    message = command.fails("match", a, b, "-o", folder / "p.safetensors", *options, folder=folder)
    assert command.fails("merge", a, b, "-o", folder / "m.safetensors", *options, folder=folder) == message
    return message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_a_layer(command: Commands, tmp_path: Path, value: float) -> None:
    a, b = write_planted_pair(tmp_path)
    weight = mlp(0)["2.weight"]
    weight[3, 1] = value
    change(b, "2.weight", weight)
    message = fails_everywhere(command, tmp_path, a, b)
    assert message.startswith(f"error: {b}: tensor '2.weight' holds NaN or infinity")


def test_nan_is_found_before_permutations_are_applied(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    p = tmp_path / "p.safetensors"
    command.works("match", a, b, "-o", p)
    change(b, "0.bias", torch.full((9,), float("nan")))
    for arguments in (["apply", p, b], ["merge", a, b, "--permutations", p]):
        message = command.fails(*arguments, "--ignore-sources", "-o", tmp_path / "o.safetensors", folder=tmp_path)
        assert message.startswith(f"error: {b}: tensor '0.bias' holds NaN")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_truncated_checkpoint(command: Commands, tmp_path: Path, suffix: str) -> None:
    a, b = write_planted_pair(tmp_path, suffix)
    b.write_bytes(b.read_bytes()[:-100])
    message = fails_everywhere(command, tmp_path, a, b)
    assert message.startswith(f"error: {b}: not a ")
    assert "truncated" in message or "damaged" in message
    assert command.fails("spec", b, folder=tmp_path) == message


def test_missing_file_and_folder_as_input(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    none = tmp_path / "none.safetensors"
    assert fails_everywhere(command, tmp_path, a, none) == f"error: {none}: cannot read: no such file or directory"
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert fails_everywhere(command, tmp_path, a, folder).startswith(f"error: {folder}: cannot read: it is a folder")
    assert str(none) in command.fails("apply", none, b, "-o", tmp_path / "o.pt", folder=tmp_path)
    assert str(none) in command.fails("match", a, b, "--spec", none, "-o", tmp_path / "p.safetensors", folder=tmp_path)


def test_spec_with_a_wrong_axis(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    axes = {"0.weight": ("h0", None), "0.bias": ("h0",), "2.weight": ("h0", "h1"), "2.bias": ("h1",)}
    spec = lmcfast.PermutationSpec.from_axes({**axes, "4.weight": (None, "h1"), "4.bias": (None,)})
    spec.save(tmp_path / "spec.json")
    message = fails_everywhere(command, tmp_path, a, b, "--spec", tmp_path / "spec.json")
    assert message.startswith(f"error: {a}: ")
    assert "'2.weight'" in message
    assert "axis 0" in message


def test_spec_that_is_no_spec(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    path = tmp_path / "spec.json"
    for text in ("", "{", "[]", '{"format": "lmcfast-spec", "version": 99}', "\udcff"):
        path.write_bytes(text.encode(errors="surrogateescape"))
        message = fails_everywhere(command, tmp_path, a, b, "--spec", path)
        assert str(path) in message
        assert command.fails("spec", path, folder=tmp_path).startswith(f"error: {path}: ")


def test_network_that_auto_does_not_know(command: Commands, tmp_path: Path) -> None:
    a = tmp_path / "a.pt"
    lmcfast.save_checkpoint(a, {"strange": torch.ones(3, 3)})
    message = fails_everywhere(command, tmp_path, a, a)
    assert message.startswith(f"error: {a}: ")
    assert "strange" in message
    assert command.fails("spec", a, folder=tmp_path) == message


def test_mismatched_shapes(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    lmcfast.save_checkpoint(b, mlp(0, sizes=(6, 9, 8, 4)))
    message = fails_everywhere(command, tmp_path, a, b)
    assert message.startswith(f"error: {b}: ")
    assert "tensor '2." in message
    assert "length 8, not 7" in message


def test_missing_and_extra_tensors(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    change(b, "2.bias", None)
    message = fails_everywhere(command, tmp_path, a, b)
    assert message.startswith(f"error: {b}: ")
    assert "'2.bias'" in message
    write_planted_pair(tmp_path)
    change(b, "extra", torch.ones(2))
    message = fails_everywhere(command, tmp_path, a, b)
    assert message.startswith(f"error: {b}: ")
    assert "'extra'" in message


def test_different_dtypes_name_the_tensor(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    change(b, "2.weight", lmcfast.load_checkpoint(b)["2.weight"].double())
    message = command.fails("merge", a, b, "-o", tmp_path / "m.safetensors", folder=tmp_path)
    assert "'2.weight'" in message
    assert "float64" in message


def test_output_folder_that_cannot_be_written(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    p = tmp_path / "p.safetensors"
    command.works("match", a, b, "-o", p)
    (tmp_path / "file").touch()
    for folder in (tmp_path / "none", tmp_path / "file", Path("/proc")):
        for arguments in (["match", a, b], ["apply", p, b], ["merge", a, b], ["spec", a]):
            out = folder / ("o.json" if arguments[0] == "spec" else "o.safetensors")
            message = command.fails(*arguments, "-o", out, folder=tmp_path)
            assert message.startswith(f"error: {out}: cannot write")
            assert str(out.parent) in message


def test_output_is_checked_before_any_input_is_read(
    command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = write_planted_pair(tmp_path)

    def read(path: object) -> None:
        pytest.fail("an input was read")

    monkeypatch.setattr("lmcfast.merging.files.read_checkpoint", read)
    out = tmp_path / "none" / "o.safetensors"
    fails = command.fails("merge", a, b, "-o", out, folder=tmp_path)
    assert fails.startswith(f"error: {out}: ")


def test_read_only_file_system(command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says of a read-only folder, which root's rights hide on this one."""
    a, b = write_planted_pair(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    for name, arguments in {"p.safetensors": ["match", a, b], "m.safetensors": ["merge", a, b]}.items():
        message = command.fails(*arguments, "-o", tmp_path / name, folder=tmp_path)
        assert message == f"error: {tmp_path / name}: cannot write into folder {tmp_path}: read-only file system"


def test_inputs_are_never_overwritten(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    p = tmp_path / "p.safetensors"
    command.works("match", a, b, "-o", p)
    (tmp_path / "link.safetensors").symlink_to(a)
    command.works("spec", a, "-o", tmp_path / "spec.json")
    cases = [
        ["match", a, b, "-o", a],
        ["merge", a, b, "-o", b],
        ["merge", a, b, "-o", tmp_path / "link.safetensors"],
        ["merge", a, b, "--permutations", p, "-o", p],
        ["apply", p, b, "-o", b],
        ["apply", p, b, "-o", p],
        ["spec", tmp_path / "spec.json", "-o", tmp_path / "spec.json"],
    ]
    for arguments in cases:
        assert "would overwrite an input" in command.fails(*arguments, folder=tmp_path)


def test_unknown_endings(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    assert "m.onnx" in command.fails("merge", a, b, "-o", tmp_path / "m.onnx", folder=tmp_path)
    assert "p.pt" in command.fails("match", a, b, "-o", tmp_path / "p.pt", folder=tmp_path)
    (tmp_path / "c.onnx").touch()
    assert "c.onnx" in command.fails("spec", tmp_path / "c.onnx", folder=tmp_path)


def test_permutations_of_other_files(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    p, out = tmp_path / "p.safetensors", tmp_path / "o.safetensors"
    command.works("match", a, b, "-o", p)
    for arguments in (["apply", p, a], ["merge", b, a, "--permutations", p]):
        message = command.fails(*arguments, "-o", out, folder=tmp_path)
        assert "not the checkpoint that" in message
        assert str(p) in message
        command.works(*arguments, "-o", out, "--ignore-sources")
        out.unlink()
    lmcfast.save_checkpoint(b, mlp(0, sizes=(6, 9, 8, 4)))
    message = command.fails("apply", p, b, "-o", out, "--ignore-sources", folder=tmp_path)
    assert message.startswith(f"error: {b}: tensor '2.")


def test_permutation_file_that_is_none(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    out = tmp_path / "o.safetensors"
    message = command.fails("apply", a, b, "-o", out, folder=tmp_path)
    assert message.startswith(f"error: {a}: not a permutation file")
    message = command.fails("merge", a, b, "--permutations", a, "-o", out, folder=tmp_path)
    assert message.startswith(f"error: {a}: not a permutation file")


def test_groups_that_do_not_exist(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    for option in ("--fix", "--only"):
        assert "'nowhere'" in fails_everywhere(command, tmp_path, a, b, option, "nowhere")


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99"])
def test_devices_that_are_not_there(command: Commands, tmp_path: Path, device: str) -> None:
    a, b = write_planted_pair(tmp_path)
    assert fails_everywhere(command, tmp_path, a, b, "--device", device).startswith(f"error: device {device!r} ")


def test_a_failure_keeps_stdout_empty_with_json_too(command: Commands, tmp_path: Path) -> None:
    a, _ = write_planted_pair(tmp_path)
    fails_everywhere(command, tmp_path, a, tmp_path / "none.pt", "--json")
