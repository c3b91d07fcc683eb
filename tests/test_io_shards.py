"""Safetensors files read by rows and written front to back, against the library's own reader and writer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lmcfast.errors import CheckpointError
from lmcfast.io.shard_writer import ShardWriter
from lmcfast.io.shards import DTYPES, LazyCheckpoint, dtype_code, read_header, row_blocks, torch_dtype

TENSORS = {
    "matrix": torch.arange(35, dtype=torch.float32).reshape(7, 5),
    "half": torch.arange(12, dtype=torch.float16).reshape(2, 3, 2),
    "brain": torch.arange(6, dtype=torch.bfloat16),
    "eighth": torch.arange(6).to(torch.float8_e4m3fn),
    "counter": torch.tensor(3),
    "mask": torch.tensor([True, False]),
    "empty": torch.zeros(0, 4),
}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path, {"format": "pt"})
    with LazyCheckpoint(path) as files:
        assert set(files.entries) == set(TENSORS)
        for key, tensor in TENSORS.items():
            entry = files.entries[key]
            got = files.read(entry)
            assert got.dtype == tensor.dtype
            assert torch.equal(got.view(torch.uint8), tensor.view(torch.uint8)) if tensor.ndim else got == tensor
        blocks = [files.read(files.entries["matrix"], *rows) for rows in row_blocks(files.entries["matrix"], 45)]
        assert [len(block) for block in blocks] == [2, 2, 2, 1]
        assert torch.equal(torch.cat(blocks), TENSORS["matrix"])
        assert torch.equal(files.read(files.entries["half"], 1, 2), TENSORS["half"][1:])
        assert files.size == sum(t.numel() * t.element_size() for t in TENSORS.values())


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    plan = [(key, str(dtype_code(str(t.dtype).removeprefix("torch."))), tuple(t.shape)) for key, t in TENSORS.items()]
    with ShardWriter(path, plan, {"format": "pt", "who": "ü"}, sorted(TENSORS)) as writer:
        for tensor in TENSORS.values():
            for piece in tensor.split(2) if tensor.ndim else [tensor]:
                writer.write(piece.contiguous())
        writer.finish()
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "who": "ü"}
        for key, tensor in TENSORS.items():
            got = file.get_tensor(key)
            assert got.dtype == tensor.dtype
            assert torch.equal(got.float(), tensor.float())
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"]
    assert read_header(path).keys == tuple(sorted(TENSORS))


def write_half(path: Path, finish: bool) -> None:
    with ShardWriter(path, [("x", "F32", (4,))], {}) as writer:
        writer.write(torch.ones(2))
        if finish:
            writer.finish()


def test_what_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    write_half(tmp_path / "c.safetensors", finish=False)
    with pytest.raises(RuntimeError, match="bytes written"):
        write_half(tmp_path / "c.safetensors", finish=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "needs 8 bytes and has 4"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "'x' is out of place"),
        ({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, "ends at byte"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, "4 bytes belong to no tensor"),
        ({"x": {"dtype": "F6", "shape": [1], "data_offsets": [0, 4]}}, "dtype F6, which is not supported"),
        ({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "entry of tensor 'x'"),
        ({"x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "entry of tensor 'x'"),
        ({"x": 3}, "entry of tensor 'x'"),
        ({"__metadata__": {"a": 1}}, "its metadata is no text"),
        ([], "header is no object"),
    ],
)
def test_headers_that_lie(tmp_path: Path, change: object, words: str) -> None:
    path = tmp_path / "d.safetensors"
    text = json.dumps(change).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(CheckpointError, match=words) as caught:
        read_header(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_codes_are_torchs_dtypes() -> None:
    for code, (name, size) in DTYPES.items():
        assert torch_dtype(code).itemsize == size
        assert dtype_code(name) == code
    assert dtype_code("int4") is None
