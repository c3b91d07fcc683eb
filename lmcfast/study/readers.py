"""Data sets as they are distributed: IDX files (MNIST and its kin), CIFAR-10's batches, the folders of torchvision."""

from __future__ import annotations

import gzip
import os
import pickle
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from ..io.atomic import reason
from .data import Dataset, load_digits, load_npz, refuse

Bytes = NDArray[np.uint8]

_IDX_PARTS = {
    "x_train": ("train-images", 3), "y_train": ("train-labels", 1), "x_test": ("t10k-images", 3),
    "y_test": ("t10k-labels", 1),
}  # fmt: skip
_CIFAR_SIDE, _CIFAR_CLASSES = 32, 10
_CIFAR_VALUES = 3 * _CIFAR_SIDE**2
_CIFAR_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")

# What a pickled dict of numpy arrays, lists and bytes needs, under numpy's old and new names; nothing else is loaded.
_HARMLESS = {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
}  # fmt: skip


def load_dataset(path: str | os.PathLike[str] | None = None) -> Dataset:
    """The data set in a file or folder; None for scikit-learn's digits.

    Args:
        path: an .npz file (:func:`load_npz`), or a folder that holds, itself or where torchvision puts it
            (``MNIST/raw``, ``cifar-10-batches-py``), one of

            - the four IDX files ``train-images-idx3-ubyte`` and so on, which may end in .gz;
            - CIFAR-10's ``data_batch_1.bin`` .. ``data_batch_5.bin`` and ``test_batch.bin``;
            - the same as Python pickles, from which only arrays, numbers and text are loaded: no code runs.

    Pixels are divided by 255. Raises ``CheckpointError`` naming the file and what is wrong with it.
    """
    if path is None:
        return load_digits()
    place = Path(path)
    if place.is_dir():
        return _load_folder(place)
    if not place.exists():
        raise refuse(path, "cannot be read: no such file or directory")
    if place.suffix.lower() == ".npz":
        return load_npz(place)
    raise refuse(path, "is not an .npz file; for IDX files and CIFAR-10's batches give their folder")


def padded(data: Dataset, side: int) -> Dataset:
    """The images with zeros around them, ``side`` x ``side``; ValueError where they are larger than that."""
    height, width = data.train_inputs.shape[-2:]
    if max(height, width) > side:
        raise ValueError(f"pad: the images are {height} x {width}, larger than {side} x {side}")
    top, left = (side - height) // 2, (side - width) // 2
    margins = (left, side - width - left, top, side - height - top)
    return replace(data, train_inputs=pad(data.train_inputs, margins), test_inputs=pad(data.test_inputs, margins))


def _load_folder(folder: Path) -> Dataset:
    """Look for known files here and where torchvision puts them; exactly one data set must be there."""
    found: list[tuple[Path, Callable[[Path], Dataset]]] = []
    for place in (folder, folder / "raw", *sorted(folder.glob("*/raw")), *(folder / name for name in _CIFAR_FOLDERS)):
        found += [(place, load) for sign, load in _KINDS if sign(place)]
    if not found:
        raise refuse(folder, "holds no data set: neither IDX files (train-images-idx3-ubyte) nor batches of CIFAR-10")
    if len(found) > 1:
        places = ", ".join(str(place) for place, _ in found)
        raise refuse(folder, f"holds more than one data set: {places}; give the folder of one")
    place, load = found[0]
    return load(place)


def _idx_sign(folder: Path) -> bool:
    return _idx_file(folder, "train-images", 3) is not None


