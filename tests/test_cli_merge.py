"""``match``, ``apply`` and ``merge`` on files whose hidden permutation is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.commands import Commands, assert_same_params, mlp, snapshot, write_planted_pair
from safetensors import safe_open

import lmcfast
from lmcfast.io import file_sha256, read_permutations
from lmcfast.merging.files import MatchOptions, apply_file, match_files, merge_files


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_match_apply_merge_recover_a_planted_permutation(command: Commands, tmp_path: Path, suffix: str) -> None:
    a, b = write_planted_pair(tmp_path, suffix)
    inputs = snapshot(tmp_path)
    p, aligned, merged = tmp_path / "p.safetensors", tmp_path / f"b2{suffix}", tmp_path / f"m{suffix}"
    command.works("match", a, b, "-o", p)
    command.works("apply", p, b, "-o", aligned)
    assert_same_params(aligned, a)
    command.works("merge", a, b, "--permutations", p, "-o", merged)
    assert_same_params(merged, a)
    command.works("merge", a, b, "-o", tmp_path / f"m2{suffix}")
    assert_same_params(tmp_path / f"m2{suffix}", a)
    after = snapshot(tmp_path)
    assert {name: after[name] for name in inputs} == inputs
    assert after.keys() - inputs.keys() == {p.name, aligned.name, merged.name, f"m2{suffix}"}


def test_figures_for_people(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    ran = command.works("match", a, b, "-o", tmp_path / "p.safetensors")
    figures = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert list(figures) == ["objective", "distance", "moved", "sweeps", "seconds", "written"]
    assert figures["distance"].endswith("100.0 % less")
    assert figures["moved"].endswith("of 16 units in 2 groups")
    assert "converged" in figures["sweeps"]
    assert figures["written"] == str(tmp_path / "p.safetensors")
    ran = command.works("merge", a, b, "--weights", "0.25,0.75", "-o", tmp_path / "m.safetensors")
    assert "weights    0.25, 0.75\n" in ran.out
    assert f"written    {tmp_path / 'm.safetensors'} (6 tensors)\n" in ran.out


def test_progress_is_on_stderr_as_plain_lines(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    ran = command.works("match", a, b, "-o", tmp_path / "p.safetensors")
    lines = ran.err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("match: ") for line in lines)
    assert "sweep 1" in ran.err
    assert "restart" not in ran.err
    assert "\x1b" not in ran.err


@pytest.mark.parametrize("options", [["--start", "random"], ["--max-sweeps", "1"], ["--start", "identity"], []])
def test_progress_says_which_restart_runs(command: Commands, tmp_path: Path, options: list[str]) -> None:
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    lmcfast.save_checkpoint(a, mlp(0, (6, 30, 30, 30, 4)))
    lmcfast.save_checkpoint(b, mlp(1, (6, 30, 30, 30, 4)))
    ran = command.works("match", a, b, "-o", tmp_path / "p.safetensors", "--restarts", "4", *options)
    numbers = [int(line.split()[2]) for line in ran.err.splitlines()]
    assert all(line.startswith("match: restart ") and " of 4, " in line for line in ran.err.splitlines())
    assert numbers == sorted(numbers)
    assert set(numbers) == {1, 2, 3, 4}


def test_json_is_one_object_and_complete(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    p = tmp_path / "p.safetensors"
    matched = json.loads(command.works("match", a, b, "-o", p, "--json").out)
    exact = sum(float(tensor.double().square().sum()) for tensor in lmcfast.load_checkpoint(a).values())
    assert matched["objective"] == pytest.approx(exact, rel=1e-12)
    assert matched["reduction_percent"] == pytest.approx(100)
    assert matched["distance_before"] > 1
    assert matched["distance_after"] == 0
    assert matched["converged"] is True
    assert matched["sweeps"] >= 1
    assert matched["seconds"] > 0
    assert [group["units"] for group in matched["groups"].values()] == [9, 7]
    assert matched["out"] == str(p)
    applied = json.loads(command.works("apply", p, b, "-o", tmp_path / "b2.safetensors", "--json").out)
    assert applied["groups"] == matched["groups"]
    assert applied["tensors"] == 6
    merged = json.loads(
        command.works("merge", a, b, "--permutations", p, "-o", tmp_path / "m.safetensors", "--json").out
    )
    assert merged["objective"] == matched["objective"]
    assert merged["distance_before"] == matched["distance_before"]
    assert (merged["sweeps"], merged["averaged_statistics"], merged["kept_from_a"]) == (None, [], [])
    assert merged["weights"] == [0.5, 0.5]


def test_permutation_file_holds_spec_and_sources(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    command.works("match", a, b, "-o", tmp_path / "p.safetensors")
    read = read_permutations(tmp_path / "p.safetensors")
    assert read.sources == {"a": file_sha256(a), "b": file_sha256(b)}
    assert lmcfast.PermutationSpec.from_json(read.spec_text).groups.keys() == read.permutations.keys()
    loaded = lmcfast.load_permutations(tmp_path / "p.safetensors")
    again = loaded.apply(lmcfast.load_checkpoint(b))
    torch.testing.assert_close(again["2.weight"], lmcfast.load_checkpoint(a)["2.weight"])


def test_weights(command: Commands, tmp_path: Path) -> None:
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    lmcfast.save_checkpoint(a, mlp(0))
    lmcfast.save_checkpoint(b, mlp(1))
    merged = tmp_path / "m.safetensors"
    command.works("merge", a, b, "--weights", "1,0", "-o", merged)
    assert_same_params(merged, a)
    command.works("match", a, b, "-o", tmp_path / "p.safetensors")
    command.works("merge", a, b, "--permutations", tmp_path / "p.safetensors", "--weights", "0.2,0.8", "-o", merged)
    aligned = lmcfast.load_permutations(tmp_path / "p.safetensors").apply(lmcfast.load_checkpoint(b))
    for name, tensor in lmcfast.load_checkpoint(merged).items():
        torch.testing.assert_close(tensor, 0.2 * lmcfast.load_checkpoint(a)[name] + 0.8 * aligned[name])


def test_matching_options_reach_the_matching(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    p = tmp_path / "p.safetensors"

    def moved(*options: str) -> dict[str, int]:
        groups = json.loads(command.works("match", a, b, "-o", p, "--json", *options).out)["groups"]
        return {name: group["moved"] for name, group in groups.items()}

    first, second = moved()
    assert moved("--fix", first)[first] == 0
    assert moved("--fix", first)[second] > 0
    assert moved("--only", first)[first] > 0
    assert moved("--only", first)[second] == 0
    assert (
        moved("--start", "forward", "--restarts", "2", "--seed", "5", "--max-sweeps", "9", "--device", "cpu")[first] > 0
    )


def test_same_command_writes_the_same_bytes(command: Commands, tmp_path: Path) -> None:
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    lmcfast.save_checkpoint(a, mlp(0))
    lmcfast.save_checkpoint(b, mlp(1))
    for out in ("1.safetensors", "2.safetensors"):
        command.works("merge", a, b, "-o", tmp_path / out)
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()


def test_dtype_and_metadata_of_a_are_kept(command: Commands, tmp_path: Path) -> None:
    a, b, merged = (tmp_path / f"{name}.safetensors" for name in "abm")
    lmcfast.save_checkpoint(a, {name: tensor.bfloat16() for name, tensor in mlp(0).items()}, {"license": "mine"})
    lmcfast.save_checkpoint(b, {name: tensor.bfloat16() for name, tensor in mlp(1).items()})
    command.works("merge", a, b, "-o", merged)
    assert {tensor.dtype for tensor in lmcfast.load_checkpoint(merged).values()} == {torch.bfloat16}
    with safe_open(merged, "pt") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["license"]) == ("pt", "mine")
    provenance = json.loads(metadata["lmcfast.merge"])
    assert provenance["models"] == ["a.safetensors", "b.safetensors"]
    assert provenance["weights"] == [0.5, 0.5]


def test_spec_file_in_place_of_auto(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    lmcfast.PermutationSpec.from_axes(
        {"0.weight": ("only", None), "0.bias": ("only",), "2.weight": (None, "only")}
        | {"2.bias": (None,), "4.weight": (None, None), "4.bias": (None,)}
    ).save(tmp_path / "spec.json")
    ran = command.works("match", a, b, "--spec", tmp_path / "spec.json", "-o", tmp_path / "p.safetensors", "--json")
    assert list(json.loads(ran.out)["groups"]) == ["only"]


def test_a_spec_that_nothing_has_checked_is_said(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    spec, p, out = tmp_path / "spec.json", tmp_path / "p.safetensors", tmp_path / "o.safetensors"

    def said(*arguments: object) -> str | None:
        ran = command.works(*arguments, "--json")
        document = json.loads(ran.out)
        file = document["unchecked_spec"]
        notes = [line for line in ran.err.splitlines() if "not checked on a network" in line]
        assert len(notes) == (file is not None)
        if file is not None:
            assert notes[0].startswith(f"note: {file}: ")
            assert f"lmcfast spec {file} --check" in notes[0]
            assert notes[0].removeprefix("note: ") in document["notes"]
        return file

    assert said("match", a, b, "-o", p) is None
    assert said("apply", p, b, "-o", out) is None
    assert said("merge", a, b, "--permutations", p, "-o", out) is None
    assert said("merge", a, b, "-o", out) is None
    axes = {"0.weight": ("only", None), "0.bias": ("only",), "2.weight": (None, "only"), "2.bias": (None,)}
    lmcfast.PermutationSpec.from_axes({**axes, "4.weight": (None, None), "4.bias": (None,)}).save(spec)
    assert said("match", a, b, "--spec", spec, "-o", p) == str(spec)
    assert said("merge", a, b, "--spec", spec, "-o", out) == str(spec)
    assert said("apply", p, b, "-o", out) == str(p)
    assert said("merge", a, b, "--permutations", p, "-o", out) == str(p)


def test_nested_checkpoints_are_read_and_said(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path, ".pt")
    torch.save({"epoch": 3, "state_dict": torch.load(a, weights_only=True)}, a)
    ran = command.works("merge", a, b, "-o", tmp_path / "m.pt")
    assert f"note: {a}: tensors taken from its entry 'state_dict'; left out: epoch" in ran.err
    assert_same_params(tmp_path / "m.pt", a)


def batchnorm_mlp(seed: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = torch.nn.Sequential(
            torch.nn.Linear(6, 9), torch.nn.BatchNorm1d(9), torch.nn.ReLU(), torch.nn.Linear(9, 4)
        )
        module(torch.randn(16, 6))
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def test_averaged_running_statistics_are_told(command: Commands, tmp_path: Path) -> None:
    a, b, merged = (tmp_path / f"{name}.safetensors" for name in "abm")
    lmcfast.save_checkpoint(a, batchnorm_mlp(0))
    lmcfast.save_checkpoint(b, batchnorm_mlp(1))
    ran = command.works("merge", a, b, "-o", merged)
    assert "to reset   2 averaged running statistics (BatchNorm)" in ran.out
    assert len([line for line in ran.err.splitlines() if line.startswith("warning: ")]) == 1
    assert "reset_batchnorm" in ran.err
    ran = command.works("merge", a, b, "-o", merged, "--json")
    assert json.loads(ran.out)["averaged_statistics"] == ["1.running_mean", "1.running_var"]
    ran = command.works("merge", a, b, "--weights", "1,0", "-o", merged)
    assert "warning" not in ran.err
    with pytest.warns(lmcfast.UnresetBatchNormWarning):
        merge_files(a, b, merged)


def test_counters_that_differ_are_kept_from_a(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    spec = tmp_path / "spec.json"
    lmcfast.spec_from_params(lmcfast.load_checkpoint(a)).save(spec)
    for path, step in ((a, 3), (b, 4)):
        lmcfast.save_checkpoint(path, {**lmcfast.load_checkpoint(path), "step": torch.tensor(step)})
    ran = command.works("merge", a, b, "--spec", spec, "-o", tmp_path / "m.safetensors")
    assert "kept from A  step\n" in ran.out
    assert "warning: integer or bool tensors differ" in ran.err
    assert lmcfast.load_checkpoint(tmp_path / "m.safetensors")["step"] == 3


def test_existing_output_is_replaced_unless_forbidden(command: Commands, tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    p, out = tmp_path / "p.safetensors", tmp_path / "out.safetensors"
    command.works("match", a, b, "-o", p)
    for arguments in (["match", a, b], ["apply", p, b], ["merge", a, b], ["merge", a, b, "--permutations", p]):
        out.write_bytes(b"old")
        message = command.fails(*arguments, "-o", out, "--no-overwrite", folder=tmp_path)
        assert message == f"error: {out}: exists, and overwriting is off"
        command.works(*arguments, "-o", out)
        assert out.read_bytes() != b"old"


def test_library_functions_return_what_they_did(tmp_path: Path) -> None:
    a, b = write_planted_pair(tmp_path)
    steps = []
    matched = match_files(a, b, options=MatchOptions(seed=3), callback=steps.append)
    assert matched.out is None
    assert steps
    assert matched.summary.reduction == pytest.approx(1)
    assert matched.summary.converged
    match_files(a, b, tmp_path / "p.safetensors")
    applied = apply_file(tmp_path / "p.safetensors", b, tmp_path / "b2.safetensors")
    assert (applied.out, applied.tensors) == (tmp_path / "b2.safetensors", 6)
    assert applied.groups == matched.summary.groups
    merged = merge_files(a, b, tmp_path / "m.safetensors", weight=0.25)
    assert merged.weights == (0.75, 0.25)
    assert merged.summary.objective == matched.summary.objective


def test_a_model_merged_with_itself_has_nothing_to_reduce(command: Commands, tmp_path: Path) -> None:
    a, _ = write_planted_pair(tmp_path)
    same = json.loads(command.works("merge", a, a, "-o", tmp_path / "m.safetensors", "--json").out)
    assert (same["distance_before"], same["distance_after"], same["reduction_percent"]) == (0, 0, 0)
    assert_same_params(tmp_path / "m.safetensors", a)
