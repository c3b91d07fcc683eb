"""Wrong input: exit code 1, one line that names the place, and no trace on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import networks
from helpers.commands import Commands, mlp, write_planted_pair

import lmcfast
from lmcfast.errors import OptionError
from lmcfast.merging import MatchOptions, match_files


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


def change(path: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Replace one tensor of a checkpoint, or remove it."""
    params = {**lmcfast.load_checkpoint(path), name: tensor}
    lmcfast.save_checkpoint(path, {key: value for key, value in params.items() if value is not None})


def fails_everywhere(command: Commands, folder: Path, a: Path, b: Path, *options: object, code: int = 1) -> str:
    """The message of a match, which a merge must give too."""
    message = command.fails("match", a, b, "-o", folder / "p.safetensors", *options, folder=folder, code=code)
    assert command.fails("merge", a, b, "-o", folder / "m.safetensors", *options, folder=folder, code=code) == message
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
    assert message.startswith(f"error: {b}: truncated or damaged")
    assert command.fails("spec", b, folder=tmp_path) == message


def test_missing_file_and_folder_as_input(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    none = tmp_path / "none.safetensors"
    assert fails_everywhere(command, tmp_path, a, none) == f"error: {none}: cannot read: no such file or directory"
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert fails_everywhere(command, tmp_path, a, folder).startswith(f"error: {folder}: is a folder without weights")
    assert str(none) in command.fails("apply", none, b, "-o", tmp_path / "o.pt", folder=tmp_path)
    assert str(none) in command.fails("match", a, b, "--spec", none, "-o", tmp_path / "p.safetensors", folder=tmp_path)


def test_spec_with_a_wrong_axis(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    axes = {"0.weight": ("h0", None), "0.bias": ("h0",), "2.weight": ("h0", "h1"), "2.bias": ("h1",)}
    spec = lmcfast.PermutationSpec.from_axes({**axes, "4.weight": (None, "h1"), "4.bias": (None,)})
    spec.save(tmp_path / "spec.json")
    message = fails_everywhere(command, tmp_path, a, b, "--spec", tmp_path / "spec.json")
    assert message.startswith(f"error: {a}: does not fit the spec in {tmp_path / 'spec.json'}: tensor '2.weight'")
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
    assert message == f"error: {b}: not the tensors of {a}: 1 tensor only in {a} ('2.bias'), 5 in both"
    write_planted_pair(tmp_path)
    change(b, "extra", torch.ones(2))
    message = fails_everywhere(command, tmp_path, a, b)
    assert message == f"error: {b}: not the tensors of {a}: 1 tensor only in {b} ('extra'), 6 in both"
    lmcfast.save_checkpoint(b, networks.params_of(networks.named_mlp()))
    message = fails_everywhere(command, tmp_path, a, b)
    assert f"6 tensors only in {a} (first '0.bias'), 6 tensors only in {b} (first 'fc1.bias'), 0 in both" in message


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_names_with_a_prefix(command: Commands, tmp_path: Path, prefix: str) -> None:
    a, b = write_planted_pair(tmp_path)
    lmcfast.save_checkpoint(b, {f"{prefix}{name}": tensor for name, tensor in lmcfast.load_checkpoint(b).items()})
    said = f"error: {b}: all names of its tensors begin with {prefix!r}, which those of {a} lack; "
    assert fails_everywhere(command, tmp_path, a, b).startswith(said)
    assert fails_everywhere(command, tmp_path, b, a).startswith(said)
    assert f"note: {b}: all names begin with {prefix!r}" in command.works("spec", b).err
    command.works("spec", a, "-o", tmp_path / "spec.json")
    command.works("merge", b, b, "--spec", tmp_path / "spec.json", "-o", tmp_path / "m.safetensors")
    assert lmcfast.load_checkpoint(tmp_path / "m.safetensors").keys() == lmcfast.load_checkpoint(b).keys()


def test_a_match_does_not_need_counters_in_both(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    spec = tmp_path / "spec.json"
    command.works("spec", a, "-o", spec)
    change(b, "steps", torch.tensor(3))
    command.works("match", a, b, "--spec", spec, "-o", tmp_path / "p.safetensors")
    message = command.fails("merge", a, b, "--spec", spec, "-o", tmp_path / "m.safetensors", folder=tmp_path)
    assert message == f"error: {b}: not the tensors of {a}: 1 tensor only in {b} ('steps'), 6 in both"
    change(a, "steps", torch.tensor([3, 4]))
    message = command.fails("merge", a, b, "--spec", spec, "-o", tmp_path / "m.safetensors", folder=tmp_path)
    assert message == f"error: {b}: tensor 'steps' has shape (), and (2,) in {a}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_different_dtypes_are_found_before_the_match(
    command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    a, b = write_planted_pair(tmp_path)
    p = tmp_path / "p.safetensors"
    command.works("match", a, b, "-o", p)
    monkeypatch.setattr("lmcfast.merging.files.weight_matching", lambda *_, **__: pytest.fail("the match began"))
    change(b, "2.weight", lmcfast.load_checkpoint(b)["2.weight"].to(dtype))
    name = str(dtype).removeprefix("torch.")
    wanted = f"error: {b}: tensor '2.weight' is {name} and float32 in {a}; convert one of the files first"
    for options in ([], ["--permutations", p, "--ignore-sources"]):
        assert command.fails("merge", a, b, "-o", tmp_path / "m.pt", *options, folder=tmp_path) == wanted


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_checkpoint_without_tensors(command: Commands, tmp_path: Path, suffix: str) -> None:
    a, b = write_planted_pair(tmp_path, suffix)
    lmcfast.save_checkpoint(b, {})
    assert fails_everywhere(command, tmp_path, a, b) == f"error: {b}: holds no tensors"
    assert command.fails("spec", b, folder=tmp_path) == f"error: {b}: holds no tensors"
    if suffix == ".pt":
        torch.save({"epoch": 3, "state_dict": {}}, b)
        assert fails_everywhere(command, tmp_path, a, b) == f"error: {b}: holds no tensors in its entry 'state_dict'"


def test_a_permutation_file_is_no_model(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    command.works("match", a, b, "-o", tmp_path / "perm.safetensors")
    assert "is a permutation file" in fails_everywhere(command, tmp_path, a, tmp_path / "perm.safetensors")


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
    assert command.fails("demo", "-o", tmp_path / "file", folder=tmp_path) == (
        f"error: {tmp_path / 'file'}: is a file; give a folder"
    )


def test_a_read_only_output_is_kept(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    p = tmp_path / "p.safetensors"
    command.works("match", a, b, "-o", p)
    for arguments in (["match", a, b], ["apply", p, b], ["merge", a, b], ["spec", a]):
        out = tmp_path / ("o.json" if arguments[0] == "spec" else "o.safetensors")
        out.touch(mode=0o444)
        message = command.fails(*arguments, "-o", out, folder=tmp_path)
        assert message == f"error: {out}: cannot write: the file is there and read-only"


def test_output_is_checked_before_any_input_is_read(
    command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = write_planted_pair(tmp_path)

    def read(path: object) -> None:
        pytest.fail("an input was read")

    monkeypatch.setattr("lmcfast.merging.models.read_weights", read)
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
    p = tmp_path / "p.safetensors"
    command.works("match", a, b, "-o", p)
    for arguments, name in (
        (["merge", a, b], "m.onnx"),
        (["merge", a, b], "m"),
        (["apply", p, b], "m.onnx"),
        (["match", a, b], "p.pt"),
        (["spec", a], "s.yaml"),
    ):
        message = command.fails(*arguments, "-o", tmp_path / name, folder=tmp_path, code=2)
        assert message.startswith("error: --out: must end in ")
        assert message.endswith(f", not {str(tmp_path / name)!r}")
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
    assert message.startswith(f"error: {b}: does not fit the spec in {p}: tensor '2.")


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
        message = fails_everywhere(command, tmp_path, a, b, option, "nowhere", code=2)
        assert message == f"error: {option}: 'nowhere' matches no group; there are h0, h1"


@pytest.mark.parametrize("options", [["--fix", "h0", "--only", "h0"], ["--fix", "*"], ["--only", "h1", "--fix", "h?"]])
def test_a_match_in_which_nothing_may_move(command: Commands, tmp_path: Path, options: list[str]) -> None:
    a, b = write_planted_pair(tmp_path)
    message = fails_everywhere(command, tmp_path, a, b, *options, code=2)
    assert message == "error: --fix: leaves no group that may move"


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:", "cuda:x", "cuda:-1", "CPU"])
def test_devices_that_are_none(command: Commands, tmp_path: Path, device: str) -> None:
    a, b = write_planted_pair(tmp_path)
    message = fails_everywhere(command, tmp_path, a, b, "--device", device, code=2)
    assert message == f"error: --device: must be cpu, cuda or cuda:N, not {device!r}"
    with pytest.raises(OptionError, match="must be cpu, cuda or cuda:N") as caught:
        match_files(a, b, options=MatchOptions(device=device))
    assert caught.value.option == "device"


def test_a_device_that_is_not_there(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    message = fails_everywhere(command, tmp_path, a, b, "--device", "cuda:99")
    assert message.startswith("error: device 'cuda:99' is not available: ")


def test_a_failure_keeps_stdout_empty_with_json_too(command: Commands, tmp_path: Path) -> None:
    a, _ = write_planted_pair(tmp_path)
    message = fails_everywhere(command, tmp_path, a, tmp_path / "none.pt", "--json")
    assert message.startswith("error: ")
    assert "none.pt" in message