def _idx_file(folder: Path, stem: str, axes: int) -> Path | None:
    names = [f"{stem}{dot}idx{axes}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _load_idx(folder: Path) -> Dataset:
    arrays: dict[str, Bytes] = {}
    files: dict[str, Path] = {}
    for key, (stem, axes) in _IDX_PARTS.items():
        file = _idx_file(folder, stem, axes)
        if file is None:
            raise refuse(folder, f"has no {stem}-idx{axes}-ubyte beside the other IDX files")
        files[key], arrays[key] = file, _read_idx(file, axes)
    splits: list[Tensor] = []
    for split in ("train", "test"):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if len(images) != len(labels) or not len(images):
            counts = f"{len(images)} images, but {files[f'y_{split}'].name} {len(labels)} labels"
            raise refuse(files[f"x_{split}"], f"has {counts}")
        splits += [_pixels(images[:, None]), _labels(labels)]
    if splits[0].shape[1:] != splits[2].shape[1:]:
        raise refuse(folder, "has training and test images of different sizes")
    return Dataset(_name(folder), *splits)


def _read_idx(path: Path, axes: int) -> Bytes:
    """An IDX file of unsigned bytes: 0, 0, 8, number of axes, their lengths as big-endian uint32, the values."""
    content = _content(path)
    head = 4 + 4 * axes
    if len(content) < head or content[:4] != bytes((0, 0, 8, axes)):
        raise refuse(path, f"is not an IDX file of unsigned bytes with {axes} axes")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", axes, offset=4))
    wanted, found = int(np.prod(shape, dtype=np.int64)), len(content) - head
    if wanted != found:
        raise refuse(path, f"holds {found} values where its head says {' x '.join(map(str, shape))} = {wanted}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        opener: Callable[..., IO[bytes]] = gzip.open if path.suffix == ".gz" else open  # type: ignore[assignment]
        with opener(path, "rb") as file:
            return file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise refuse(path, f"is a broken gzip file: {error}") from error
    except OSError as error:
        raise refuse(path, f"cannot be read: {reason(error)}") from error


def _cifar_names(end: str) -> list[str]:
    return [*(f"data_batch_{number}{end}" for number in range(1, 6)), f"test_batch{end}"]


def _binary_sign(folder: Path) -> bool:
    return (folder / "data_batch_1.bin").is_file()


def _pickle_sign(folder: Path) -> bool:
    return (folder / "data_batch_1").is_file()


def _load_binary(folder: Path) -> Dataset:
    """Records of one label and 3 x 32 x 32 values."""

    def read(path: Path) -> tuple[Bytes, Bytes]:
        content, record = _content(path), 1 + _CIFAR_VALUES
        if not content or len(content) % record:
            raise refuse(path, f"has {len(content)} bytes, which are no whole records of {record}")
        rows = np.frombuffer(content, np.uint8).reshape(-1, record)
        return rows[:, 1:], rows[:, 0]

    return _load_cifar(folder, ".bin", read)


def _load_pickles(folder: Path) -> Dataset:
    def read(path: Path) -> tuple[Bytes, Bytes]:
        content = _unpickled(path)
        data = content.get("data") if isinstance(content, dict) else None
        labels = content.get("labels") if isinstance(content, dict) else None
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_CIFAR_VALUES,):
            raise refuse(path, f"has no array 'data' of (images, {_CIFAR_VALUES}) unsigned bytes")
        if not isinstance(labels, list) or len(labels) != len(data) or not all(map(_is_byte, labels)):
            raise refuse(path, "has no list 'labels' with one number for each image")
        return data, np.array(labels, np.uint8)

    return _load_cifar(folder, "", read)


def _load_cifar(folder: Path, end: str, read: Callable[[Path], tuple[Bytes, Bytes]]) -> Dataset:
    parts: list[tuple[Bytes, Bytes]] = []
    for name in _cifar_names(end):
        images, labels = read(folder / name)
        if not len(images) or int(labels.max()) >= _CIFAR_CLASSES:
            found = f"the label {int(labels.max())}" if len(images) else "no image"
            raise refuse(folder / name, f"holds {found}; CIFAR-10 has the labels 0 to {_CIFAR_CLASSES - 1}")
        parts.append((images, labels))
    train, test = _joined(parts[:-1]), _joined(parts[-1:])
    return Dataset("cifar10", *train, *test)


def _joined(parts: Sequence[tuple[Bytes, Bytes]]) -> tuple[Tensor, Tensor]:
    images = np.concatenate([images for images, _ in parts]).reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE)
    return _pixels(images), _labels(np.concatenate([labels for _, labels in parts]))


class _ArraysOnly(pickle.Unpickler):
    """Loads arrays and plain containers; whatever else a pickle names is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays are loaded")
        return super().find_class(module, name)


def _unpickled(path: Path) -> Any:
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy on the way old files spell their dtypes
            return _ArraysOnly(file, encoding="latin1").load()
    except OSError as error:
        raise refuse(path, f"cannot be read: {reason(error)}") from error
    except Exception as error:  # a pickle raises what its broken bytes happen to trigger
        raise refuse(path, f"is not a pickled batch of CIFAR-10: {error}") from error


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 256


_KINDS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Dataset]], ...] = (
    (_idx_sign, _load_idx),
    (_binary_sign, _load_binary),
    (_pickle_sign, _load_pickles),
)


def _pixels(images: Bytes) -> Tensor:
    return torch.from_numpy(images.astype(np.float32, order="C")) / 255


def _labels(labels: Bytes) -> Tensor:
    return torch.from_numpy(labels.astype(np.int64))


def _name(folder: Path) -> str:
    """What the folder says of its data: the parent's name where it is torchvision's ``raw``."""
    resolved = folder.resolve()
    return (resolved.parent if resolved.name == "raw" else resolved).name or "idx"
