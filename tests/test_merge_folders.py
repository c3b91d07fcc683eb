"""Merging and aligning folders shard by shard: what is recovered, what is written, what options do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.commands import Commands, mlp, snapshot
from helpers.folders import LLAMA, random_params, read_folder, write_folder, write_kept_pair, write_pair
from safetensors import safe_open

import lmcfast
from lmcfast.analysis import diagnose_checkpoints
from lmcfast.errors import OptionError
from lmcfast.io import read_permutations
from lmcfast.io.shards import read_header
from lmcfast.merging import FolderOptions, MergedFolder, align_checkpoint, merge_checkpoints, plan_checkpoints
from lmcfast.spec import configuration
from lmcfast.spec.tables.by_config import table_for


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


@pytest.fixture(autouse=True)
def shipped_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where transformers is not installed: a table is quick, a derivation is not."""
    find = configuration.importlib.util.find_spec
    monkeypatch.setattr(
        configuration.importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name)
    )


def assert_same(one: Path, other: Path, tolerance: float = 0.0) -> None:
    got, wanted = read_folder(one), read_folder(other)
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "files"), [("llama", 1), ("llama", 3), ("gpt2", 2), ("mixtral", 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hidden_permutation_is_recovered(tmp_path: Path, name: str, files: int, dtype: torch.dtype) -> None:
    a, b = write_kept_pair(tmp_path, name, files, dtype)
    inputs = snapshot(tmp_path)
    aligned = align_checkpoint(a, b, tmp_path / "b2")
    assert_same(tmp_path / "b2", a)
    merged = merge_checkpoints([a, b], tmp_path / "m")
    assert_same(tmp_path / "m", a)
    assert not merged.identity_won
    assert all(figures.cosine_after > 0.999 for figures in (*merged.families, *aligned.families))
    after = snapshot(tmp_path)
    assert {path: after[path] for path in inputs} == inputs
    assert {path.split("/")[0] for path in after} == {"a", "b", "b2", "m"}  # nothing else is left


def test_the_output_has_the_layout_of_a(tmp_path: Path) -> None:
    a, b = write_kept_pair(tmp_path, "llama", 3)
    (a / "tokenizer_config.json").write_text("{}")
    merge_checkpoints([a, b], tmp_path / "m", weights=[0.25, 0.75])
    for file in a.glob("*.safetensors"):
        one, other = read_header(file), read_header(tmp_path / "m" / file.name)
        assert one.keys == other.keys
        assert one.metadata == other.metadata
        assert [(e.key, e.code, e.shape, e.offset) for e in one.entries] == [
            (e.key, e.code, e.shape, e.offset) for e in other.entries
        ]
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == json.loads((a / "model.safetensors.index.json").read_text())["weight_map"]
    assert (tmp_path / "m" / "config.json").read_bytes() == (a / "config.json").read_bytes()
    assert (tmp_path / "m" / "tokenizer_config.json").read_text() == "{}"
    record = json.loads((tmp_path / "m" / "lmcfast_merge.json").read_text())
    assert record["options"]["weights"] == [0.25, 0.75]
    for source, folder in zip(record["sources"], (a, b), strict=True):
        assert source["files"] == {f.name: lmcfast.io.file_sha256(f) for f in folder.glob("*.safetensors")}
    file = read_permutations(tmp_path / "m" / record["permutations"][0])
    params_b = read_folder(b)
    spec = table_for(LLAMA)
    moved = lmcfast.apply_permutations(spec, file.permutations, params_b | {"lm_head.weight": params_b[EMBEDDING]})
    for name, tensor in read_folder(a).items():
        torch.testing.assert_close(moved[name], tensor, rtol=0, atol=0)


EMBEDDING = "model.embed_tokens.weight"


def merged_of(
    tmp_path: Path, count: int = 2, **arguments: object
) -> tuple[list[dict[str, torch.Tensor]], MergedFolder]:
    """Unrelated networks merged as they stand; their tensors, then those of the result."""
    spec = table_for(LLAMA)
    folders = [tmp_path / f"in{k}" for k in range(count)]
    for k, folder in enumerate(folders):
        params = random_params(spec, k)
        write_folder(folder, LLAMA, {name: params[name] for name in params if name != "lm_head.weight"})
    options = FolderOptions(fix=("*",), dtype=arguments.pop("dtype", None))  # type: ignore[arg-type]
    base = arguments.pop("base", None)
    sources = folders if base is None else folders[:-1]
    done = merge_checkpoints(
        sources, tmp_path / "m", base=None if base is None else folders[-1], options=options, **arguments
    )
    return [*(read_folder(folder) for folder in folders), read_folder(tmp_path / "m")], done


def test_weights_for_each_model_and_layer(tmp_path: Path) -> None:
    (a, b, c, m), _ = merged_of(
        tmp_path, 3, weights=[0.5, 0.3, 0.2], layer_weights=[("model.layers.1.*", [0.1, 0.1, 0.8])]
    )
    for name, tensor in m.items():
        x, y, z = (0.1, 0.1, 0.8) if name.startswith("model.layers.1.") else (0.5, 0.3, 0.2)
        torch.testing.assert_close(tensor, x * a[name] + y * b[name] + z * c[name])


def test_slerp(tmp_path: Path) -> None:
    (a, b, m), _ = merged_of(tmp_path, method="slerp", weights=[0.75, 0.25])
    x, y, found = (t[EMBEDDING].double().flatten() for t in (a, b, m))
    angle = torch.acos(x @ y / x.norm() / y.norm())
    wanted = (torch.sin(0.75 * angle) * x + torch.sin(0.25 * angle) * y) / torch.sin(angle)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_task_arithmetic(tmp_path: Path) -> None:
    (a, b, base, m), _ = merged_of(tmp_path, 3, base=True, method="task_arithmetic", weights=[0.6, 0.9], scale=0.5)
    for name, tensor in m.items():
        wanted = base[name] + 0.5 * (0.6 * (a[name] - base[name]) + 0.9 * (b[name] - base[name]))
        torch.testing.assert_close(tensor, wanted)


def test_ties(tmp_path: Path) -> None:
    (a, b, base, m), _ = merged_of(tmp_path, 3, base=True, method="ties", weights=[1.0, 1.0], density=0.3)
    for name, tensor in m.items():
        kept = []
        for model in (a, b):
            difference = model[name] - base[name]
            count = -(-3 * difference.numel() // 10)
            least = difference.abs().flatten().sort(descending=True).values[count - 1]
            kept.append(torch.where(difference.abs() >= least, difference, 0.0))
        both = torch.stack(kept)
        agreeing = (both.sign() == both.sum(0).sign()) & (both != 0)
        change = (both * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)
        torch.testing.assert_close(tensor, base[name] + change)


def test_dare_repeats_and_keeps_the_mean(tmp_path: Path) -> None:
    (a, b, base, m), _ = merged_of(tmp_path, 3, base=True, method="dare", weights=[1.0, 0.0], density=0.5, seed=4)
    change, whole = ((t[EMBEDDING] - base[EMBEDDING]) for t in (m, a))
    dropped = change.abs() < 1e-6
    assert 0.4 < float(dropped.float().mean()) < 0.6
    torch.testing.assert_close(change[~dropped], 2 * whole[~dropped], rtol=1e-4, atol=1e-5)
    (tmp_path / "again").mkdir()
    (*_, again), _ = merged_of(tmp_path / "again", 3, base=True, method="dare", weights=[1.0, 0.0], density=0.5, seed=4)
    assert all(torch.equal(again[name], m[name]) for name in m)
    assert b.keys() == m.keys()


def test_bfloat16_is_rounded_once_to_nearest_even(tmp_path: Path) -> None:
    (a, b, m), _ = merged_of(tmp_path, weights=[0.25, 0.75], dtype="bfloat16")
    for name, tensor in m.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, (0.25 * a[name] + 0.75 * b[name]).bfloat16())


def test_the_residual_stream_moves_when_asked(tmp_path: Path) -> None:
    a, b = write_pair(tmp_path, "llama")
    kept = merge_checkpoints([a, b], tmp_path / "kept")
    assert "stream" not in {group for family in kept.families for group in family.groups}
    options = FolderOptions(residual="permute")
    moved = align_checkpoint(a, b, tmp_path / "b2", options=options)
    assert_same(tmp_path / "b2", a)
    assert moved.objective[0][1] > kept.objective[0][1]


def test_groups_that_are_held(tmp_path: Path) -> None:
    a, b = write_kept_pair(tmp_path, "llama")
    done = align_checkpoint(a, b, tmp_path / "b2", options=FolderOptions(groups=("ffn",)))
    assert {family.name for family in done.families} == {"mlp.0", "mlp.1"}
    got, before, wanted = read_folder(tmp_path / "b2"), read_folder(b), read_folder(a)
    for name, tensor in got.items():
        assert torch.equal(tensor, (wanted if ".mlp." in name else before)[name])


def test_identity_wins_between_fine_tunes(command: Commands, tmp_path: Path) -> None:
    a, _ = write_kept_pair(tmp_path, "llama")
    tensors = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in read_folder(a).items()}
    write_folder(tmp_path / "c", LLAMA, tensors)
    assert merge_checkpoints([a, tmp_path / "c"], tmp_path / "m").identity_won
    out = command.works("merge", a, tmp_path / "c", "-o", tmp_path / "m2").out
    assert "they line up as they stand (same lineage)" in out
    assert diagnose_checkpoints(a, tmp_path / "c").verdict == "same lineage: identity is best"


def test_diagnosis_and_plan(command: Commands, tmp_path: Path) -> None:
    a, b = write_kept_pair(tmp_path, "llama", 2)
    unrelated = random_params(table_for(LLAMA), 99)
    write_folder(tmp_path / "u", LLAMA, {name: t for name, t in unrelated.items() if name != "lm_head.weight"})
    assert diagnose_checkpoints(a, tmp_path / "u").verdict == "unrelated"
    before = snapshot(tmp_path)
    ran = command.works("merge", a, b, "--dry-run", "--diagnose", "-o", tmp_path / "m")
    assert "verdict" in ran.out
    assert "align" in ran.out
    found = json.loads(command.works("merge", a, b, "--dry-run", "--json", "-o", tmp_path / "m").out)
    assert found["written"] > sum(f.stat().st_size for f in a.glob("*.safetensors")) - 2000
    assert [family["name"] for family in found["families"]] == ["kv.0", "mlp.0", "kv.1", "mlp.1"]
    assert snapshot(tmp_path) == before
    plan = plan_checkpoints([a, b])
    assert plan.held == ("stream",)
    assert plan.families[1].operations == 2 * 24 * 24 * 3 * 16


def test_memory_that_is_too_little_is_refused(command: Commands, tmp_path: Path) -> None:
    a, b = write_kept_pair(tmp_path, "llama")
    message = command.fails("merge", a, b, "--max-memory", "1M", "-o", tmp_path / "m", folder=tmp_path, code=2)
    assert "--max-memory" in message
    assert "GiB are allowed" in message


def test_json_lines_and_log(command: Commands, tmp_path: Path) -> None:
    a, b = write_kept_pair(tmp_path, "llama", 2)
    ran = command.works("merge", a, b, "--json", "--log", tmp_path / "log", "-o", tmp_path / "m")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert {line["event"] for line in lines} == {"progress", "result"}
    assert {line["phase"] for line in lines[:-1]} == {"match", "merge"}
    assert lines[-1]["out"] == str(tmp_path / "m")
    log = (tmp_path / "log").read_text()
    assert "match mlp.0" in log
    assert log.rstrip().endswith("end: done")
    again = command.works("merge", a, b, "-o", tmp_path / "m")
    assert "finished already" in again.err


def test_align_on_the_command_line(command: Commands, tmp_path: Path) -> None:
    a, b = write_kept_pair(tmp_path, "llama", 2)
    ran = command.works("align", a, b, "-o", tmp_path / "b2")
    figures = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert list(figures) == ["moved", "objective", "spec", "seconds", "written"]
    assert "match: " in ran.err
    assert_same(tmp_path / "b2", a)


def test_options_of_one_kind_of_input_are_refused_with_the_other(command: Commands, tmp_path: Path) -> None:
    a, b = write_kept_pair(tmp_path, "llama")
    files = [folder / "model.safetensors" for folder in (a, b)]
    for models, out, option in (
        ((a, b), "m", ("--restarts", 2)),
        ((a, b), "m.safetensors", ("--method", "slerp")),
        (files, "m.safetensors", ("--groups", "ffn")),
    ):
        message = command.fails("merge", *models, "-o", tmp_path / out, *option, folder=tmp_path, code=2)
        assert "has no effect" in message
    arguments = ["--layer-weights", "layers=0.5", "--weights", "0.5,0.5"]
    assert "each of 2 models" in command.fails("merge", a, b, "-o", tmp_path / "m", *arguments, folder=tmp_path, code=2)
    message = command.fails("merge", *files, files[0], "-o", tmp_path / "m.pt", folder=tmp_path, code=2)
    assert "of files two are merged, not 3" in message


def test_single_files_without_configuration(tmp_path: Path) -> None:
    params = mlp(0)
    spec = lmcfast.spec_from_params(params).bind(params)
    lmcfast.save_checkpoint(tmp_path / "a.safetensors", params)
    shuffled = lmcfast.apply_permutations(spec, spec.random_permutations(1), params)
    lmcfast.save_checkpoint(tmp_path / "b.safetensors", shuffled)
    merge_checkpoints([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], tmp_path / "m")
    with safe_open(tmp_path / "m" / "a.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(params)
        for name, tensor in params.items():
            torch.testing.assert_close(file.get_tensor(name), tensor)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"weights": [0.5, 0.6]}, "add up to 1"),
        ({"weights": [1.0]}, "each of 2 models"),
        ({"method": "ties"}, "is needed for"),
        ({"method": "magic"}, "must be one of"),
        ({"layer_weights": [("*", [1.0, 1.0])]}, "add up to 1"),
        ({"options": FolderOptions(residual="keep", groups=("residual",))}, "needs residual permute"),
        ({"options": FolderOptions(groups=("feet",))}, "must be of ffn"),
        ({"options": FolderOptions(dtype="int4")}, "must be one of"),
        ({"options": FolderOptions(residual="move")}, "keep or permute"),  # type: ignore[arg-type]
    ],
)
def test_options_that_cannot_be(tmp_path: Path, arguments: dict[str, object], words: str) -> None:
    a, b = write_kept_pair(tmp_path, "llama")
    before = snapshot(tmp_path)
    with pytest.raises(OptionError, match=words):
        merge_checkpoints([a, b], tmp_path / "m", **arguments)  # type: ignore[arg-type]
    assert snapshot(tmp_path) == before


def test_permutations_that_are_given(tmp_path: Path) -> None:
    a, b = write_kept_pair(tmp_path, "llama")
    align_checkpoint(a, b, tmp_path / "b2")
    file = tmp_path / "b2" / "lmcfast_permutations_1.safetensors"
    done = merge_checkpoints([a, b], tmp_path / "m", permutations=[file])
    assert_same(tmp_path / "m", a)
    assert done.objective[0][1] > done.objective[0][0]
    setting = read_permutations(file).permutations
    merge_checkpoints([a, b], tmp_path / "m2", [0.5, 0.5], None, [setting])
    assert_same(tmp_path / "m2", a)
    with pytest.raises(OptionError, match="one for each of 1 models"):
        merge_checkpoints([a, b], tmp_path / "m3", permutations=[])
