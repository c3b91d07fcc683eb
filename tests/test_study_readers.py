"""Data sets as files: each format made here, read back value by value, and broken in every way that was thought of."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lmcfast
from lmcfast.study import load_dataset, padded

IDX = {
    "train-images-idx3-ubyte": (7, 5, 4),
    "train-labels-idx1-ubyte": (7,),
    "t10k-images-idx3-ubyte": (3, 5, 4),
    "t10k-labels-idx1-ubyte": (3,),
}


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return head + array.astype(np.uint8).tobytes()


def values(name: str) -> np.ndarray[Any, Any]:
    shape = IDX[name]
    generator = np.random.default_rng(len(name) + shape[0])
    return generator.integers(0, 3 if len(shape) == 1 else 256, shape)


def write_idx(folder: Path, end: str = "", dot: str = "-") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in IDX:
        content = idx_bytes(values(name))
        path = folder / (name.replace("-idx", f"{dot}idx") + end)
        path.write_bytes(gzip.compress(content) if end else content)
    return folder


@pytest.mark.parametrize(
    ("place", "end", "dot"), [("", "", "-"), ("", ".gz", "-"), ("", "", "."), ("MNIST/raw", "", "-")]
)
def test_idx_files_are_read_value_by_value(tmp_path: Path, place: str, end: str, dot: str) -> None:
    root = tmp_path / "data"
    write_idx(root / place, end, dot)
    data = load_dataset(root)
    assert data.name == ("MNIST" if place else "data")
    images, labels = values("train-images-idx3-ubyte"), values("t10k-labels-idx1-ubyte")
    np.testing.assert_allclose(data.train_inputs[:, 0].numpy(), images / 255, rtol=1e-6)
    assert data.test_targets.tolist() == labels.tolist()
    assert data.test_inputs.shape == (3, 1, 5, 4)


def records(count: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 3072), dtype=np.uint8), generator.integers(0, 10, count, dtype=np.uint8)


def names(end: str) -> list[str]:
    return [*(f"data_batch_{number}{end}" for number in range(1, 6)), f"test_batch{end}"]


def write_binary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names(".bin")):
        images, labels = records(2, seed)
        (folder / name).write_bytes(np.concatenate([labels[:, None], images], axis=1).tobytes())
    return folder


def write_pickles(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names("")):
        images, labels = records(2, seed)
        content = {"data": images, "labels": labels.tolist(), "batch_label": "some", "filenames": ["a", "b"]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


@pytest.mark.parametrize("write", [write_binary, write_pickles])
def test_both_kinds_of_cifar_batches_give_the_same(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    inner = "cifar-10-batches-bin" if write is write_binary else "cifar-10-batches-py"
    write(tmp_path / inner)
    for place in (tmp_path, tmp_path / inner):
        data = load_dataset(place)
        assert data.name == "cifar10"
        assert (data.train_inputs.shape, data.test_inputs.shape) == ((10, 3, 32, 32), (2, 3, 32, 32))
        images, labels = records(2, 3)  # the fourth batch: examples 6 and 7
        np.testing.assert_allclose(data.train_inputs[6, 1, 4, 5], images[0, 1024 + 4 * 32 + 5] / 255, rtol=1e-6)
        assert data.train_targets[6:8].tolist() == labels.tolist()
        assert data.test_targets.tolist() == records(2, 5)[1].tolist()


class Harmful:
    """A pickle that would write a file where it is loaded by ``pickle.load``."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    write_pickles(tmp_path)
    mark = tmp_path / "mark"
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps({"data": Harmful(mark)}))
    with pytest.raises(lmcfast.CheckpointError, match=r"data_batch_2: is not a pickled batch .*only arrays are loaded"):
        load_dataset(tmp_path)
    assert not mark.exists()
    pickle.loads((tmp_path / "data_batch_2").read_bytes())  # the twin that trusts its file
    assert mark.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("write", "change", "words"),
    [
        (write_idx, lambda at: cut(at / "train-images-idx3-ubyte"), "ubyte: holds 139 values .* 7 x 5 x 4 = 140"),
        (write_idx, lambda at: (at / "t10k-labels-idx1-ubyte").unlink(), "has no t10k-labels-idx1-ubyte"),
        (write_idx, lambda at: (at / "train-labels-idx1-ubyte").write_bytes(b"abc"), "not an IDX file .* 1 axes"),
        (
            write_idx, lambda at: (at / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(4))),
            "has 3 images, but t10k-labels-idx1-ubyte 4 labels",
        ),
        (
            write_idx, lambda at: (at / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((3, 5, 5)))),
            "images of different sizes",
        ),
        (write_binary, lambda at: cut(at / "test_batch.bin"), "test_batch.bin: has 6145 bytes"),
        (write_binary, lambda at: (at / "data_batch_3.bin").unlink(), "data_batch_3.bin: cannot be read: no such file"),
        (write_binary, lambda at: (at / "data_batch_4.bin").write_bytes(bytes([10]) * 3073), "the label 10"),
        (write_pickles, lambda at: (at / "data_batch_1").write_bytes(b"x"), "data_batch_1: is not a pickled batch"),
        (write_pickles, lambda at: (at / "test_batch").write_bytes(pickle.dumps({"data": 3})), "no array 'data'"),
        (
            write_pickles,
            lambda at: (at / "test_batch").write_bytes(pickle.dumps({"data": records(2, 0)[0], "labels": [1]})),
            "no list 'labels'",
        ),
        (write_binary, lambda at: write_idx(at), "more than one data set"),
    ],
)  # fmt: skip
def test_broken_files_are_named(
    tmp_path: Path, write: Callable[[Path], Path], change: Callable[[Path], object], words: str
) -> None:
    folder = write(tmp_path / "some")
    change(folder)
    with pytest.raises(lmcfast.CheckpointError, match=f"some.*{words}") as caught:
        load_dataset(folder)
    assert "\n" not in str(caught.value)


def test_a_broken_gzip_file_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path, ".gz")
    cut(tmp_path / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(lmcfast.CheckpointError, match=r"t10k-images-idx3-ubyte\.gz: is a broken gzip file"):
        load_dataset(tmp_path)


def test_paths_without_data_are_named(tmp_path: Path) -> None:
    (tmp_path / "file.tar").touch()
    for path, words in ((tmp_path, "holds no data set"), (tmp_path / "file.tar", "is not an .npz file")):
        with pytest.raises(lmcfast.CheckpointError, match=words):
            load_dataset(path)
    with pytest.raises(lmcfast.CheckpointError, match="none: cannot be read: no such file"):
        load_dataset(tmp_path / "none")


def test_zeros_stand_around_padded_images(tmp_path: Path) -> None:
    data = load_dataset(write_idx(tmp_path))
    wide = padded(data, 8)
    assert wide.train_inputs.shape == (7, 1, 8, 8)
    assert torch.equal(wide.train_inputs[:, :, 1:6, 2:6], data.train_inputs)
    assert float(wide.test_inputs.sum()) == pytest.approx(float(data.test_inputs.sum()))
    with pytest.raises(ValueError, match="pad: the images are 5 x 4, larger than 4 x 4"):
        padded(data, 4)
