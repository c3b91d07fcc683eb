"""Labelled images: scikit-learn's digits and .npz files."""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import CheckpointError, UnavailableError

_KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, eq=False)
class Batches:
    """(inputs, targets) pairs of at most ``size`` examples, in order; can be gone through again and again."""

    inputs: Tensor
    targets: Tensor
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: a batch has at least 1 example, not {self.size!r}")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for begin in range(0, len(self.inputs), self.size):
            part = slice(begin, begin + self.size)
            yield self.inputs[part], self.targets[part]

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.size)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images (examples, channels, height, width) float32, labels (examples,) int64 from 0, in two splits."""

    name: str
    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor

    @property
    def classes(self) -> int:
        return int(self.train_targets.max()) + 1

    @property
    def input_size(self) -> int:
        """Values in one image."""
        return self.train_inputs[0].numel()

    def train_batches(self, size: int = 500) -> Batches:
        return Batches(self.train_inputs, self.train_targets, size)

    def test_batches(self, size: int = 500) -> Batches:
        return Batches(self.test_inputs, self.test_targets, size)


def load_digits() -> Dataset:
    """scikit-learn's digits: 1797 grey images of 8 x 8 with values in [0, 1]; needs no download.

    Every third image is held out: 1198 for training, 599 for testing, the same on every machine. Raises
    ``UnavailableError`` where scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise UnavailableError("scikit-learn is needed for the digits: pip install lmcfast[demo]") from error
    content = load()
    inputs = torch.from_numpy(np.asarray(content.images, dtype=np.float32) / 16).unsqueeze(1)
    targets = torch.from_numpy(np.asarray(content.target, dtype=np.int64))
    held_out = torch.arange(len(inputs)) % 3 == 0
    return Dataset("digits", inputs[~held_out], targets[~held_out], inputs[held_out], targets[held_out])


def load_npz(path: str | os.PathLike[str]) -> Dataset:
    """Images and labels of an .npz file with the arrays ``x_train, y_train, x_test, y_test``.

    Images are (examples, height, width), (examples, height, width, channels) with 1, 3 or 4 channels, or (examples,
    channels, height, width); uint8 is divided by 255, floats are taken as they are. Raises ``CheckpointError`` naming
    file and array.
    """
    arrays = _read(path)
    splits: list[Tensor] = []
    for split in ("train", "test"):
        images = _images(arrays[f"x_{split}"], f"x_{split}", path)
        labels = _labels(arrays[f"y_{split}"], f"y_{split}", path)
        if len(images) != len(labels) or not len(images):
            counts = f"{len(images)} images and {len(labels)} labels"
            raise refuse(path, f"x_{split} and y_{split} do not fit each other: {counts}")
        splits += [images, labels]
    name = os.path.splitext(os.path.basename(os.fspath(path)))[0]
    return Dataset(name, *splits)


def _read(path: str | os.PathLike[str]) -> dict[str, NDArray[np.generic]]:
    try:
        with open(path, "rb") as handle:
            # numpy takes other formats too, and leaves a broken archive half open
            if not zipfile.is_zipfile(handle):
                raise refuse(path, "is not an .npz file")
            handle.seek(0)
            with np.load(handle, allow_pickle=False) as file:
                missing = [key for key in _KEYS if key not in file]
                if missing:
                    raise refuse(path, f"has no array {missing[0]!r}; it has {', '.join(map(repr, file)) or 'none'}")
                return {key: file[key] for key in _KEYS}
    except OSError as error:
        raise refuse(path, f"cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise refuse(path, f"is not an .npz file of plain arrays: {error}") from error


def _images(array: NDArray[np.generic], key: str, path: str | os.PathLike[str]) -> Tensor:
    if array.dtype == np.uint8:
        values = torch.from_numpy(array).to(torch.float32) / 255
    elif array.dtype.kind == "f":
        values = torch.from_numpy(array.astype(np.float32))
    else:
        raise refuse(path, f"{key} is {array.dtype}; uint8 or floats are needed")
    if not bool(torch.isfinite(values).all()):
        raise refuse(path, f"{key} holds a value that is not finite")
    if values.ndim == 3:
        return values.unsqueeze(1)
    if values.ndim != 4:
        raise refuse(path, f"{key} has shape {array.shape}; images of 3 or 4 axes are needed")
    return values.movedim(-1, 1).contiguous() if values.shape[-1] in (1, 3, 4) else values


def _labels(array: NDArray[np.generic], key: str, path: str | os.PathLike[str]) -> Tensor:
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1):
        raise refuse(path, f"{key} is {array.dtype} of shape {array.shape}; one integer for each image is needed")
    labels = torch.from_numpy(array.astype(np.int64).reshape(-1))
    if len(labels) and int(labels.min()) < 0:
        raise refuse(path, f"{key} holds the negative label {int(labels.min())}")
    return labels


def refuse(path: str | os.PathLike[str], reason: str) -> CheckpointError:
    """The error of a file that is not what it should be."""
    return CheckpointError(f"{os.fspath(path)}: {reason}", os.fspath(path))
