"""Permutation files: read back exactly, and refused when anything in them has been changed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from lmcfast.errors import CheckpointError, InvalidPermutationError
from lmcfast.io import check_sources, file_sha256, read_permutations, save_checkpoint, write_permutations

SPEC = '{"format": "lmcfast-spec", "note": "ü"}'


def permutations() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    nested = torch.stack([torch.randperm(4, generator=generator) for _ in range(6)]).view(2, 3, 4)
    return {
        "z last in the alphabet": torch.randperm(7, generator=generator),
        'layer.1/ü\\ \n"': torch.randperm(5, generator=generator),
        "": torch.zeros(0, dtype=torch.int64),
        "nested": nested,
    }


def write(path: Path, **changes: object) -> None:
    arguments = {"permutations": permutations(), "spec_text": SPEC, "objective": 0.1 + 0.2, "gap": 1e-17}
    write_permutations(path, **{**arguments, "sources": {"a": "1" * 64}, **changes})


def rewrite(path: Path, metadata: dict[str, str | None], tensors: dict[str, torch.Tensor] | None = None) -> None:
    """Change a file behind the library's back; None removes a metadata entry."""
    with safe_open(path, "pt") as file:
        merged = {**file.metadata(), **metadata}
        held = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    save_file({**held, **(tensors or {})}, path, {key: text for key, text in merged.items() if text is not None})


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    write(path)
    read = read_permutations(path)
    assert list(read.permutations) == list(permutations())
    for group, permutation in permutations().items():
        torch.testing.assert_close(read.permutations[group], permutation, rtol=0, atol=0)
    assert (read.spec_text, read.objective, read.gap) == (SPEC, 0.1 + 0.2, 1e-17)
    assert read.sources == {"a": "1" * 64}
    assert read.path == path


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.permutations(range(4)), max_size=6))
def test_group_names_may_hold_any_text(groups: dict[str, list[int]]) -> None:
    held = {name: torch.tensor(order) for name, order in groups.items() if name != "__metadata__"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.safetensors"
        write(path, permutations=held)
        read = read_permutations(path)
    assert list(read.permutations) == list(held)
    assert all(read.permutations[name].equal(order) for name, order in held.items())


def test_the_file_says_what_it_is_to_other_readers(tmp_path: Path) -> None:
    write(tmp_path / "p.safetensors")
    with safe_open(tmp_path / "p.safetensors", "pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(permutations())
    assert metadata["direction"] == "new[i] = old[p[i]]"
    assert metadata["version"] == "1"
    assert json.loads(metadata["groups"]) == list(permutations())
    assert metadata["lmcfast_version"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"format": None}, "not a permutation file"),
        ({"version": "2"}, "metadata 'version' is '2'"),
        ({"direction": "new[p[i]] = old[i]"}, "metadata 'direction'"),
        ({"spec": SPEC + " "}, "metadata 'spec_sha256'"),
        ({"spec_sha256": "0" * 64}, "metadata 'spec_sha256'"),
        ({"spec": None}, "metadata 'spec' is missing"),
        ({"objective": "much"}, "metadata 'objective' is 'much'"),
        ({"gap": None}, "metadata 'gap' is missing"),
        ({"groups": "["}, "metadata 'groups' is '['"),
        ({"groups": "[1]"}, "metadata 'groups' is '[1]'"),
        ({"groups": '["nested"]'}, "groups and tensors differ"),
        ({"sources": '{"a": 1}'}, "metadata 'sources'"),
        ({"lmcfast_version": None}, "metadata 'lmcfast_version' is missing"),
    ],
)
def test_changed_metadata_is_refused(tmp_path: Path, metadata: dict[str, str | None], words: str) -> None:
    path = tmp_path / "p.safetensors"
    write(path)
    rewrite(path, metadata)
    with pytest.raises(CheckpointError) as caught:
        read_permutations(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([0, 1, 1]),
        torch.tensor([1, 2, 3]),
        torch.tensor([0, 1, -1]),
        torch.tensor([0, 1], dtype=torch.int32),
        torch.tensor([0.0, 1.0]),
        torch.tensor(0),
        torch.tensor([[0, 1], [1, 1]]),
    ],
)
def test_a_tensor_that_is_no_permutation_is_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    path = tmp_path / "p.safetensors"
    with pytest.raises(InvalidPermutationError, match="'bad'") as raised:
        write(path, permutations={"good": torch.arange(3), "bad": tensor})
    assert raised.value.group == "bad"
    assert list(tmp_path.iterdir()) == []
    write(path)
    rewrite(path, {}, {"nested": tensor})
    with pytest.raises(CheckpointError, match="group 'nested'"):
        read_permutations(path)


def test_names_that_cannot_be_stored(tmp_path: Path) -> None:
    with pytest.raises(InvalidPermutationError, match="__metadata__"):
        write(tmp_path / "p.safetensors", permutations={"__metadata__": torch.arange(2)})
    with pytest.raises(CheckpointError, match=r"must end in \.safetensors"):
        write(tmp_path / "p.pt")
    with pytest.raises(CheckpointError, match=r"must end in \.safetensors"):
        read_permutations(tmp_path / "p.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_not_a_permutation_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.safetensors", {"w": torch.ones(2)})
    with pytest.raises(CheckpointError, match="not a permutation file"):
        read_permutations(tmp_path / "m.safetensors")


def test_sources_are_checked_by_hash(tmp_path: Path) -> None:
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_checkpoint(a, {"w": torch.ones(2)})
    save_checkpoint(b, {"w": torch.zeros(2)})
    write(tmp_path / "p.safetensors", sources={"a": file_sha256(a)})
    read = read_permutations(tmp_path / "p.safetensors")
    assert check_sources(read, {"a": a, "b": b}) == {"a": file_sha256(a)}
    with pytest.raises(CheckpointError, match=r"b\.safetensors: not the checkpoint") as caught:
        check_sources(read, {"a": b})
    assert caught.value.path == str(b)
